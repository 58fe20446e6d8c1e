//! The server's side, and the blocking client against it.
#![cfg(feature = "std")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error is to fail")]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use qmp_proto::{
    Blocking, BlockingError, Capability, Codec, Connection, DecodeErrorKind, ErrorClass, Greeting,
    Limits, QmpEvent, RawJson, SendError, ServerError, Version,
    commands::{QueryStatus, Quit, Stop},
    server::{self, Phase},
};
use serde_json::json;

fn greeting() -> Greeting {
    Greeting::new(Version::new(10, 0, 2), [Capability::Oob])
}

/// A server that has read this, its greeting taken away.
fn server(input: &str) -> server::Connection {
    let mut server = server::Connection::new(&greeting(), Limits::default());
    assert_eq!(
        String::from_utf8(server.take_output()).unwrap(),
        "{\"QMP\":{\"version\":{\"qemu\":{\"micro\":2,\"minor\":0,\"major\":10},\"package\":\"\"},\
         \"capabilities\":[\"oob\"]}}\r\n"
    );
    server.handle_input(input.as_bytes());
    server
}

const NEGOTIATE: &str = r#"{"execute": "qmp_capabilities"}"#;
const WITH_OOB: &str = r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#;

#[test]
fn the_server_answers_what_is_not_the_callers_and_hands_out_the_rest() {
    let cases = [
        (
            r#"{"execute": "stop", "id": [1]}"#.to_owned(),
            r#"{"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation with 'qmp_capabilities'"},"id":[1]}"#,
            "",
        ),
        (NEGOTIATE.to_owned(), r#"{"return":{}}"#, ""),
        (
            format!("{NEGOTIATE} {{\"execute\": \"qmp_capabilities\", \"id\": null}}"),
            concat!(
                "{\"return\":{}}\r\n",
                r#"{"error":{"class":"CommandNotFound","desc":"Capabilities negotiation is already complete, command ignored"},"id":null}"#,
            ),
            "",
        ),
        (
            r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["flux"]}}"#.to_owned(),
            r#"{"error":{"class":"GenericError","desc":"Capability flux not available"}}"#,
            "",
        ),
        (
            format!("{NEGOTIATE} {{\"exec-oob\": \"x\"}}"),
            concat!(
                "{\"return\":{}}\r\n",
                r#"{"error":{"class":"GenericError","desc":"QMP input member 'exec-oob' is unexpected"}}"#,
            ),
            "",
        ),
        (
            format!("{WITH_OOB} {{\"exec-oob\": \"x\", \"id\": 1, \"arguments\": {{\"a\": 1.0}}}}"),
            "{\"return\":{}}",
            "x oob {\"a\": 1.0} 1",
        ),
        (
            format!("{NEGOTIATE}{{\"execute\": \"x\\u002dy\"}}"),
            "{\"return\":{}}",
            "x-y - -",
        ),
    ];
    for (input, answered, handed_out) in cases {
        for size in [1, 7, input.len()] {
            let mut server = server("");
            let mut requests = Vec::new();
            for piece in input.as_bytes().chunks(size) {
                server.handle_input(piece);
                while let Some(request) = server.poll_command().unwrap() {
                    let text = |json: Option<RawJson>| json.map_or("-".into(), |j| j.to_string());
                    let oob = if request.oob { "oob " } else { "" };
                    let (arguments, id) = (text(request.arguments), text(request.id));
                    requests.push(format!("{} {oob}{arguments} {id}", request.name));
                }
            }
            let output = String::from_utf8(server.take_output()).unwrap();
            assert_eq!(output, format!("{answered}\r\n"), "{input}");
            assert_eq!(requests.join("|"), handed_out, "{input}");
        }
    }
}

