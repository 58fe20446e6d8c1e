//! A monitor that says what the script wants, and one that behaves.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use qemu_controller::{AttachConfig, Session, StartError};
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
    heard: Vec<u8>,
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
            heard: Vec::new(),
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
            if let Some(command) = self.parse() {
                return Some(command);
            }
            if self.stream.read_buf(&mut self.heard).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Reads commands until there are so many unanswered ones.
    pub(crate) async fn hear_until(&mut self, unanswered: usize) {
        while self.unanswered.len() < unanswered {
            self.hear().await;
        }
    }

    fn parse(&mut self) -> Option<Heard> {
        let mut values = serde_json::Deserializer::from_slice(&self.heard).into_iter::<Value>();
        let value = values.next()?.ok()?;
        let used = values.byte_offset();
        self.heard.drain(..used);
        let (oob, name) = match value.get("execute") {
            Some(name) => (false, name),
            None => (true, &value["exec-oob"]),
        };
        let (name, arguments) = (
            name.as_str().unwrap().to_owned(),
            value["arguments"].clone(),
        );
        Some(Heard {
            name,
            oob,
            arguments,
            id: value["id"].clone(),
        })
    }

    /// Answers the oldest unanswered command as QEMU would.
    pub(crate) async fn answer(&mut self) {
        let command = self.unanswered.pop_front().unwrap();
        self.answer_to(&command).await;
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
        self.say(json!({ "return": value, "id": command.id }).to_string())
            .await;
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
            while let Some(command) = self.parse() {
                self.unanswered.push_back(command);
            }
            if self.unanswered.is_empty()
                && !matches!(self.stream.read_buf(&mut self.heard).await, Ok(1..))
            {
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
