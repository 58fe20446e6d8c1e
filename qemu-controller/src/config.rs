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

/// The character device of QEMU's test protocol, by which memory and the registers of devices are
/// written: QEMU 7.2 looks for one of this very name.
pub(crate) const QTEST: &str = "qtest";

/// The arguments that make QEMU serve it: with TCG it changes nothing else. Its log would go to
/// stderr.
const QTEST_ARGS: [&str; 4] = ["-qtest", "chardev:qtest", "-qtest-log", "none"];

/// Where the GDB stub listens if one is asked for without an endpoint.
const GDB_PORT: u16 = 1234;

/// Describes a session: which QEMU, which machine, which firmware, where QMP and the GDB stub are,
/// and the deadlines.
///
/// The defaults: `qemu-system-arm` (found as [`qemu_launch::discover`] says), board `lm3s6965evb`
/// with a `cortex-m3` and `64K`, QMP over a socket pair that QEMU inherits, one serial port that
/// the session reads ([`Session::serial`](crate::Session::serial)), no firmware, and nothing that
/// listens: a GDB stub is there when it is asked for, by [`gdb`](Self::gdb) or
/// [`wait_for_gdb`](Self::wait_for_gdb).
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
    symbols: Vec<PathBuf>,
    semihosting: Option<Semihosting>,
    pub(crate) strict_snapshots: bool,
    wait_for_gdb: bool,
    no_reboot: bool,
    keep_running: bool,
    pub(crate) deadlines: Deadlines,
    pub(crate) transcript: Option<LogSink>,
    pub(crate) snapshot_file: Option<PathBuf>,
    pub(crate) logs: Vec<(PortName, LogSink)>,
    #[cfg(feature = "coverage")]
    pub(crate) coverage: bool,
    #[cfg(feature = "rtt")]
    pub(crate) rtt: Option<crate::rtt::Rtt>,
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
            spec: MachineSpec::default().serial(Endpoint::Inherited),
            symbols: Vec::new(),
            semihosting: None,
            strict_snapshots: false,
            wait_for_gdb: false,
            no_reboot: false,
            keep_running: false,
            deadlines: Deadlines::default(),
            transcript: None,
            snapshot_file: None,
            logs: Vec::new(),
            #[cfg(feature = "coverage")]
            coverage: false,
            #[cfg(feature = "rtt")]
            rtt: None,
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
    pub fn machine(self, machine: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.machine(machine))
    }

    /// The CPU model (`-cpu`). Default `cortex-m3` on the default board, otherwise the board's own.
    pub fn cpu(self, cpu: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.cpu(cpu))
    }

    /// The guest's memory as QEMU writes it (`-m`), for example `64K`; a bare number is MiB.
    /// Default `64K` on the default board, otherwise the board's own.
    pub fn memory(self, memory: impl Into<String>) -> Self {
        self.with_spec(|spec| spec.memory(memory))
    }

    /// The firmware, an ELF file; it is checked before QEMU starts.
    pub fn firmware(self, path: impl Into<PathBuf>) -> Self {
        self.with_spec(|spec| spec.firmware(path))
    }

    /// An ELF file to take symbols from, where the firmware itself is none, was stripped, or begins
    /// others: a boot loader's application, a secure image's other half. Each call adds one; all
    /// of them, and the firmware after them, are known to places, breakpoints and backtraces.
    /// Default: the firmware.
    pub fn symbols(mut self, path: impl Into<PathBuf>) -> Self {
        self.symbols.push(path.into());
        self
    }

    /// Serves the guest's semihosting calls. Their console is
    /// [`Session::semihosting`](crate::Session::semihosting), unless `semihosting` names another:
    /// what is written by SYS_WRITEC and SYS_WRITE0, and to the file `:tt` as standard output.
    /// `:tt` as standard error is [`Session::stderr`](crate::Session::stderr). **At every level but
    /// [`Off`](qemu_launch::SemihostingLevel::Off) the guest can then read and write files as this
    /// user.**
    pub fn semihosting(mut self, semihosting: Semihosting) -> Self {
        self.semihosting = Some(semihosting);
        self
    }

    /// Refuses to save a machine with devices that a load does not bring back
    /// ([`SnapshotError::LostDevices`](crate::SnapshotError::LostDevices)), instead of naming them.
    /// Default false. It counts for snapshots, states and forks.
    pub fn strict_snapshots(mut self, strict: bool) -> Self {
        self.strict_snapshots = strict;
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

    /// The guest's first request for a reset ends the run, and QEMU (`-no-reboot`). Default false:
    /// it starts over.
    pub fn no_reboot(mut self, no_reboot: bool) -> Self {
        self.no_reboot = no_reboot;
        self
    }

    /// Does not run the guest until [`resume`](crate::Session::resume) or a debugger says so
    /// (`-S`); its run state is `prelaunch` until then. Default false.
    pub fn start_paused(self, paused: bool) -> Self {
        self.with_spec(|spec| spec.start_stopped(paused))
    }

    /// Does not run the guest until a debugger or [`resume`](crate::Session::resume) says so, and
    /// opens a GDB stub for the debugger: where [`gdb`](Self::gdb) says, else at TCP
    /// 127.0.0.1:1234. Default false.
    pub fn wait_for_gdb(mut self, wait: bool) -> Self {
        self.wait_for_gdb = wait;
        self
    }

    /// Opens a GDB stub here. [`Endpoint::free_port`] never collides, and
    /// [`Session::gdb`](crate::Session::gdb) tells which port it became. Default: there is no stub,
    /// since whoever reaches one commands the guest.
    pub fn gdb(self, endpoint: Endpoint) -> Self {
        self.with_spec(|spec| spec.gdb(endpoint))
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

    /// Gives the board one serial port more, which the session reads
    /// ([`Session::serial`](crate::Session::serial)). Default: one is there, with the number 0.
    pub fn add_serial(self) -> Self {
        self.with_spec(|spec| spec.serial(Endpoint::Inherited))
    }

    /// Anything else that [`MachineSpec`] can describe: drives, devices, images, logs.
    pub fn with_spec(mut self, change: impl FnOnce(MachineSpec) -> MachineSpec) -> Self {
        self.spec = change(self.spec);
        self
    }

    /// Lets QEMU outlive the session and this program: dropping the last handle then leaves it
    /// running, as [`detach`](crate::Session::detach) does, and only [`stop`](crate::Session::stop)
    /// ends it. Give it a QMP endpoint that is not inherited, or nobody will reach it. Default
    /// false: it ends with either.
    pub fn keep_running(mut self, keep: bool) -> Self {
        self.keep_running = keep;
        self
    }

    /// How long QEMU may take from its start to a ready session. Default 10 s: 50 machines started
    /// at once on two cores took 2.4 s.
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.start = deadline;
        self
    }

    /// How long a command may take, its wait for a place among those in flight included. Default
    /// 5 s; [`Session::with_deadline`](crate::Session::with_deadline) sets it for one call.
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.deadlines.command = deadline;
        self
    }

    /// How long each step of [`stop`](crate::Session::stop) may take: after `quit`, after SIGTERM,
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

    /// Records which code of the firmware runs, for
    /// [`Session::executed_code`](crate::Session::executed_code) and
    /// [`Coverage`](crate::coverage::Coverage). It takes QEMU's own log (`-d`, `-D`), so there can be
    /// no other. Default false. A fork records its own.
    #[cfg(feature = "coverage")]
    pub fn coverage(mut self, coverage: bool) -> Self {
        self.coverage = coverage;
        self
    }

    /// Reads the firmware's RTT channels, for [`Session::rtt`](crate::Session::rtt); see
    /// [`rtt`](crate::rtt). QEMU stays after the guest has shut down or, with
    /// [`no_reboot`](Self::no_reboot), reset, so that what is in the rings then can be read: the run
    /// is over all the same. Default: none are.
    #[cfg(feature = "rtt")]
    pub fn rtt(mut self, rtt: crate::rtt::Rtt) -> Self {
        self.rtt = Some(rtt);
        self
    }

    /// Writes all that the guest sends on this RTT channel to a file as well.
    #[cfg(feature = "rtt")]
    pub fn rtt_log(self, channel: u32, path: impl Into<PathBuf>) -> Self {
        self.log(PortName::Rtt(channel), LogSink::file(path))
    }

    /// As [`rtt_log`](Self::rtt_log), to a writer, which should be quick.
    #[cfg(feature = "rtt")]
    pub fn rtt_log_to(self, channel: u32, writer: impl Write + Send + 'static) -> Self {
        self.log(PortName::Rtt(channel), LogSink::writer(writer))
    }

    /// The same for a machine that runs beside this one, and is not held at its start.
    pub(crate) fn for_fork(&self) -> Result<Self, SpecError> {
        let spec = self.spec.clone().with_own_endpoints()?.start_stopped(false);
        Ok(Self {
            spec,
            wait_for_gdb: false,
            keep_running: false,
            transcript: None,
            snapshot_file: None,
            logs: Vec::new(),
            ..self.clone()
        })
    }

    /// The machine that QEMU is to be.
    pub(crate) fn to_spec(&self) -> MachineSpec {
        let mut spec = self.spec.clone();
        if self.wait_for_gdb {
            spec = spec.start_stopped(true);
            if !spec.has_gdb() {
                spec = spec.gdb(Endpoint::loopback(GDB_PORT));
            }
        }
        if self.no_reboot {
            spec = spec.no_reboot();
        }
        #[cfg(feature = "rtt")]
        if self.rtt.is_some() && !spec.has_action() {
            spec = spec.action(qemu_launch::Action::new().pause_on_shutdown());
        }
        if self.keep_running {
            spec = spec.keep_running();
        }
        spec = spec
            .chardev(QTEST, Endpoint::Inherited)
            .extra_args(QTEST_ARGS);
        match &self.semihosting {
            Some(semihosting) if semihosting.has_chardev() => spec.semihosting(semihosting.clone()),
            Some(semihosting) => spec
                .chardev(SEMIHOSTING, Endpoint::Inherited)
                .inherit_stdout()
                .semihosting(semihosting.clone().chardev(SEMIHOSTING)),
            None => spec,
        }
    }

    /// The machine in names and numbers.
    #[cfg(feature = "bundle")]
    pub(crate) fn plain(&self) -> qemu_launch::PlainMachine {
        self.spec.plain()
    }

    /// The files of symbols beside the firmware.
    #[cfg(feature = "bundle")]
    pub(crate) fn further_symbols(&self) -> &[PathBuf] {
        &self.symbols
    }

    #[cfg(feature = "bundle")]
    pub(crate) fn program(&self) -> PathBuf {
        self.spec.program_path().to_owned()
    }

    #[cfg(feature = "bundle")]
    pub(crate) fn has_semihosting(&self) -> bool {
        self.semihosting.is_some()
    }

    /// Where the ELF file is that has the symbols.
    #[cfg(feature = "debugger")]
    pub(crate) fn symbols_path(&self) -> Option<&std::path::Path> {
        let first = self.symbols.first().map(PathBuf::as_path);
        first.or(self.spec.firmware_path())
    }

    /// The ELF files as they are now; `None` also where one cannot be opened, for which there is a
    /// better place to complain.
    pub(crate) fn symbols_files(&self, spec: &MachineSpec) -> Vec<Option<File>> {
        let paths = self.symbols.iter().map(PathBuf::as_path);
        let paths = paths.chain(spec.firmware_path());
        let open = |path: &std::path::Path| {
            // To open something else may wait for ever.
            path.metadata().ok().filter(|metadata| metadata.is_file())?;
            File::open(path).ok()
        };
        paths.map(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_stub_is_there_when_it_is_asked_for() {
        let line = |config: QemuConfig| {
            let spec = config.to_spec();
            spec.argv(Path::new("/q"), Path::new("/run/own"))
                .unwrap()
                .to_string()
        };
        let default = QemuConfig::default;
        let is_held = |line: &str| line.split(' ').any(|word| word == "-S");
        let plain = line(default());
        assert!(!plain.contains("gdb") && !is_held(&plain), "{plain}");
        let waiting = line(default().wait_for_gdb(true));
        assert!(
            waiting.contains("host=127.0.0.1,port=1234,") && is_held(&waiting),
            "{waiting}"
        );
        for config in [
            default().gdb(Endpoint::loopback(7)).wait_for_gdb(true),
            default().wait_for_gdb(true).gdb(Endpoint::loopback(7)),
        ] {
            let named = line(config);
            assert!(
                named.contains("host=127.0.0.1,port=7,") && is_held(&named),
                "{named}"
            );
        }
        let paused = line(default().start_paused(true));
        assert!(!paused.contains("gdb") && is_held(&paused), "{paused}");
        assert_eq!(
            line(default().wait_for_gdb(true).wait_for_gdb(false)),
            plain
        );
    }
}
