//! A monitor that says what the script wants, and one that behaves.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use qemu_controller::{AttachConfig, Session, StartError};
use qmp_proto::{Capability, Greeting, Limits, RawJson, Version, server};
use serde_json::{Value, json};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};

/// Every deadline of these tests; time is paused, so nobody waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;

/// The server's end of the stream, and what it has read and not answered.
pub(crate) struct Peer {
    stream: DuplexStream,
    /// Reads the commands. What the peer says is the script's.
    server: server::Connection,
    fault: Arc<Mutex<Option<io::ErrorKind>>>,
    pub(crate) unanswered: VecDeque<Heard>,
}

/// A command as it came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) oob: bool,
    pub(crate) arguments: Value,
    pub(crate) id: Value,
}

/// The client's end, which can fail in other ways than a duplex stream does.
struct Client {
    stream: DuplexStream,
    fault: Arc<Mutex<Option<io::ErrorKind>>>,
}

/// As [`GREETING`].
fn greeting() -> Greeting {
    Greeting::new(Version::new(7, 2, 22), [Capability::Oob])
}

/// A session that is ready, and its peer.
pub(crate) async fn connected() -> (Session, Peer) {
    let (mut peer, session) = Peer::new();
    let (session, ()) = tokio::join!(session, peer.handshake());
    (session.unwrap(), peer)
}

impl Peer {
    /// A peer that has said nothing yet, and the session that waits for it.
    pub(crate) fn new() -> (
        Self,
        impl Future<Output = Result<Session, StartError>> + Send,
    ) {
        Self::over(DEADLINE)
    }

    /// The same, with a configuration.
    pub(crate) fn over<C: Into<AttachConfig> + Send>(
        config: C,
    ) -> (
        Self,
        impl Future<Output = Result<Session, StartError>> + Send,
    ) {
        let (client, stream) = duplex(64 * 1024);
        let peer = Self::on(stream);
        let fault = Arc::clone(&peer.fault);
        (
            peer,
            Session::attach_stream(
                Client {
                    stream: client,
                    fault,
                },
                config,
            ),
        )
    }

    /// A peer on a stream that somebody else gave to a session.
    pub(crate) fn on(stream: DuplexStream) -> Self {
        Self {
            stream,
            server: server::Connection::new(&greeting(), Limits::default()),
            fault: Arc::default(),
            unanswered: VecDeque::new(),
        }
    }

    /// What is said to a session that has hung up goes nowhere.
    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) {
        let line = [text.as_ref(), b"\r\n"].concat();
        let _ = self.stream.write_all(&line).await;
    }

    pub(crate) async fn event(&mut self, name: &str, data: Value) {
        let timestamp = json!({ "seconds": -1, "microseconds": -1 });
        self.say(json!({ "timestamp": timestamp, "event": name, "data": data }).to_string())
            .await;
    }

    /// Reads the next command; it is then unanswered.
    pub(crate) async fn hear(&mut self) -> Heard {
        let command = self
            .hear_or_end()
            .await
            .expect("the session closed the stream");
        self.unanswered.push_back(command.clone());
        command
    }

    /// Reads the next command, to be answered by whoever reads it; none when the session has closed
    /// the stream.
    pub(crate) async fn hear_or_end(&mut self) -> Option<Heard> {
        loop {
            if let Some(command) = self.next() {
                return Some(command);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads what has come; false at the end of the stream.
    async fn read(&mut self) -> bool {
        let mut bytes = Vec::with_capacity(4096);
        let is_more = matches!(self.stream.read_buf(&mut bytes).await, Ok(1..));
        self.server.handle_input(&bytes);
        is_more
    }

    /// Reads commands until there are so many unanswered ones.
    pub(crate) async fn hear_until(&mut self, unanswered: usize) {
        while self.unanswered.len() < unanswered {
            self.hear().await;
        }
    }

    /// The next command that was read. The negotiation is one too: its answer is the script's, as
    /// of all others.
    fn next(&mut self) -> Option<Heard> {
        let before = self.server.phase();
        let command = self.server.poll_command().unwrap();
        let answered = self.server.take_output();
        let value = |raw: Option<RawJson>| raw.map_or(Value::Null, |raw| raw.parse().unwrap());
        match command {
            Some(command) => Some(Heard {
                name: command.name,
                oob: command.oob,
                arguments: value(command.arguments),
                id: value(command.id),
            }),
            None if before != self.server.phase() => {
                let answer: Value = serde_json::from_slice(&answered).unwrap();
                Some(Heard {
                    name: "qmp_capabilities".to_owned(),
                    oob: false,
                    arguments: Value::Null,
                    id: answer["id"].clone(),
                })
            }
            None => None,
        }
    }

    /// Answers the oldest unanswered command as QEMU would.
    pub(crate) async fn answer(&mut self) {
        let command = self.unanswered.pop_front().unwrap();
        self.answer_to(&command).await;
    }

    pub(crate) async fn reply(&mut self, command: &Heard, value: Value) {
        self.say(json!({ "return": value, "id": command.id }).to_string())
            .await;
    }

    pub(crate) async fn answer_to(&mut self, command: &Heard) {
        let value = match command.name.as_str() {
            "query-status" => json!({ "status": "running", "running": true }),
            "query-version" => {
                json!({ "qemu": { "major": 7, "minor": 2, "micro": 22 }, "package": "" })
            }
            "query-cpus-fast" => json!([]),
            "human-monitor-command" => json!(""),
            _ => json!({}),
        };
        self.reply(command, value).await;
        if command.name == "system_reset" {
            self.event(
                "RESET",
                json!({ "guest": false, "reason": "host-qmp-system-reset" }),
            )
            .await;
        }
    }

    pub(crate) async fn handshake(&mut self) {
        self.say(GREETING).await;
        for expected in ["qmp_capabilities", "query-status"] {
            assert_eq!(self.hear().await.name, expected);
            self.answer().await;
        }
    }

    /// Behaves from now on: answers what is unanswered and all that comes, until `quit` or the end
    /// of the stream.
    pub(crate) async fn serve(mut self) {
        loop {
            while let Some(command) = self.unanswered.pop_front() {
                let quit = command.name == "quit";
                self.answer_to(&command).await;
                if quit {
                    return;
                }
            }
            while let Some(command) = self.next() {
                self.unanswered.push_back(command);
            }
            if self.unanswered.is_empty() && !self.read().await {
                return;
            }
        }
    }

    /// From now on the client can't write, for a reason that is not the peer's end.
    pub(crate) fn fail_writes(&self, fault: io::ErrorKind) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Closes the stream; with a fault, the client reads that in place of its end.
    pub(crate) fn close(self, fault: Option<io::ErrorKind>) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let at_end = matches!(&read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        match *self.fault.lock().unwrap() {
            Some(fault) if at_end => Poll::Ready(Err(fault.into())),
            _ => read,
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some(fault) => Poll::Ready(Err(fault.into())),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
