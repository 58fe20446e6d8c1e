//! The machine that is wanted: QEMU's options as types, from which `argv` makes the command line.

pub(crate) mod device;
pub(crate) mod endpoint;
pub(crate) mod image;
pub(crate) mod incoming;
pub(crate) mod plain;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{
    Action, Backend, Blockdev, Device, Display, Drive, Icount, Log, Monitor, Nic, Sandbox,
    Semihosting,
};
use endpoint::Endpoint;
use image::{Bios, Kernel, LoadedImage};

use crate::process::exec::Descriptor;

/// A machine to run: program, board, firmware, and the channels by which it is reached.
///
/// The default is `qemu-system-arm` with the board `lm3s6965evb`, CPU `cortex-m3`, 64K of memory
/// and a private QMP monitor; no firmware, no GDB stub, no serial port. QEMU is started with
/// `-nodefaults -no-user-config -display none`, so that the guest has nothing that was not asked
/// for.
///
/// Setters never fail: what contradicts itself or cannot be passed on unharmed is refused by
/// [`argv`](Self::argv) and by [`spawn`](crate::spawn()), before anything is started.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    pub(crate) program: PathBuf,
    pub(crate) machine: String,
    /// The board has its own CPU and memory, even if it is the default one.
    pub(crate) as_board: bool,
    pub(crate) machine_properties: Vec<(String, OsString)>,
    pub(crate) cpu: Option<String>,
    pub(crate) cpu_properties: Vec<(String, String)>,
    pub(crate) memory: Option<String>,
    pub(crate) smp: Option<u32>,
    pub(crate) kernels: Vec<Kernel>,
    /// Whether what is loaded is checked before the start.
    pub(crate) checked: bool,
    pub(crate) images: Vec<LoadedImage>,
    pub(crate) bios: Option<Bios>,
    pub(crate) semihosting: Option<Semihosting>,
    pub(crate) qmp: Option<Endpoint>,
    pub(crate) gdb: Option<Endpoint>,
    pub(crate) serials: Vec<Backend>,
    pub(crate) chardevs: Vec<(String, Backend)>,
    pub(crate) monitors: Vec<Monitor>,
    pub(crate) drives: Vec<Drive>,
    pub(crate) blockdevs: Vec<Blockdev>,
    pub(crate) devices: Vec<Device>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) icount: Option<Icount>,
    pub(crate) action: Option<Action>,
    pub(crate) no_reboot: bool,
    pub(crate) kept: bool,
    pub(crate) stdout_is_channel: bool,
    pub(crate) stdio: Stdio,
    pub(crate) start_stopped: bool,
    pub(crate) incoming: bool,
    pub(crate) log: Option<Log>,
    pub(crate) globals: Vec<(String, String, OsString)>,
    pub(crate) display: Display,
    /// `None` where the caller leaves it to what else is asked for.
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) extra_args: Vec<OsString>,
}

/// What QEMU gets for its standard streams, where the caller has opened it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<Arc<Descriptor>>,
    pub(crate) stdout: Option<Arc<Descriptor>>,
}

/// The board of the defaults.
const DEFAULT_MACHINE: &str = "lm3s6965evb";

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            program: PathBuf::from("qemu-system-arm"),
            machine: DEFAULT_MACHINE.to_owned(),
            as_board: false,
            machine_properties: Vec::new(),
            cpu: None,
            cpu_properties: Vec::new(),
            memory: None,
            smp: None,
            kernels: Vec::new(),
            checked: true,
            images: Vec::new(),
            bios: None,
            semihosting: None,
            qmp: Some(Endpoint::Inherited),
            gdb: None,
            serials: Vec::new(),
            chardevs: Vec::new(),
            monitors: Vec::new(),
            drives: Vec::new(),
            blockdevs: Vec::new(),
            devices: Vec::new(),
            nics: Vec::new(),
            icount: None,
            action: None,
            no_reboot: false,
            kept: false,
            stdout_is_channel: false,
            stdio: Stdio::default(),
            start_stopped: false,
            incoming: false,
            log: None,
            globals: Vec::new(),
            display: Display::None,
            sandbox: None,
            current_dir: None,
            environment: Vec::new(),
            extra_args: Vec::new(),
        }
    }
}

