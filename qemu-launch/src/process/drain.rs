//! Draining a child's output while waiting for its end, in the one thread that serves it.

use std::io::{self, PipeReader, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::ring::Ring;

/// After the exit, draining ends after this much silence: only a process that left the group can
/// still hold the output open.
const QUIET: Duration = Duration::from_millis(500);
/// The silence is measured in this many short waits: on a machine too busy to end them in time, the
/// writer is likely delayed as well, and gets longer.
const QUIET_STEPS: u32 = 50;
/// After the exit, draining ends at the latest after this.
const LIMIT: Duration = Duration::from_secs(10);

/// One output stream of the child, and where its last bytes are kept.
struct Stream {
    pipe: PipeReader,
    ring: Arc<Ring>,
}

impl Stream {
    /// Reads what is there; false at EOF.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.pipe.read(buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.ring.push(&buffer[..read]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ring.close();
    }
}

/// The time left for silence and in all, once the child has exited.
struct Patience {
    deadline: Instant,
    quiet_steps: u32,
}

impl Patience {
    fn begin() -> Self {
        Self {
            deadline: Instant::now() + LIMIT,
            quiet_steps: 0,
        }
    }

    /// Counts a short wait, in which something came or nothing did; false when it is over.
    fn goes_on(&mut self, something_came: bool) -> bool {
        self.quiet_steps = if something_came {
            0
        } else {
            self.quiet_steps + 1
        };
        self.quiet_steps < QUIET_STEPS && Instant::now() < self.deadline
    }
}

#[cfg(unix)]
pub(crate) use unix::Drain;

#[cfg(unix)]
mod unix {
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;

    use super::*;

    /// What the thread sleeps on: the streams that are still open, and the exit notice.
    pub(crate) struct Drain {
        streams: Vec<Stream>,
        exit_notice: OwnedFd,
    }

    impl Drain {
        pub(crate) fn new(
            streams: impl Iterator<Item = (PipeReader, Arc<Ring>)>,
            exit_notice: OwnedFd,
        ) -> io::Result<Self> {
            let streams = streams.map(|(pipe, ring)| Stream { pipe, ring }).collect();
            Ok(Self {
                streams,
                exit_notice,
            })
        }

        /// Drains until the child has exited. Nothing wakes the thread but output and the exit.
        pub(crate) fn until_exit(&mut self) {
            while !self.wait_and_read(None).exited {}
        }

        /// Drains what is left after the exit: to EOF, or until nothing more can be expected.
        pub(crate) fn rest(mut self) {
            let mut patience = Patience::begin();
            while !self.streams.is_empty() {
                let woken = self.wait_and_read(Some(QUIET / QUIET_STEPS));
                if !patience.goes_on(woken.output) {
                    return;
                }
            }
        }

        /// Sleeps until there is something to do, and reads once from each stream that is ready.
        fn wait_and_read(&mut self, timeout: Option<Duration>) -> Woken {
            // After the exit the notice stays readable: it is looked at only where no time-out is
            // set.
            let notice = timeout.is_none().then_some(&self.exit_notice);
            let mut polled: Vec<PollFd<'_>> = (self.streams.iter())
                .map(|stream| PollFd::new(&stream.pipe, PollFlags::IN))
                .chain(notice.map(|notice| PollFd::new(notice, PollFlags::IN)))
                .collect();
            let timeout = timeout.map(|timeout| Timespec {
                tv_sec: 0,
                tv_nsec: timeout.subsec_nanos().into(),
            });
            match poll(&mut polled, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR | Errno::AGAIN) => return Woken::default(),
                // Only a bug of ours can be behind this. The child is waited for all the same.
                Err(_) => {
                    self.streams.clear();
                    return Woken {
                        exited: true,
                        output: false,
                    };
                }
            }
            let mut ready = polled
                .iter()
                .map(|fd| !fd.revents().is_empty())
                .collect::<Vec<_>>();
            drop(polled);
            let exited = notice_of(&mut ready, self.streams.len());
            let output = ready.contains(&true);
            // Small, for each QEMU has a thread with one.
            let mut buffer = [0; 8 * 1024];
            let mut ready = ready.into_iter();
            self.streams
                .retain_mut(|stream| ready.next() != Some(true) || stream.read(&mut buffer));
            Woken { exited, output }
        }
    }

    /// Takes the exit notice's readiness off the streams', where it was asked for.
    fn notice_of(ready: &mut Vec<bool>, streams: usize) -> bool {
        ready.len() > streams && ready.pop() == Some(true)
    }

    /// Why the thread was woken.
    #[derive(Default)]
    struct Woken {
        exited: bool,
        output: bool,
    }
}

#[cfg(not(unix))]
pub(crate) use blocking::Drain;

/// Where a pipe can't be polled: a thread for each stream.
#[cfg(not(unix))]
mod blocking {
    use std::thread::JoinHandle;

    use super::*;
    use crate::process::spawn_thread;

    pub(crate) struct Drain {
        readers: Vec<JoinHandle<()>>,
    }

    impl Drain {
        pub(crate) fn new(
            streams: impl Iterator<Item = (PipeReader, Arc<Ring>)>,
            (): (),
        ) -> io::Result<Self> {
            let readers = streams
                .map(|(pipe, ring)| spawn_thread("qemu-output", || read_all(Stream { pipe, ring })))
                .collect::<io::Result<_>>()?;
            Ok(Self { readers })
        }

        /// Nothing: waiting for the child itself does.
        pub(crate) fn until_exit(&mut self) {}

        pub(crate) fn rest(self) {
            let mut patience = Patience::begin();
            while !self.readers.iter().all(JoinHandle::is_finished) && patience.goes_on(false) {
                std::thread::park_timeout(QUIET / QUIET_STEPS);
            }
        }
    }

    fn read_all(mut stream: Stream) {
        let mut buffer = [0; 4 * 1024];
        while stream.read(&mut buffer) {}
    }
}
