//! The parts that a machine can be given beside its board: ports, drives, network, semihosting,
//! display, clock, log and sandbox.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::spec::endpoint::Endpoint;

/// Where the bytes of a serial port or character device go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// To this program or to the client that connects. **Read it until the process is gone**: an
    /// unread UART stalls QEMU after 278 bytes on a unix socket or socket pair. A socket that QEMU
    /// listens on drops what is printed before a client connects; an inherited one drops nothing.
    Endpoint(Endpoint),
    /// Into a file, which is emptied first unless `append` is set.
    File {
        /// The file; made absolute.
        path: PathBuf,
        /// Keep what the file holds already.
        append: bool,
    },
    /// Into a ring buffer inside QEMU, read by QMP's `ringbuf-read`. The size in bytes is a power
    /// of two.
    RingBuffer {
        /// Bytes kept; a power of two.
        size: u32,
    },
    /// Nowhere.
    Null,
}

impl From<Endpoint> for Backend {
    fn from(endpoint: Endpoint) -> Self {
        Self::Endpoint(endpoint)
    }
}

/// A monitor beside the main QMP one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Monitor {
    /// A further QMP monitor (`mode=control`).
    Qmp(Endpoint),
    /// A human monitor (`mode=readline`).
    Human(Endpoint),
}

impl Monitor {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        let (Self::Qmp(endpoint) | Self::Human(endpoint)) = self;
        endpoint
    }
}

/// How much of the host the guest's semihosting calls reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SemihostingLevel {
    /// Nothing: QEMU does not serve them, and to the guest they are undefined instructions.
    Off,
    /// The console, the command line and the exit. Commands (`SYS_SYSTEM`) are denied by QEMU's
    /// sandbox, which is set for it unless [`sandbox`](crate::MachineSpec::sandbox) was: QEMU 10.0
    /// fails the guest's call, 7.2 is killed by SIGSYS. **Files of the host stay within reach as
    /// this user** (`SYS_OPEN`, `SYS_REMOVE`, `SYS_RENAME`): QEMU has no option that denies them.
    /// Linux only: elsewhere there is no sandbox, and it is the same as `Full`.
    #[default]
    Console,
    /// All that QEMU serves: **the guest can run commands and read and write files as this user.**
    Full,
}

/// How the guest's semihosting calls are served: by QEMU (`target=native`), which lets the guest
/// print, exit with a status of its own, and more, depending on the level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Semihosting {
    pub(crate) level: SemihostingLevel,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) chardev: Option<String>,
}

impl Semihosting {
    /// This much of the host.
    #[must_use]
    pub fn new(level: SemihostingLevel) -> Self {
        Self {
            level,
            ..Self::default()
        }
    }

    /// Not served; see [`SemihostingLevel::Off`].
    #[must_use]
    pub fn off() -> Self {
        Self::new(SemihostingLevel::Off)
    }

    /// Console, command line and exit; see [`SemihostingLevel::Console`].
    #[must_use]
    pub fn console() -> Self {
        Self::new(SemihostingLevel::Console)
    }

    /// All of it; see [`SemihostingLevel::Full`].
    #[must_use]
    pub fn full() -> Self {
        Self::new(SemihostingLevel::Full)
    }

    /// How much of the host the calls reach.
    #[must_use]
    pub fn level(&self) -> SemihostingLevel {
        self.level
    }

    /// Adds one word to the command line that the guest can ask for (`arg=`).
    #[must_use]
    pub fn argument(mut self, word: impl Into<OsString>) -> Self {
        self.arguments.push(word.into());
        self
    }

    /// Whether the console has been sent to a character device.
    #[must_use]
    pub fn has_chardev(&self) -> bool {
        self.chardev.is_some()
    }

    /// Sends the guest's semihosting console to the character device of this id.
    #[must_use]
    pub fn chardev(mut self, id: impl Into<String>) -> Self {
        self.chardev = Some(id.into());
        self
    }
}

/// Where the guest's screen is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Display {
    /// Nowhere (`-display none`). The guest has its graphics all the same.
    #[default]
    None,
    /// Over VNC. **Without a password: whoever can connect sees the screen and types on the
    /// keyboard.** On TCP the port is 5900 or above, since VNC counts from there. Its channel has
    /// the id `vnc`.
    Vnc(Endpoint),
    /// As QEMU's `-display` takes it, word for word: `gtk,gl=on`. Commas are not escaped, so never
    /// fill it with strings of others.
    Raw(OsString),
}

/// A drive by QEMU's older option `-drive`, which is how boards take SD cards and flash (`if=sd`,
/// `if=mtd`, ...).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    pub(crate) path: PathBuf,
    pub(crate) interface: String,
    pub(crate) format: String,
    pub(crate) properties: Vec<(String, OsString)>,
}

impl Drive {
    /// A raw image on the interface given: `sd`, `mtd`, `pflash`, `virtio`, `none`, ... The format
    /// is never guessed.
    #[must_use]
    pub fn raw(interface: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::new(interface, "raw", path)
    }

    /// A qcow2 image on the interface given.
    #[must_use]
    pub fn qcow2(interface: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::new(interface, "qcow2", path)
    }

    /// An image of any format that QEMU knows.
    #[must_use]
    pub fn new(
        interface: impl Into<String>,
        format: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        Self {
            path: path.into(),
            interface: interface.into(),
            format: format.into(),
            properties: Vec::new(),
        }
    }

    /// Writes go to a temporary file that is gone with the process (`snapshot=on`).
    #[must_use]
    pub fn discard_writes(self) -> Self {
        self.property("snapshot", "on")
    }