/// Program, board and CPU.
impl MachineSpec {
    /// A machine of this program and this board, with the board's own CPU and memory: for other
    /// architectures than the default's, as in `MachineSpec::new("qemu-system-riscv32", "virt")`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, machine: impl Into<String>) -> Self {
        Self::board(machine).qemu(program)
    }

    /// A machine of this board, with the board's own CPU and memory instead of the defaults.
    #[must_use]
    pub fn board(machine: impl Into<String>) -> Self {
        Self {
            machine: machine.into(),
            as_board: true,
            ..Self::default()
        }
    }

    /// The program: a bare name is looked up (environment variable, then PATH; see
    /// [`discover`](crate::discover)), a path with a separator is taken as it is.
    #[must_use]
    pub fn qemu(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// The board (`-machine`), perhaps with properties behind it as in `virt,secure=on`. Another
    /// board than the default one has its own CPU and memory, unless they are named too.
    #[must_use]
    pub fn machine(mut self, machine: impl Into<String>) -> Self {
        self.machine = machine.into();
        self
    }

    /// Sets a property of the board.
    #[must_use]
    pub fn machine_property(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.machine_properties.push((key.into(), value.into()));
        self
    }

    /// The CPU model (`-cpu`), perhaps with properties behind it as in `max,sve=off`. Default
    /// `cortex-m3` on the default board, otherwise the board's own.
    #[must_use]
    pub fn cpu(mut self, cpu: impl Into<String>) -> Self {
        self.cpu = Some(cpu.into());
        self
    }

    /// Sets a property of the CPU. QEMU has no way to pass a comma here, so one is refused.
    #[must_use]
    pub fn cpu_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.cpu_properties.push((key.into(), value.into()));
        self
    }

    /// The guest's memory as QEMU writes it: a number, in MiB unless a suffix `K`, `M`, `G` or `T`
    /// follows. Default `64K` on the default board, otherwise the board's own. Some boards, among
    /// them `lm3s6965evb`, have a fixed memory and ignore it.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<String>) -> Self {
        self.memory = Some(memory.into());
        self
    }

    pub(crate) fn is_default_board(&self) -> bool {
        self.board_name() == DEFAULT_MACHINE && !self.as_board
    }

    /// The board without the properties behind it.
    pub(crate) fn board_name(&self) -> &str {
        self.machine.split(',').next().unwrap_or_default()
    }

    /// The CPU model, where it is not the board's own.
    pub(crate) fn cpu_model(&self) -> Option<&str> {
        let default = self.is_default_board().then_some("cortex-m3");
        self.cpu.as_deref().or(default)
    }

    /// The memory, where it is not the board's own.
    pub(crate) fn memory_size(&self) -> Option<&str> {
        let default = self.is_default_board().then_some("64K");
        self.memory.as_deref().or(default)
    }

    /// How many CPUs (`-smp`).
    #[must_use]
    pub fn smp(mut self, cpus: u32) -> Self {
        self.smp = Some(cpus);
        self
    }
}

/// What the machine runs.
impl MachineSpec {
    /// The firmware: an ELF file (`-kernel`), checked before QEMU starts (see
    /// [`firmware`](crate::firmware)).
    #[must_use]
    pub fn firmware(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernels.push(Kernel {
            path: path.into(),
            checked: true,
        });
        self
    }

    /// A file for `-kernel` that is passed on unread. QEMU runs whatever it is: an ELF, or else a
    /// raw image.
    #[must_use]
    pub fn unchecked_firmware(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernels.push(Kernel {
            path: path.into(),
            checked: false,
        });
        self
    }

    /// Leaves out the checks of all files but that they can be read: for a machine of which a check
    /// is wrong. Intel HEX files are then passed on as they are.
    #[must_use]
    pub fn without_firmware_checks(mut self) -> Self {
        self.checked = false;
        self
    }

    /// Loads a raw image at this address (`-device loader,force-raw=on`). May be given more than
    /// once.
    #[must_use]
    pub fn raw_image(mut self, path: impl Into<PathBuf>, address: u64) -> Self {
        self.images.push(LoadedImage::Raw {
            path: path.into(),
            address,
        });
        self
    }

    /// Loads an Intel HEX file, which names its own addresses (`-device loader`). May be given more
    /// than once. One that QEMU would misread (no newline at its end, comments, a byte order mark,
    /// several files in one, a micro:bit's Universal Hex) is given to it rewritten.
    #[must_use]
    pub fn intel_hex(mut self, path: impl Into<PathBuf>) -> Self {
        self.images
            .push(LoadedImage::IntelHex { path: path.into() });
        self
    }

