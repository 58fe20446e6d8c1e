//! What a session is to be: the machine, and how long to wait for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use qemu_launch::{Endpoint, Icount, MachineSpec, Semihosting, SpecError, StopPolicy};

use crate::client::log_sink::LogSink;
use crate::serial::PortName;

/// The character device of the semihosting console.
pub(crate) const SEMIHOSTING: &str = "semihosting";

/// The character device of QEMU's test protocol, by which memory is written: QEMU 7.2 looks for one
/// of this very name.
pub(crate) const QTEST: &str = "qtest";

/// The arguments that make QEMU serve it: with TCG it changes nothing else. Its log would go to
/// stderr.
const QTEST_ARGS: [&str; 4] = ["-qtest", "chardev:qtest", "-qtest-log", "none"];

/// The board of the defaults.
const DEFAULT_MACHINE: &str = "lm3s6965evb";

/// Describes a session: which QEMU, which machine, which firmware, where QMP and the GDB stub are,
/// and the deadlines.
///
/// The defaults: `qemu-system-arm` (found as [`qemu_launch::discover`] says), board `lm3s6965evb`
/// with a `cortex-m3` and `64K`, QMP over a socket pair that QEMU inherits, the GDB stub on
/// 127.0.0.1:1234, one serial port that the session reads
/// ([`Session::serial`](crate::Session::serial)), no firmware.
///
/// ```
/// use qemu_controller::{Endpoint, QemuConfig};
///
/// let config = QemuConfig::default()
///     .machine("mps2-an385")              // with the board's own CPU and memory
///     .firmware("target/thumbv7m-none-eabi/debug/app")
///     .gdb(Endpoint::free_port())
///     .wait_for_gdb(true);
/// ```
///
/// Setters never fail; what contradicts itself is refused by
/// [`Session::start`](crate::Session::start) before anything runs.
#[derive(Clone, Debug)]
#[must_use]
pub struct QemuConfig {
    spec: MachineSpec,
    symbols: Option<PathBuf>,
    semihosting: Option<Semihosting>,
    writable_memory: bool,
    machine: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    pub(crate) deadlines: Deadlines,
    pub(crate) transcript: Option<LogSink>,
    pub(crate) snapshot_file: Option<PathBuf>,
    pub(crate) logs: Vec<(PortName, LogSink)>,
}

/// How long a session waits, by what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) start: Duration,
    pub(crate) command: Duration,
    /// After `quit`, after SIGTERM, after SIGKILL.
    pub(crate) stop: StopPolicy,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(10),
            command: Duration::from_secs(5),
            stop: StopPolicy::default().after_quit(Duration::from_secs(2)),
        }
    }
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            spec: MachineSpec::default()
                .serial(Endpoint::Inherited)
                .gdb(Endpoint::loopback(1234)),
            symbols: None,
            semihosting: None,
            writable_memory: false,
            machine: None,
            cpu: None,
            memory: None,
            deadlines: Deadlines::default(),
            transcript: None,
            snapshot_file: None,
            logs: Vec::new(),
        }
    }
}

impl QemuConfig {
    /// The QEMU program: a bare name is looked up, a path is taken as it is. Default
    /// `qemu-system-arm`.
    pub fn qemu(self, program: impl Into<PathBuf>) -> Self {
        self.with_spec(|spec| spec.qemu(program))
    }

    /// The board (`-machine`). Another board than the default one gets its own CPU and memory,
    /// unless they are named too.
    pub fn machine(mut self, machine: impl Into<String>) -> Self {
        self.machine = Some(machine.into());
        self
    }

    /// The CPU model (`-cpu`). Default `cortex-m3` on the default board, otherwise the board's own.
    pub fn cpu(mut self, cpu: impl Into<String>) -> Self {
        self.cpu = Some(cpu.into());
        self
    }