    /// Sets a property such as `id`, `index` or `readonly`.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// A block node by `-blockdev`: a format over a file, named for `-device` and QMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blockdev {
    pub(crate) node: String,
    pub(crate) format: String,
    pub(crate) path: PathBuf,
    pub(crate) properties: Vec<(String, OsString)>,
}

impl Blockdev {
    /// A raw image under this node name.
    #[must_use]
    pub fn raw(node: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::new(node, "raw", path)
    }

    /// A qcow2 image under this node name.
    #[must_use]
    pub fn qcow2(node: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self::new(node, "qcow2", path)
    }

    /// An image of any format driver that QEMU knows, over a plain file.
    #[must_use]
    pub fn new(
        node: impl Into<String>,
        format: impl Into<String>,
        path: impl Into<PathBuf>,
    ) -> Self {
        Self {
            node: node.into(),
            format: format.into(),
            path: path.into(),
            properties: Vec::new(),
        }
    }

    /// QEMU opens the image for reading only.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.property("read-only", "on")
    }

    /// Sets a property of the format's node, such as `discard`.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// A device by `-device`, with its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub(crate) driver: String,
    pub(crate) properties: Vec<(String, OsString)>,
}

impl Device {
    /// A device of this driver, as `-device help` lists them.
    #[must_use]
    pub fn new(driver: impl Into<String>) -> Self {
        Self {
            driver: driver.into(),
            properties: Vec::new(),
        }
    }

    /// Sets a property, such as `id`, `bus` or `drive`.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// A network card of the board and what it is plugged into (`-nic`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub(crate) kind: String,
    pub(crate) properties: Vec<(String, OsString)>,
}

impl Nic {
    /// User-mode network in which the guest can reach nothing outside (`restrict=on`).
    #[must_use]
    pub fn user_restricted() -> Self {
        Self::new("user").property("restrict", "on")
    }

    /// User-mode network: the guest can reach whatever this machine can.
    #[must_use]
    pub fn user() -> Self {
        Self::new("user")
    }

    /// Any kind that QEMU knows: `tap`, `bridge`, `socket`, ...
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            properties: Vec::new(),
        }
    }

    /// Sets a property, such as `model` or `mac`. A `hostfwd` without a host address listens on
    /// every interface.
    #[must_use]
    pub fn property(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// Virtual time by instruction count (`-icount`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icount {
    pub(crate) shift: Option<u8>,
    pub(crate) sleep: bool,
}

impl Icount {
    /// One instruction takes 2^`shift` nanoseconds of virtual time; 0 to 10. Reproducible from run
    /// to run.
    #[must_use]
    pub fn shift(shift: u8) -> Self {
        Self {
            shift: Some(shift),
            sleep: true,
        }
    }

    /// QEMU adjusts the shift to keep up with real time (`shift=auto`): *not* reproducible.
    #[must_use]
    pub fn automatic() -> Self {
        Self {
            shift: None,
            sleep: true,
        }
    }

    /// Virtual time jumps to the next timer when the guest idles (`sleep=off`): faster than real
    /// time.
    #[must_use]
    pub fn without_sleep(mut self) -> Self {
        self.sleep = false;
        self
    }
}

/// What QEMU does when the guest reboots, shuts down, panics or its watchdog fires (`-action`).
/// Unset ones keep QEMU's default: reset, poweroff, shutdown, reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Action {
    pub(crate) reboot: Option<&'static str>,
    pub(crate) shutdown: Option<&'static str>,
    pub(crate) panic: Option<&'static str>,
    pub(crate) watchdog: Option<&'static str>,
}

impl Action {
    /// QEMU's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A guest that asks for a reset is shut down instead (`reboot=shutdown`).
    #[must_use]
    pub fn shutdown_on_reboot(mut self) -> Self {
        self.reboot = Some("shutdown");
        self
    }

    /// A guest that shuts down is paused, and QEMU stays to be inspected (`shutdown=pause`).
    #[must_use]
    pub fn pause_on_shutdown(mut self) -> Self {
        self.shutdown = Some("pause");
        self
    }

    /// A guest that panics is paused, and QEMU stays to be inspected (`panic=pause`).
    #[must_use]
    pub fn pause_on_panic(mut self) -> Self {
        self.panic = Some("pause");
        self
    }

    /// A watchdog that fires pauses the guest, and QEMU stays to be inspected (`watchdog=pause`).
    #[must_use]
    pub fn pause_on_watchdog(mut self) -> Self {
        self.watchdog = Some("pause");
        self
    }
}

/// What QEMU logs (`-d`), to stderr unless a file is named (`-D`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    pub(crate) items: Vec<String>,
    pub(crate) file: Option<PathBuf>,
}

impl Log {
    /// Logs the items given, as `-d help` lists them: `guest_errors`, `unimp`, `int`, `in_asm`,
    /// `trace:PATTERN`, ...
    #[must_use]
    pub fn items<I: IntoIterator<Item: Into<String>>>(items: I) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            file: None,
        }
    }

    /// Writes the log to a file. Its name must not contain `%`, which QEMU reads as a template.
    #[must_use]
    pub fn to_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }
}

/// QEMU's own system call filter (`-sandbox`), Linux only. A QEMU that was built without seccomp
/// refuses to start with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sandbox {
    /// No filter.
    Off,
    /// No new programs (`on,spawn=deny`), which keeps the bridge helper and `-nic` scripts from
    /// running as well. QEMU 10.0 fails what would run one, 7.2 is killed by SIGSYS.
    NoSpawn,
    /// No obsolete system calls, no new privileges, no new programs, no change of scheduling
    /// (`on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny`). QEMU is killed
    /// by SIGSYS when it tries, as with a migration to `exec:`. Costs no measurable start time.
    Strict,
}