    /// The board's ROM (`-bios`). The word `none` is the same as
    /// [`without_bios`](Self::without_bios); a file of that name is `./none`.
    #[must_use]
    pub fn bios(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.bios = Some(match path.to_str() {
            Some("none") => Bios::None,
            _ => Bios::File(path),
        });
        self
    }

    /// No ROM (`-bios none`), where the board would have one of QEMU's own: RISC-V's `virt` begins
    /// in OpenSBI otherwise.
    #[must_use]
    pub fn without_bios(mut self) -> Self {
        self.bios = Some(Bios::None);
        self
    }

    /// The files that QEMU loads at its start: firmware, images, ROM. Not those in
    /// [`extra_args`](Self::extra_args).
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let kernels = self.kernels.iter().map(|kernel| kernel.path.as_path());
        kernels
            .chain(self.images.iter().map(LoadedImage::path))
            .chain(self.bios.iter().filter_map(|bios| match bios {
                Bios::None => None,
                Bios::File(path) => Some(path.as_path()),
            }))
    }

    /// Serves the guest's semihosting calls. Left out for a QEMU whose target has none and refuses
    /// the option (AVR, x86, SuperH, RX, TriCore, OpenRISC, MicroBlaze, HPPA, Alpha, s390x,
    /// LoongArch).
    #[must_use]
    pub fn semihosting(mut self, semihosting: Semihosting) -> Self {
        self.semihosting = Some(semihosting);
        self
    }

    /// Does not run the guest until QMP's `cont` or a debugger starts it (`-S`).
    #[must_use]
    pub fn start_stopped(mut self, stopped: bool) -> Self {
        self.start_stopped = stopped;
        self
    }

    /// A guest that asks for a reset ends QEMU, with exit status 0 (`-no-reboot`).
    #[must_use]
    pub fn no_reboot(mut self) -> Self {
        self.no_reboot = true;
        self
    }

    /// What QEMU does when the guest reboots, shuts down or panics.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.action = Some(action);
        self
    }

    /// Whether it says what QEMU does then.
    #[must_use]
    pub fn has_action(&self) -> bool {
        self.action.is_some()
    }

    /// Virtual time by instruction count.
    #[must_use]
    pub fn icount(mut self, icount: Icount) -> Self {
        self.icount = Some(icount);
        self
    }
}

/// The channels to and from the machine.
impl MachineSpec {
    /// Where the QMP monitor is (default: [`Endpoint::Inherited`]). Its character device has the id
    /// `qmp`.
    #[must_use]
    pub fn qmp(mut self, endpoint: Endpoint) -> Self {
        self.qmp = Some(endpoint);
        self
    }

    /// No QMP monitor.
    #[must_use]
    pub fn without_qmp(mut self) -> Self {
        self.qmp = None;
        self
    }

    /// Where the GDB stub is (default: there is none). Its character device has the id `gdb`.
    #[must_use]
    pub fn gdb(mut self, endpoint: Endpoint) -> Self {
        self.gdb = Some(endpoint);
        self
    }

    /// Whether a GDB stub is asked for.
    #[must_use]
    pub fn has_gdb(&self) -> bool {
        self.gdb.is_some()
    }

    /// No GDB stub.
    #[must_use]
    pub fn without_gdb(mut self) -> Self {
        self.gdb = None;
        self
    }

    /// Adds a serial port, in the board's order. Its character device has the id `serial0`,
    /// `serial1`, ...
    #[must_use]
    pub fn serial(mut self, backend: impl Into<Backend>) -> Self {
        self.serials.push(backend.into());
        self
    }

    /// Adds a monitor. Its character device has the id `monitor0`, `monitor1`, ...
    #[must_use]
    pub fn monitor(mut self, monitor: Monitor) -> Self {
        self.monitors.push(monitor);
        self
    }

    /// Adds a character device of this id, for a device or for semihosting.
    #[must_use]
    pub fn chardev(mut self, id: impl Into<String>, backend: impl Into<Backend>) -> Self {
        self.chardevs.push((id.into(), backend.into()));
        self
    }

