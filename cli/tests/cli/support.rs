//! What the tests share: the program as a child, its output as it comes, and a look at what is left
//! behind.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Ample, and still an end: nothing in a test should come near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One of the project's own images.
pub(crate) fn image(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../xtask/firmware/{name}/{name}.elf"))
}

/// A call of the program: where no configuration file is found, and with a QEMU that can be told
/// from others.
pub(crate) struct Call {
    command: Command,
    marker: String,
    qemu_args: Vec<String>,
}

impl Call {
    /// `qemu-controller run` with these words.
    pub(crate) fn new<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::verb("run", words)
    }

    /// The program with this verb, and these words.
    pub(crate) fn verb<S: AsRef<std::ffi::OsStr>>(
        verb: &str,
        words: impl IntoIterator<Item = S>,
    ) -> Self {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        test_support::heed_signals();
        let marker = format!(
            "cli-{}-{}",
            std::process::id(),
            CALLS.fetch_add(1, Ordering::Relaxed)
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
        command
            .arg(verb)
            .args(words)
            .current_dir(env!("CARGO_TARGET_TMPDIR"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            marker,
            qemu_args: Vec::new(),
        }
    }

    /// With one of the project's images.
    pub(crate) fn image<'a>(name: &str, words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut call = Self::new(words);
        call.command.arg(image(name));
        call
    }

    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    pub(crate) fn qemu_args(mut self, words: &[&str]) -> Self {
        self.qemu_args = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub(crate) fn start(mut self) -> Running {
        self.command
            .arg("--")
            .args(["-name", &self.marker])
            .args(self.qemu_args);
        let mut child = self.command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(Stream::new);
        let stderr = child.stderr.take().map_or_else(Stream::empty, Stream::new);
        Running {
            child,
            marker: self.marker,
            stdin,
            stdout,
            stderr,
        }
    }

    /// Starts a shell that does this first, and is the program then.
    #[cfg(target_os = "linux")]
    pub(crate) fn start_in_shell(mut self, first: &str) -> Running {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!(r#"{first}; exec "$0" "$@""#))
            .arg(self.command.get_program());
        shell
            .args(self.command.get_args())
            .current_dir(self.command.get_current_dir().unwrap());
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.command = shell;
        self.start()
    }

    /// Runs it to its end with no further words: it starts no QEMU.
    pub(crate) fn plain(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Runs it to its end, and sees that no QEMU is left.
    pub(crate) fn output(self) -> Output {
        self.start().end()
    }

    /// Runs it to its end, and sees that it ends with this status.
    pub(crate) fn ends_with(self, status: i32) -> Said {
        Said::of(&self.output(), status)
    }
}

/// What the program wrote.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: &Output, status: i32) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Self {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert_eq!(
            output.status.code(),
            Some(status),
            "{}\nstdout: {}\nstderr: {}",
            output.status,
            said.stdout,
            said.stderr
        );
        said
    }
}

/// The program while it runs. Dropped, it is killed: a test that fails leaves nothing.
pub(crate) struct Running {
    child: Child,
    marker: String,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<Stream>,
    pub(crate) stderr: Stream,
}

impl Running {
    /// Sends to its stdin.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its stdout has this text.
    pub(crate) fn prints(&mut self, text: &str) {
        self.stdout.as_mut().unwrap().until(text);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().cast_signed()).unwrap(),
            signal,
        )
        .unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its QEMU's process id, once it is there.
    pub(crate) fn qemu(&mut self) -> u32 {
        let marker = self.marker.clone();
        until("its QEMU", || {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it has ended before: {}",
                self.stderr.text()
            );
            qemu_with(&marker)
        })
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("its end", || self.child.try_wait().unwrap())
    }

    /// Waits for its end, and sees that no QEMU is left.
    pub(crate) fn end(mut self) -> Output {
        let status = self.wait();
        self.leaves_nothing();
        let stdout = self.stdout.take().map(Stream::rest).unwrap_or_default();
        let stderr = std::mem::replace(&mut self.stderr, Stream::empty()).rest();
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Its QEMU is gone, or goes: one that was killed may take a moment.
    pub(crate) fn leaves_nothing(&self) {
        until("the end of its QEMU", || {
            qemu_with(&self.marker).is_none().then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe, read by a thread so that it never fills up.
pub(crate) struct Stream {
    chunks: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // A pseudo-terminal ends in an error.
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            chunks,
            bytes: Vec::new(),
        }
    }

    fn empty() -> Self {
        Self::new(std::io::empty())
    }

    /// Waits until it has this text.
    pub(crate) fn until(&mut self, text: &str) {
        self.until_it(text, |all| all.contains(text));
    }

    /// Waits until all that has come satisfies this.
    pub(crate) fn until_it(&mut self, what: &str, is_so: impl Fn(&str) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !is_so(&self.text()) {
            match self
                .chunks
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(chunk) => self.bytes.extend(chunk),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {what:?} in time in {:?}", self.text())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("no {what:?} in {:?}", self.text()),
            }
        }
    }

    /// What has been read so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// All of it, once its writer is gone.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        self.bytes.extend(self.chunks.iter().flatten());
        self.bytes
    }
}

/// The QEMU whose command line has this word.
fn qemu_with(marker: &str) -> Option<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = line.split(|&byte| byte == 0);
            let is_qemu = words
                .next()
                .is_some_and(|program| program.ends_with(b"qemu-system-arm"));
            (is_qemu && words.any(|word| word == marker.as_bytes())).then_some(pid)
        })
}

/// Looks again and again; panics after the deadline.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes a descriptor non-blocking, as others who share it may.
pub(crate) fn nonblocking(descriptor: &impl std::os::fd::AsFd) {
    let flags = rustix::fs::fcntl_getfl(descriptor).unwrap();
    rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
}
