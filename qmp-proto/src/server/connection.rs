//! One client of a server: negotiation, commands, answers, events, the end.

use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};
#[cfg(feature = "std")]
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::Request;
#[cfg(feature = "std")]
use crate::output;
use crate::{
    command::Command as _,
    commands::QmpCapabilities,
    error::DecodeError,
    event::QmpEvent,
    framer::Framer,
    greeting::{Capability, Greeting},
    limits::Limits,
    message::ServerMessage,
    output::Output,
    raw::RawJson,
    server_error::{ErrorClass, ServerError},
};

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The greeting is in the output, and `qmp_capabilities` has not come.
    Negotiating,
    /// Commands are handed out.
    Ready,
    /// The client closed the stream between commands.
    Closed,
    /// The client broke the protocol, or the stream ended inside a command.
    Failed,
}

/// The server's side of a QMP connection, without its socket.
///
/// It has the shape of the client's [`Connection`](crate::Connection): write
/// [`output`](Self::output), hand what was read to [`handle_input`](Self::handle_input), call
/// [`poll_command`](Self::poll_command) until it returns `None`, and answer with
/// [`reply`](Self::reply) or [`reply_error`](Self::reply_error). The greeting is in the output from
/// the beginning. `qmp_capabilities` is answered here, as QEMU answers it, and so is everything
/// that comes before it.
///
/// Unlike QEMU, which answers input that is not JSON and goes on, this ends with an error there.
///
/// ```
/// use qmp_proto::{Greeting, Limits, QmpEvent, Version, server::Connection};
///
/// let mut server = Connection::new(&Greeting::new(Version::new(10, 0, 0), []), Limits::default());
/// server.handle_input(br#"{"execute": "qmp_capabilities"} {"execute": "stop", "id": 7}"#);
/// while let Some(request) = server.poll_command()? {
///     assert_eq!(request.name, "stop");
///     server.emit(&QmpEvent::new("STOP", None));
///     server.reply(&request, &serde_json::json!({}))?;
/// }
/// assert!(server.output().ends_with(b"{\"event\":\"STOP\"}\r\n{\"return\":{},\"id\":7}\r\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    framer: Framer,
    phase: Phase,
    offered: Vec<Capability>,
    oob_enabled: bool,
    output: Output,
}

impl Connection {
    /// A client that has just connected; the greeting is its first output. Of the limits, those for
    /// the size and depth of a message apply to what the client sends.
    pub fn new(greeting: &Greeting, limits: Limits) -> Self {
        let mut connection = Self {
            framer: Framer::new(limits),
            phase: Phase::Negotiating,
            offered: greeting.capabilities.clone(),
            oob_enabled: false,
            output: Output::default(),
        };
        connection.send(&ServerMessage::Greeting(greeting.clone()));
        connection
    }