    /// Hands QEMU's stdout out as the inherited channel `stdout`, in place of draining it here.
    /// **Read it until the process is gone.** Where semihosting is served, the guest's file `:tt`
    /// is written there, whatever its console.
    #[must_use]
    pub fn inherit_stdout(mut self) -> Self {
        self.stdout_is_channel = true;
        self
    }

    /// Gives QEMU this for its stdin; the default is `/dev/null`. Where semihosting is served, the
    /// guest reads it as the file `:tt`. **A read from an empty pipe blocks QEMU whole**, its
    /// monitor included, until something comes or the other end is closed.
    #[cfg(unix)]
    #[must_use]
    pub fn stdin(mut self, descriptor: std::os::fd::OwnedFd) -> Self {
        self.stdio.stdin = Some(descriptor.into());
        self
    }

    /// Gives QEMU this for its stdout, in place of what [`inherit_stdout`](Self::inherit_stdout)
    /// and the default say. With a pipe, `/proc/self/fd/1` names it in QEMU's options: several
    /// character devices can then write to it in one order.
    #[cfg(unix)]
    #[must_use]
    pub fn stdout(mut self, descriptor: std::os::fd::OwnedFd) -> Self {
        self.stdio.stdout = Some(descriptor.into());
        self
    }

    /// Adds a drive.
    #[must_use]
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drives.push(drive);
        self
    }

    /// Adds a block node.
    #[must_use]
    pub fn blockdev(mut self, blockdev: Blockdev) -> Self {
        self.blockdevs.push(blockdev);
        self
    }

    /// Adds a device.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.devices.push(device);
        self
    }

    /// Where the guest's screen is shown (default: nowhere).
    #[must_use]
    pub fn display(mut self, display: Display) -> Self {
        self.display = display;
        self
    }

    /// Adds a network card.
    #[must_use]
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }
}

/// Logs, globals, and what QEMU may see of this process.
impl MachineSpec {
    /// What QEMU logs.
    #[must_use]
    pub fn log(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// Whether QEMU is to log anything.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Sets a property of every device of a driver (`-global driver=…,property=…,value=…`).
    #[must_use]
    pub fn global(
        mut self,
        driver: impl Into<String>,
        property: impl Into<String>,
        value: impl Into<OsString>,
    ) -> Self {
        self.globals
            .push((driver.into(), property.into(), value.into()));
        self
    }

    /// QEMU's own system call filter. Default, on Linux: [`Sandbox::NoSpawn`] where a monitor or a
    /// GDB stub listens on TCP, since whoever reaches it could run commands on this machine, and
    /// where semihosting is for the [console](crate::SemihostingLevel::Console) alone; else
    /// [`Sandbox::Off`].
    ///
    /// No filter keeps them from **files**: a monitor can write any file that this user can
    /// (`memsave`, `logfile`, `migrate file:`), and a GDB stub reaches the monitor.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// The folder that QEMU runs in (default: this program's). Relative paths in this description
    /// are this program's all the same: they are made absolute before.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(folder.into());
        self
    }

    /// Lets QEMU outlive the [`Process`](crate::Process) and this program (default: it ends with
    /// either). It can still be ended through a handle while there is one; after that only by its
    /// monitor, so give it one that is not inherited. Its output is no longer drained once this
    /// program has ended: what it then writes is lost, and the private folder of its sockets stays.
    #[must_use]
    pub fn keep_running(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Sets an environment variable for QEMU, beside the short list that it gets (see
    /// [`spawn`](crate::spawn())). A name that is empty or has a `=` or NUL in it is refused, and
    /// so is a value with a NUL.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Passes a variable of this process on to QEMU, if it is set.
    #[must_use]
    pub fn inherit_env(mut self, name: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Adds arguments at the end, one word each, as QEMU's manual writes them. What only repeats a
    /// typed option is left out (`-nographic`, the same `-cpu` again), and what contradicts one is
    /// refused. So are `-daemonize` (the process would escape its supervision), `-s` and a `-gdb`
    /// on TCP that is not loopback (whoever reaches the stub can run commands here).
    ///
    /// **That catches mistakes and is no boundary**: `-gdb chardev:ID`, `-serial mon:…`,
    /// `-readconfig FILE` and others can still make QEMU listen anywhere. So never fill these words
    /// with strings of others.
    #[must_use]
    pub fn extra_args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.extra_args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }
}
