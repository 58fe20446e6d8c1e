//! What the firmware prints: to stdout and the log as it comes, and to whoever expects something of
//! it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu_controller::{Serial, Session};
use tokio::io::{AsyncWriteExt as _, Stdout};
use tokio::sync::Mutex;

use crate::expectation::Expectation;
use crate::report::Failure;

/// Where it goes.
pub(crate) struct Output {
    sinks: Mutex<Sinks>,
    expectation: Option<Expectation>,
}

struct Sinks {
    stdout: Stdout,
    log: Option<(PathBuf, File)>,
}

/// Why nothing more is printed, before the firmware has come to its end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// What was expected has come.
    Met,
    /// Nobody reads stdout any more.
    StdoutClosed,
    /// It can't be written.
    Failed(Failure),
}

impl Output {
    /// Makes the log, and replaces one that is there.
    pub(crate) fn new(
        log: Option<&Path>,
        expectation: Option<Expectation>,
    ) -> Result<Self, Failure> {
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Ok((path.to_owned(), file)),
            Err(source) => Err(Failure::Log {
                path: path.to_owned(),
                source,
            }),
        };
        let sinks = Sinks {
            stdout: tokio::io::stdout(),
            log: log.map(create).transpose()?,
        };
        Ok(Self {
            sinks: Mutex::new(sinks),
            expectation,
        })
    }

    /// Prints what comes over all ports of the firmware, until they are closed.
    pub(crate) async fn print(&self, session: &Session) -> Result<(), Cut> {
        let [serial, semihosting] = ports(session);
        tokio::try_join!(self.print_port(serial), self.print_port(semihosting)).map(drop)
    }

    async fn print_port(&self, port: Option<Serial>) -> Result<(), Cut> {
        let Some(port) = port else { return Ok(()) };
        // Each has its own, so that bytes of the other do not fall in between.
        let mut expectation = self.expectation.clone();
        // Nothing is sought: it waits until there is something to take.
        while port.expect("", Duration::MAX).await.is_ok() {
            let bytes = port.take();
            self.sinks.lock().await.write(&bytes).await?;
            if expectation
                .as_mut()
                .is_some_and(|expectation| expectation.met_by(&bytes))
            {
                return Err(Cut::Met);
            }
        }
        Ok(())
    }
}

/// What the firmware prints on.
pub(crate) fn ports(session: &Session) -> [Option<Serial>; 2] {
    [session.serial(0).cloned(), session.semihosting().cloned()]
}

impl Sinks {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        // The log first: it has all, also what nobody took from stdout.
        if let Some((path, log)) = &mut self.log {
            let failed = |source| {
                Cut::Failed(Failure::Log {
                    path: path.clone(),
                    source,
                })
            };
            log.write_all(bytes).map_err(failed)?;
        }
        let write = async {
            self.stdout.write_all(bytes).await?;
            self.stdout.flush().await
        };
        write.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Cut::StdoutClosed,
            _ => Cut::Failed(Failure::Stdout(error)),
        })
    }
}