#[test]
fn what_is_no_command_ends_the_server() {
    for (input, text) in [
        ("{}", "message with neither `execute` nor `exec-oob`"),
        (r#"{"execute": "a", "exec-oob": "b"}"#, "message with both"),
        (r#"{"execute": 1}"#, "invalid `execute`: "),
        (
            r#"{"execute": "a", "arguments": []}"#,
            "invalid `arguments`: no object",
        ),
        (r#"{"execute": "a", "execute": "b"}"#, "key `execute` twice"),
        ("SSH-2.0", "invalid JSON"),
        ("{", "the stream ended inside a message"),
    ] {
        let mut server = server(input);
        server.handle_eof();
        let error = server.poll_command().unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(server.phase(), Phase::Failed);
        assert_eq!(server.poll_command(), Err(error));
    }
    let mut server = server(NEGOTIATE);
    server.handle_eof();
    assert_eq!(server.poll_command(), Ok(None));
    assert_eq!(server.phase(), Phase::Closed);
}

#[test]
fn a_proxy_gets_each_text_with_its_place_and_its_meaning() {
    let stream = "{\"execute\": \"stop\", \"id\": 7}\r\n\r\n {\"event\" : \"STOP\"}{}";
    let mut codec = Codec::new(Limits::default());
    codec.feed(stream.as_bytes());
    let command = codec.next_raw().unwrap().unwrap();
    assert_eq!((command.range(), command.as_str()), (0..28, &stream[..28]));
    assert_eq!(command.to_request().unwrap().name, "stop");
    let error = command.to_server_message().unwrap_err();
    assert!(
        error.to_string().starts_with("message with none of"),
        "{error}"
    );
    let event = codec.next_raw().unwrap().unwrap();
    assert_eq!((event.range(), event.as_str()), (33..51, &stream[33..51]));
    assert!(event.to_server_message().is_ok());
    assert_eq!(codec.next_raw().unwrap().unwrap().as_str(), "{}");
    assert_eq!(codec.next_raw(), Ok(None));
    codec.feed(b"]");
    let error = codec.next_raw().unwrap_err();
    assert!(matches!(error.kind(), DecodeErrorKind::Syntax { .. }));
}

/// A client, and a server thread that answers each command by `answer` until that returns false.
fn client(
    mut answer: impl FnMut(&mut server::Connection, server::Request) -> bool + Send + 'static,
) -> (Blocking<UnixStream>, thread::JoinHandle<()>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let mut server = server::Connection::new(&greeting(), Limits::default());
        while server.phase() != Phase::Closed {
            while let Some(request) = server.poll_command().unwrap() {
                if !answer(&mut server, request) {
                    while server.write_to(&mut theirs).unwrap() > 0 {}
                    return;
                }
            }
            while server.write_to(&mut theirs).unwrap() > 0 {}
            server.read_from(&mut theirs).unwrap();
        }
    });
    (Blocking::connect(ours).unwrap(), thread)
}

#[test]
fn commands_events_and_errors_reach_the_blocking_client() {
    let (mut qmp, thread) = client(|server, request| {
        match request.name.as_str() {
            "query-status" => server
                .reply(&request, &json!({"running": true, "status": "running"}))
                .unwrap(),
            "stop" => {
                server.emit(&QmpEvent::new("STOP", None));
                server.reply(&request, &json!({})).unwrap();
                server.emit(&QmpEvent::new("AFTER", None));
            }
            "wrong" => server.reply(&request, &1).unwrap(),
            name => server.reply_error(
                &request,
                ServerError::new(ErrorClass::CommandNotFound, name),
            ),
        }
        true
    });
    assert_eq!(qmp.greeting(), &greeting());
    assert!(qmp.command(&QueryStatus).unwrap().running);
    assert!(qmp.take_event().is_none());
    qmp.command(&Stop).unwrap();
    assert_eq!(qmp.take_event().unwrap().name, "STOP");
    assert_eq!(qmp.next_event().unwrap().name, "AFTER");
    let refused = qmp.execute("fly", &json!({"to": "x"})).unwrap_err();
    assert_eq!(refused.to_string(), "CommandNotFound: fly");
    let unsent = qmp.execute("", &()).unwrap_err();
    assert!(
        matches!(unsent, BlockingError::Send(SendError::Encode(_))),
        "{unsent}"
    );
    assert_eq!(qmp.execute("wrong", &()).unwrap().as_str(), "1");
    assert_eq!(qmp.missed_events(), 0);
    drop(qmp);
    thread.join().unwrap();
}

#[test]
fn after_a_time_out_the_late_reply_is_dropped_and_the_client_goes_on() {
    let mut held = None;
    let (mut qmp, thread) = client(move |server, request| {
        if let Some(late) = held.take() {
            server.reply(&late, &json!("late")).unwrap();
            server.reply(&request, &json!("in time")).unwrap();
        } else {
            held = Some(request);
        }
        true
    });
    let short = Duration::from_millis(50);
    qmp.stream().set_read_timeout(Some(short)).unwrap();
    let BlockingError::Io(error) = qmp.execute("slow", &()).unwrap_err() else {
        panic!()
    };
    assert!(matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ));
    let long = Duration::from_secs(20);
    qmp.stream().set_read_timeout(Some(long)).unwrap();
    assert_eq!(qmp.execute("quick", &()).unwrap().as_str(), "\"in time\"");
    drop(qmp);
    thread.join().unwrap();
}

