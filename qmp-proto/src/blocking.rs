//! A client for blocking code: a connection and its stream in one.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use serde::Serialize;

use crate::{
    Command, Connection, DecodeError, Greeting, Limits, ParseError, Phase, QmpEvent, RawReturn,
    Received, SendError, ServerError,
};

/// A QMP client on a blocking stream: a `UnixStream`, a `TcpStream`, the pipes of a child.
///
/// A deadline is the socket's own: after `set_read_timeout` a call that waits longer ends with
/// [`BlockingError::Io`] of the kind `WouldBlock` or `TimedOut`. The client can be used on: the
/// answer to the command that was given up is then dropped when it comes.
///
/// ```no_run
/// use qmp_proto::{Blocking, commands::QueryStatus};
/// use std::{os::unix::net::UnixStream, time::Duration};
///
/// let stream = UnixStream::connect("/run/vm/qmp.sock")?;
/// stream.set_read_timeout(Some(Duration::from_secs(5)))?;
/// let mut qmp = Blocking::connect(stream)?;
/// let status = qmp.command(&QueryStatus)?.status;
/// println!("QEMU {} is {status}", qmp.greeting().version);
/// qmp.execute("device_del", &serde_json::json!({"id": "nic0"}))?;
/// println!("{}", qmp.next_event()?.name);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Blocking<S> {
    link: Link<S>,
    greeting: Greeting,
}

/// Most events that wait to be taken.
const MAX_QUEUED_EVENTS: usize = 4096;

/// The stream, its connection, and the events that nobody has taken yet.
#[derive(Debug)]
struct Link<S> {
    stream: S,
    connection: Connection,
    events: VecDeque<QmpEvent>,
    missed_events: u64,
}

/// Why a call of [`Blocking`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingError {
    /// The server answered with an error. The client can be used on.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The command cannot be sent. The client can be used on.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The return is not of the command's type. The client can be used on.
    #[error(transparent)]
    Return(#[from] ParseError),
    /// The stream failed, or its own time-out passed: then the client can be used on.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server closed the connection. It is the expected end after `quit`.
    #[error("the server closed the connection")]
    Closed,
    /// The server broke the protocol, or closed the stream inside a message.
    #[error(transparent)]
    Protocol(#[from] DecodeError),
}

impl<S: Read + Write> Blocking<S> {
    /// Waits for the greeting and negotiates no capabilities.
    ///
    /// # Errors
    /// All but [`BlockingError::Return`].
    pub fn connect(stream: S) -> Result<Self, BlockingError> {
        Self::with_connection(stream, Connection::new(Limits::default()))
    }

    /// [`connect`](Self::connect) with other limits, or another prefix of ids.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn with_connection(stream: S, connection: Connection) -> Result<Self, BlockingError> {
        let mut link = Link {
            stream,
            connection,
            events: VecDeque::new(),
            missed_events: 0,
        };
        let greeting = loop {
            if let Received::Greeting(greeting) = link.receive()? {
                break greeting;
            }
        };
        link.connection.negotiate(&[])?;
        loop {
            if let Received::Negotiated(result) = link.receive()? {
                result?;
                return Ok(Self { link, greeting });
            }
        }
    }

    /// The server's greeting.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Runs a typed command and waits for its return.
    ///
    /// # Errors
    /// [`BlockingError`].
    pub fn command<C: Command>(&mut self, command: &C) -> Result<C::Return, BlockingError> {
        Ok(self.execute(C::NAME, command)?.parse()?)
    }

    /// Runs a command by name, with arguments that serialise to an object, or to null (as `&()`
    /// does) for none.
    ///
    /// # Errors
    /// All but [`BlockingError::Return`].
    pub fn execute<A: Serialize + ?Sized>(
        &mut self,
        name: &str,
        arguments: &A,
    ) -> Result<RawReturn, BlockingError> {
        let id = self.link.connection.execute(name, arguments)?;
        loop {
            match self.link.receive() {
                Ok(Received::Reply { id: of, result }) if of == id => return Ok(result?),
                Ok(_) => {}
                Err(error) => {
                    // A reply that comes later is for nobody.
                    self.link.connection.abandon(id);
                    return Err(error);
                }
            }
        }
    }

    /// The oldest event that was not handed out; waits for one where there is none.
    ///
    /// # Errors
    /// [`BlockingError::Io`], [`BlockingError::Closed`] or [`BlockingError::Protocol`].
    pub fn next_event(&mut self) -> Result<QmpEvent, BlockingError> {
        while self.link.events.is_empty() {
            self.link.receive_once()?;
        }
        Ok(self.link.events.pop_front().expect("there is one"))
    }

    /// The oldest event that came while a command waited for its return. Reads nothing.
    pub fn take_event(&mut self) -> Option<QmpEvent> {
        self.link.events.pop_front()
    }

    /// How many events were discarded, the oldest first, because 4,096 were waiting to be taken.
    pub fn missed_events(&self) -> u64 {
        self.link.missed_events
    }

    /// The stream, to set its time-out for example.
    pub fn stream(&self) -> &S {
        &self.link.stream
    }
}

impl<S: Read + Write> Link<S> {
    /// Waits for something that is no event; events are queued.
    fn receive(&mut self) -> Result<Received, BlockingError> {
        loop {
            if let Some(received) = self.receive_once()? {
                return Ok(received);
            }
        }
    }

    /// Writes what waits, and hands out what came; reads once where nothing did. `None` where that
    /// was an event or a part of a message.
    fn receive_once(&mut self) -> Result<Option<Received>, BlockingError> {
        match self.connection.poll()? {
            Some(Received::Event(event)) => {
                self.queue(event);
                Ok(None)
            }
            Some(Received::Closed) => Err(BlockingError::Closed),
            Some(received) => Ok(Some(received)),
            None if self.connection.phase() == Phase::Closed => Err(BlockingError::Closed),
            None => {
                self.write()?;
                again(|| self.connection.read_from(&mut self.stream))?;
                Ok(None)
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.connection.output().is_empty() {
            match again(|| self.connection.write_to(&mut self.stream)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                // The server has closed the stream; its last messages may still be there to read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    drop(self.connection.take_output());
                }
                Err(error) => return Err(error),
            }
        }
        self.stream.flush()
    }

    fn queue(&mut self, event: QmpEvent) {
        if self.events.len() == MAX_QUEUED_EVENTS {
            self.events.pop_front();
            self.missed_events += 1;
        }
        self.events.push_back(event);
    }
}

/// Repeats what a signal interrupts.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