    /// The guest's memory as QEMU writes it (`-m`), for example `64K`; a bare number is MiB.
    /// Default `64K` on the default board, otherwise the board's own.
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.memory = Some(memory.into());
        self
    }

    /// The firmware, an ELF file; it is checked before QEMU starts.
    pub fn firmware(self, path: impl Into<PathBuf>) -> Self {
        self.with_spec(|spec| spec.firmware(path))
    }

    /// The ELF file to take symbols from, where the firmware itself is none or was stripped.
    /// Default: the firmware.
    pub fn symbols(mut self, path: impl Into<PathBuf>) -> Self {
        self.symbols = Some(path.into());
        self
    }

    /// Serves the guest's semihosting calls. Their console is
    /// [`Session::semihosting`](crate::Session::semihosting), unless `semihosting` names another:
    /// what is written by SYS_WRITEC and SYS_WRITE0, and to the file `:tt` as standard output.
    /// `:tt` as standard error is QEMU's own
    /// ([`process().stderr_tail()`](crate::Session::process)). **The guest can then read and write
    /// files as this user.**
    pub fn semihosting(mut self, semihosting: Semihosting) -> Self {
        self.semihosting = Some(semihosting);
        self
    }

    /// Allows [`Session::write_memory`](crate::Session::write_memory), through QEMU's own test
    /// protocol on a further private socket pair (`-qtest`). Default: it is not allowed, and QEMU
    /// does not serve the protocol.
    pub fn writable_memory(mut self) -> Self {
        self.writable_memory = true;
        self
    }

    /// Virtual time by instructions, not by the clock (`-icount shift=N,sleep=off`): one
    /// instruction takes 2^`shift` ns, 0 to 10, and where the guest sleeps, time jumps to its next
    /// timer. The same firmware with the same input then does the same at the same instruction, and
    /// faster than real time where it waits.
    ///
    /// What it does to timing: the guest's clocks agree with its instructions and no longer with
    /// the world, by a factor that changes from moment to moment; 6 makes 15.6 million instructions
    /// a second. Input from outside, a serial line or a [`pause`](crate::Session::pause), still
    /// comes at some instruction or other: let the run come to a breakpoint of a debugger before it
    /// is compared with another, or give it all its input before it starts.
    pub fn deterministic(self, shift: u8) -> Self {
        self.with_spec(|spec| spec.icount(Icount::shift(shift).without_sleep()))
    }

    /// The guest's first request for a reset ends the run, and QEMU (`-no-reboot`). Default: it
    /// starts over.
    pub fn no_reboot(self) -> Self {
        self.with_spec(MachineSpec::no_reboot)
    }

    /// Does not run the guest until a debugger or [`resume`](crate::Session::resume) says so
    /// (`-S`); its run state is then `prelaunch`. Default false.
    pub fn wait_for_gdb(self, wait: bool) -> Self {
        self.with_spec(|spec| spec.start_stopped(wait))
    }

    /// Where the GDB stub listens. Default TCP 127.0.0.1:1234; [`Endpoint::free_port`] never
    /// collides, and
    /// [`Session::gdb`](crate::Session::gdb) tells which it became.
    pub fn gdb(self, endpoint: Endpoint) -> Self {
        self.with_spec(|spec| spec.gdb(endpoint))
    }

    /// No GDB stub.
    pub fn without_gdb(self) -> Self {
        self.with_spec(MachineSpec::without_gdb)
    }

    /// Where the QMP monitor is. Default: a socket pair that QEMU inherits, which nobody else can
    /// reach and where nothing is to be retried.
    pub fn qmp(self, endpoint: Endpoint) -> Self {
        self.with_spec(|spec| spec.qmp(endpoint))
    }

    /// Arguments for QEMU beside those that the session makes, one word each. What repeats or
    /// contradicts them is refused.
    pub fn extra_args<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        self.with_spec(|spec| spec.extra_args(args))
    }

    /// Anything else that [`MachineSpec`] can describe: further serial ports, drives, semihosting,
    /// deterministic time, logs. For board, CPU and memory prefer this type's own setters, whose
    /// word counts.
    pub fn with_spec(mut self, change: impl FnOnce(MachineSpec) -> MachineSpec) -> Self {
        self.spec = change(self.spec);
        self
    }

    /// Lets QEMU outlive the session and this program (default: it ends with either): dropping the
    /// last handle then leaves it running, as [`detach`](crate::Session::detach) does, and only
    /// [`stop`](crate::Session::stop) ends it. Give it a QMP endpoint that is not inherited, or nobody will
    /// reach it.
    pub fn keep_running(self) -> Self {
        self.with_spec(MachineSpec::keep_running)
    }

    /// How long QEMU may take from its start to a ready session. Default 10 s: 50 machines started
    /// at once on two cores took 2.4 s.
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.start = deadline;
        self
    }

    /// How long a command may take, its wait for a place among those in flight included. Default 5
    /// s;
    /// [`Session::with_deadline`](crate::Session::with_deadline) sets it for one call.
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.command = deadline;
        self
    }

    /// How long [`stop`](crate::Session::stop) waits on each rung: after `quit`, after SIGTERM,
    /// after SIGKILL. Default 2 s, 2 s, 5 s; `quit` takes 9 ms at the median and 152 ms on a loaded
    /// machine. Zero leaves out `quit` or SIGTERM.
    pub fn stop_policy(mut self, quit: Duration, terminate: Duration, kill: Duration) -> Self {
        self.deadlines.stop = StopPolicy::default()
            .after_quit(quit)
            .terminate_within(terminate)
            .kill_within(kill);
        self
    }

    /// Writes all that the guest prints on this serial port to a file as well; one that is there is
    /// replaced. The port has to be one that the session reads
    /// ([`Session::serial`](crate::Session::serial)).
    pub fn serial_log(self, port: usize, path: impl Into<PathBuf>) -> Self {
        self.log(PortName::Serial(port), LogSink::file(path))
    }

    /// As [`serial_log`](Self::serial_log), to a writer, which should be quick: standard output,
    /// for example.
    pub fn serial_log_to(self, port: usize, writer: impl Write + Send + 'static) -> Self {
        self.log(PortName::Serial(port), LogSink::writer(writer))
    }

    /// Writes all that the guest prints on the [semihosting](Self::semihosting) console to a file
    /// as well.
    pub fn semihosting_log(self, path: impl Into<PathBuf>) -> Self {
        self.log(PortName::Semihosting, LogSink::file(path))
    }

    /// As [`semihosting_log`](Self::semihosting_log), to a writer, which should be quick.
    pub fn semihosting_log_to(self, writer: impl Write + Send + 'static) -> Self {
        self.log(PortName::Semihosting, LogSink::writer(writer))
    }

    fn log(mut self, port: PortName, sink: LogSink) -> Self {
        self.logs.push((port, sink));
        self
    }

    /// Writes the QMP traffic to this file, from the first byte on, in the form of
    /// [`qmp_proto::transcript`]; a file that is there is replaced.
    pub fn qmp_transcript(mut self, path: impl Into<PathBuf>) -> Self {
        self.transcript = Some(LogSink::file(path));
        self
    }

    /// As [`qmp_transcript`](Self::qmp_transcript), to a writer, under the session's lock: it
    /// should be quick. It gets whole lines, and is flushed after each.
    pub fn qmp_transcript_to(mut self, writer: impl Write + Send + 'static) -> Self {
        self.transcript = Some(LogSink::writer(writer));
        self
    }

    /// Keeps snapshots in this file, a qcow2 image that outlives the session: a later session with
    /// the same configuration can load from it. Made at the first save, readable by its owner
    /// alone; one that is there must be such an image, and is in use by one session at a time.
    /// Default: a scratch image in the folder for temporary files, gone with the session.
    pub fn snapshot_file(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.snapshot_file = Some(std::path::absolute(&path).unwrap_or(path));
        self
    }

    /// The same for a machine that runs beside this one, and is not held at its start.
    pub(crate) fn for_fork(&self) -> Result<Self, SpecError> {
        let spec = self.spec.clone().with_own_endpoints()?.start_stopped(false);
        Ok(Self {
            spec,
            transcript: None,
            snapshot_file: None,
            logs: Vec::new(),
            ..self.clone()
        })
    }

    /// The machine that QEMU is to be.
    pub(crate) fn to_spec(&self) -> MachineSpec {
        let mut spec = self.spec.clone();
        if let Some(machine) = &self.machine {
            spec = spec.machine(machine);
            if machine != DEFAULT_MACHINE {
                spec = spec.default_cpu().default_memory();
            }
        }
        if let Some(cpu) = &self.cpu {
            spec = spec.cpu(cpu);
        }
        if let Some(memory) = &self.memory {
            spec = spec.memory(memory);
        }
        if self.writable_memory {
            spec = spec
                .chardev(QTEST, Endpoint::Inherited)
                .extra_args(QTEST_ARGS);
        }
        match &self.semihosting {
            Some(semihosting) if semihosting.has_console() => spec.semihosting(semihosting.clone()),
            Some(semihosting) => spec
                .chardev(SEMIHOSTING, Endpoint::Inherited)
                .inherit_stdout()
                .semihosting(semihosting.clone().console(SEMIHOSTING)),
            None => spec,
        }
    }

    /// The ELF file as it is now; `None` also where it cannot be opened, for which there is a
    /// better place to complain.
    pub(crate) fn symbols_file(&self, spec: &MachineSpec) -> Option<File> {
        let path = self.symbols.as_deref().or(spec.firmware_path())?;
        // To open something else may wait for ever.
        path.metadata().ok().filter(|metadata| metadata.is_file())?;
        File::open(path).ok()
    }
}