    /// Takes what was read from the client. Call [`poll_command`](Self::poll_command) until it
    /// returns `None` afterwards.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.framer.feed(bytes);
    }

    /// The client closed the stream, or reset it. Commands that came before are still polled first.
    pub fn handle_eof(&mut self) {
        self.framer.feed_eof();
    }

    /// One read from `stream`, as [`Connection::read_from`](crate::Connection::read_from) of a
    /// client.
    ///
    /// # Errors
    /// What the read says, but for `ECONNRESET`, which is the stream's end.
    #[cfg(feature = "std")]
    pub fn read_from(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        let count = output::read_from(stream, |bytes| self.handle_input(bytes))?;
        if count == 0 {
            self.handle_eof();
        }
        Ok(count)
    }

    /// One write of [`output`](Self::output) to `stream`; 0 where there is none.
    ///
    /// # Errors
    /// What the write says; what was not written is still there.
    #[cfg(feature = "std")]
    pub fn write_to(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        self.output.write_to(stream)
    }

    /// What is to be written to the client. Writing a part is normal.
    pub fn output(&self) -> &[u8] {
        self.output.waiting()
    }

    /// Takes so many bytes of [`output`](Self::output) as written.
    ///
    /// # Panics
    /// If that is more than there are.
    pub fn advance_output(&mut self, written: usize) {
        self.output.advance(written);
    }

    /// Takes all of [`output`](Self::output), for a thread or task that does the writing.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.output.take()
    }

    /// The next command that is the caller's to answer, or `None` if more input is needed or the
    /// client has left; [`phase`](Self::phase) tells which.
    ///
    /// # Errors
    /// [`DecodeError`] where the client broke the protocol: the same at every later call. The phase
    /// is then [`Phase::Failed`].
    pub fn poll_command(&mut self) -> Result<Option<Request>, DecodeError> {
        loop {
            match self.framer.next::<Request>() {
                Ok(Some(request)) => match self.own_answer(&request) {
                    Some(result) => self.answer(&request, result),
                    None => return Ok(Some(request)),
                },
                Ok(None) => {
                    if self.framer.is_finished() {
                        self.phase = Phase::Closed;
                    }
                    return Ok(None);
                }
                Err(error) => {
                    self.phase = Phase::Failed;
                    return Err(error);
                }
            }
        }
    }

    /// Answers a command with anything that serialises; most commands return `{}`, which
    /// [`Empty`](crate::Empty) serialises to.
    ///
    /// # Errors
    /// What the value's own `Serialize` says; nothing is then written.
    pub fn reply<T: Serialize + ?Sized>(
        &mut self,
        to: &Request,
        value: &T,
    ) -> Result<(), serde_json::Error> {
        let value = RawJson::from_value(value)?;
        self.answer(to, Ok(value));
        Ok(())
    }

    /// Answers a command with an error.
    pub fn reply_error(&mut self, to: &Request, error: ServerError) {
        self.answer(to, Err(error));
    }

    /// Sends an event.
    pub fn emit(&mut self, event: &QmpEvent) {
        self.send(&ServerMessage::Event(event.clone()));
    }

    /// Sends any message, also one that a server would not send now: for tests of clients.
    pub fn send(&mut self, message: &ServerMessage) {
        let text = RawJson::from_value(message).expect("a message holds valid JSON");
        self.send_text(text.as_str());
    }

    /// How far the client has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the client has enabled `oob`.
    pub fn oob_enabled(&self) -> bool {
        self.oob_enabled
    }

    /// Sends this text and a line end, whatever it is: for tests of clients.
    pub fn send_text(&mut self, text: &str) {
        self.output.add_line(text);
    }

    /// The answer to what is not the caller's: all before the negotiation, the negotiation itself,
    /// and commands out of band where `oob` is not enabled. Class and text are QEMU's.
    fn own_answer(&mut self, request: &Request) -> Option<Result<RawJson, ServerError>> {
        let is_negotiation = request.name == QmpCapabilities::NAME;
        let (class, desc) = match self.phase {
            Phase::Negotiating if is_negotiation => return Some(self.negotiate(request)),
            Phase::Negotiating => (
                ErrorClass::CommandNotFound,
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            ),
            _ if is_negotiation => (
                ErrorClass::CommandNotFound,
                "Capabilities negotiation is already complete, command ignored",
            ),
            _ if request.oob && !self.oob_enabled => (
                ErrorClass::GenericError,
                "QMP input member 'exec-oob' is unexpected",
            ),
            _ => return None,
        };
        Some(Err(ServerError::new(class, desc)))
    }

    fn negotiate(&mut self, request: &Request) -> Result<RawJson, ServerError> {
        #[derive(Deserialize)]
        struct Arguments {
            #[serde(default)]
            enable: Vec<Capability>,
        }
        let refuse = |desc: String| Err(ServerError::new(ErrorClass::GenericError, desc));
        let enable = match request.parse_arguments::<Arguments>() {
            Ok(Arguments { enable }) => enable,
            Err(error) => return refuse(error.to_string()),
        };
        if let Some(missing) = enable.iter().find(|one| !self.offered.contains(one)) {
            return refuse(format!("Capability {missing} not available"));
        }
        self.oob_enabled = enable.contains(&Capability::Oob);
        self.phase = Phase::Ready;
        Ok(RawJson::copy(b"{}"))
    }

    fn answer(&mut self, to: &Request, result: Result<RawJson, ServerError>) {
        let id = to.id.clone().map(Into::into);
        self.send(&match result {
            Ok(value) => ServerMessage::Return { id, value },
            Err(error) => ServerMessage::Error { id, error },
        });
    }
}
