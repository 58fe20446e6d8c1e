//! A QEMU for those that start none themselves: the same machine as a session's, with the least
//! around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use command_fds::{CommandFdExt as _, FdMapping};
use tempfile::TempDir;

/// How long anything here may wait before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running QEMU; killed and reaped when it is dropped.
pub struct Machine {
    child: Child,
    _folder: Option<TempDir>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both only fail for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }
}

/// As a session makes it, without its serial port; stopped at its first instruction where that is
/// wanted.
fn command(firmware: &Path, stopped: bool) -> Command {
    let mut command = Command::new("qemu-system-arm");
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "null",
        ])
        .args([
            "-machine",
            "lm3s6965evb",
            "-cpu",
            "cortex-m3",
            "-m",
            "64K",
            "-kernel",
        ])
        .arg(firmware)
        .args(stopped.then_some("-S"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What is made of the chardev `inherited0`.
const MONITOR: [&str; 2] = ["-mon", "chardev=inherited0,mode=control"];
const STUB: [&str; 2] = ["-gdb", "chardev:inherited0"];

/// A QEMU that inherits its monitor.
pub fn over_pair(firmware: &Path, stopped: bool) -> Result<(Machine, UnixStream)> {
    let (machine, [monitor]) = inheriting(firmware, stopped, [MONITOR])?;
    Ok((machine, monitor))
}

/// A QEMU that inherits its GDB stub, held.
pub fn stub_over_pair(firmware: &Path) -> Result<(Machine, UnixStream)> {
    let (machine, [stub]) = inheriting(firmware, true, [STUB])?;
    Ok((machine, stub))
}

/// The same with a monitor as a session has one, negotiated.
pub fn stub_and_monitor(firmware: &Path) -> Result<(Machine, UnixStream, UnixStream)> {
    let monitor = ["-mon", "chardev=inherited1,mode=control"];
    let (machine, [stub, mut monitor]) = inheriting(firmware, true, [STUB, monitor])?;
    monitor.set_read_timeout(None)?;
    monitor.write_all(br#"{"execute":"qmp_capabilities"}"#)?;
    Ok((machine, stub, monitor))
}

/// The same with a thread that reads the monitor, and does nothing else.
pub fn stub_beside_monitor(firmware: &Path) -> Result<(Machine, UnixStream)> {
    let (machine, stub, mut monitor) = stub_and_monitor(firmware)?;
    // Ends with QEMU.
    std::thread::spawn(move || std::io::copy(&mut monitor, &mut std::io::sink()));
    Ok((machine, stub))
}

/// A QEMU that inherits sockets, for what these words make of the chardevs `inherited0`, ….
fn inheriting<const COUNT: usize>(
    firmware: &Path,
    stopped: bool,
    words: [[&str; 2]; COUNT],
) -> Result<(Machine, [UnixStream; COUNT])> {
    let mut command = command(firmware, stopped);
    let (mut streams, mut mappings) = (Vec::new(), Vec::new());
    for (number, words) in words.into_iter().enumerate() {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let fd = 3 + number;
        command.arg("-chardev");
        command.arg(format!("socket,id=inherited{number},fd={fd}"));
        command.args(words);
        mappings.push(FdMapping {
            parent_fd: theirs.into(),
            child_fd: i32::try_from(fd)?,
        });
        streams.push(ours);
    }
    command.fd_mappings(mappings)?;
    let machine = Machine {
        child: command.spawn()?,
        _folder: None,
    };
    let streams = <[UnixStream; COUNT]>::try_from(streams);
    Ok((machine, streams.ok().context("a stream for each")?))
}

/// A QEMU, held, whose GDB stub listens on a unix socket, which is there.
pub fn stub_over_unix(firmware: &Path) -> Result<(Machine, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("gdb");
    let mut command = command(firmware, true);
    command
        .arg("-gdb")
        .arg(format!("unix:{},server=on,wait=off", path.display()));
    let machine = Machine {
        child: command.spawn()?,
        _folder: Some(folder),
    };
    let since = std::time::Instant::now();
    while !path.exists() {
        ensure!(since.elapsed() < PATIENCE, "QEMU makes no socket");
        std::thread::yield_now();
    }
    Ok((machine, path))
}

/// A QEMU that listens on a unix socket, which need not be there yet.
pub fn over_unix(firmware: &Path, stopped: bool) -> Result<(Machine, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("qmp");
    let mut command = command(firmware, stopped);
    command
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", path.display()));
    Ok((
        Machine {
            child: command.spawn()?,
            _folder: Some(folder),
        },
        path,
    ))
}

/// A QEMU that will listen on a TCP port.
pub fn over_tcp(firmware: &Path, stopped: bool) -> Result<(Machine, SocketAddr)> {
    let address = free_port()?;
    let mut command = command(firmware, stopped);
    command
        .arg("-qmp")
        .arg(format!("tcp:{address},server=on,wait=off,nodelay=on"));
    Ok((
        Machine {
            child: command.spawn()?,
            _folder: None,
        },
        address,
    ))
}

/// As many programs start it: with what `-nographic` brings along, and a monitor on a TCP port.
pub fn as_often_seen(firmware: &Path) -> Result<(Machine, SocketAddr)> {
    let address = free_port()?;
    let mut command = Command::new("qemu-system-arm");
    command.args([
        "-machine",
        "lm3s6965evb",
        "-cpu",
        "cortex-m3",
        "-m",
        "64K",
        "-nographic",
        "-kernel",
    ]);
    command
        .arg(firmware)
        .arg("-qmp")
        .arg(format!("tcp:{address},server,wait=off"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok((
        Machine {
            child: command.spawn()?,
            _folder: None,
        },
        address,
    ))
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A TCP stream that waits for nothing but the other end.
pub fn tcp(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The least that a blocking client does: write, read lines until one is a return.
pub struct Blocking<S: Read + Write> {
    stream: BufReader<S>,
    line: String,
}

impl<S: Read + Write> Blocking<S> {
    /// Takes the greeting, negotiates, asks for the status once: the session is ready then.
    pub fn ready(stream: S) -> Result<Self> {
        let mut client = Self {
            stream: BufReader::new(stream),
            line: String::new(),
        };
        client.read_line()?;
        client.ask(r#"{"execute":"qmp_capabilities"}"#)?;
        client.ask(r#"{"execute":"query-status"}"#)?;
        Ok(client)
    }

    /// The line with the answer.
    pub fn ask(&mut self, command: &str) -> Result<&str> {
        self.stream.get_mut().write_all(command.as_bytes())?;
        while !self.returned(command)? {}
        Ok(&self.line)
    }

    /// Starts a job, waits until it is concluded, looks for its error, and dismisses it.
    pub fn job(&mut self, command: &str, id: &str) -> Result<()> {
        self.stream.get_mut().write_all(command.as_bytes())?;
        let (mut returned, mut concluded) = (false, false);
        while !returned || !concluded {
            returned |= self.returned(command)?;
            concluded |= self.line.contains(r#""status": "concluded""#) && self.line.contains(id);
        }
        let jobs = self.ask(r#"{"execute":"query-jobs"}"#)?;
        ensure!(!jobs.contains(r#""error""#), "{command}: {jobs}");
        self.ask(&format!(
            r#"{{"execute":"job-dismiss","arguments":{{"id":"{id}"}}}}"#
        ))
        .map(drop)
    }

    /// Reads a line; is it a return?
    fn returned(&mut self, command: &str) -> Result<bool> {
        self.read_line()?;
        ensure!(
            !self.line.starts_with(r#"{"error""#),
            "QEMU refuses {command}: {}",
            self.line
        );
        Ok(self.line.starts_with(r#"{"return""#))
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        let length = self
            .stream
            .read_line(&mut self.line)
            .context("reading the monitor")?;
        ensure!(length > 0, "QEMU closed its monitor");
        Ok(())
    }
}