#[test]
fn the_end_after_quit_is_closed_however_the_socket_says_it() {
    let (mut qmp, thread) = client(|server, request| {
        server.emit(&QmpEvent::new("SHUTDOWN", None));
        server.reply(&request, &json!({})).unwrap();
        false
    });
    qmp.command(&Quit).unwrap();
    assert_eq!(qmp.next_event().unwrap().name, "SHUTDOWN");
    thread.join().unwrap();
    for _ in 0..2 {
        assert!(matches!(qmp.next_event(), Err(BlockingError::Closed)));
    }
    // The connection knows that it is closed; nothing is written.
    assert!(matches!(
        qmp.execute("x", &()),
        Err(BlockingError::Send(SendError::WrongPhase { .. }))
    ));
}

type ScriptedRead = io::Result<Vec<u8>>;

/// A stream whose reads are scripted, and whose writes fail from the n-th on.
struct Scripted {
    reads: Vec<ScriptedRead>,
    writes_left: usize,
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reads.is_empty() {
            return Ok(0);
        }
        let bytes = self.reads.remove(0)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writes_left == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.writes_left -= 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_end_a_reset_a_broken_pipe_and_an_interruption_while_a_command_waits() {
    const GREETING: &[u8] =
        br#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}}}"#;
    const AGREED: &[u8] = br#"{"return": {}, "id": "0000002a-1"}"#;
    const REPLY: &[u8] = br#"{"return": 1, "id": "0000002a-2"}"#;
    let bytes = |bytes: &[u8]| Ok(bytes.to_vec());
    let reset = || Err(io::ErrorKind::ConnectionReset.into());
    let interrupted = || Err(io::ErrorKind::Interrupted.into());
    let cases: [(usize, Vec<ScriptedRead>, &str); 7] = [
        (9, vec![], "the server closed the connection"),
        (9, vec![reset()], "the server closed the connection"),
        (1, vec![], "the server closed the connection"),
        (9, vec![interrupted(), bytes(REPLY)], "1"),
        // What QEMU wrote before it closed the stream is still there to read.
        (1, vec![bytes(REPLY)], "1"),
        (
            9,
            vec![bytes(&REPLY[..9])],
            "the stream ended inside a message",
        ),
        (9, vec![Err(io::Error::other("on fire"))], "on fire"),
    ];
    for (writes_left, more, outcome) in cases {
        let mut reads = vec![bytes(GREETING), bytes(AGREED)];
        reads.extend(more);
        let stream = Scripted { reads, writes_left };
        let connection = Connection::with_id_prefix(Limits::default(), 0x2a);
        let mut qmp = Blocking::with_connection(stream, connection).unwrap();
        let said = match qmp.execute("x", &()) {
            Ok(value) => value.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(said.starts_with(outcome), "{said}, not {outcome}");
    }
}

#[test]
fn events_that_nobody_takes_are_bounded() {
    let (mut qmp, thread) = client(|server, request| {
        for number in 0..5000 {
            server.emit(&QmpEvent::new(number.to_string(), None));
        }
        server.reply(&request, &json!({})).unwrap();
        true
    });
    qmp.execute("x", &()).unwrap();
    assert_eq!(qmp.missed_events(), 5000 - 4096);
    assert_eq!(qmp.take_event().unwrap().name, "904");
    drop(qmp);
    thread.join().unwrap();
}
