//! A connection to a real QEMU over its stdin and stdout: negotiation, out-of-band commands, events
//! and the end.
#![expect(clippy::unwrap_used, reason = "a test that meets an error is to fail")]

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use qmp_proto::{
    Capability, CommandId, Connection, EncodeError, ErrorClass, Limits, Phase, RawReturn, Received,
    Schema, SendError, ServerError,
    commands::{
        Cont, QueryQmpSchema, QueryStatus, Quit, RunState, ShutdownCause, Stop, TypedEvent,
    },
    parse_return,
};

struct Live {
    qemu: Child,
    reader: ChildStdout,
    writer: ChildStdin,
    qmp: Connection,
    events: Vec<TypedEvent>,
    /// How many bytes a read takes: few, so that real traffic is cut everywhere.
    read: usize,
}

impl Live {
    fn start(read: usize, more: &[&str]) -> Self {
        let mut qemu = Command::new("qemu-system-arm")
            .args([
                "-M",
                "none",
                "-nodefaults",
                "-display",
                "none",
                "-chardev",
                "stdio,id=qmp",
            ])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-arm is installed");
        let (reader, writer) = (qemu.stdout.take().unwrap(), qemu.stdin.take().unwrap());
        let mut live = Self {
            qemu,
            reader,
            writer,
            qmp: Connection::new(Limits::default()),
            events: Vec::new(),
            read,
        };
        let Received::Greeting(greeting) = live.next() else {
            panic!()
        };
        assert!(greeting.version.major >= 7 && greeting.capabilities.contains(&Capability::Oob));
        live.qmp.negotiate(&[Capability::Oob]).unwrap();
        assert_eq!(live.next(), Received::Negotiated(Ok(())));
        live
    }

    /// The next thing that is no event; events are kept.
    fn next(&mut self) -> Received {
        let mut buffer = vec![0; self.read];
        loop {
            while let Some(event) = self.qmp.poll().unwrap() {
                match event {
                    Received::Event(event) => self.events.push(event.typed().unwrap()),
                    other => return other,
                }
            }
            self.writer.write_all(self.qmp.output()).unwrap();
            self.qmp.advance_output(self.qmp.output().len());
            match self.reader.read(&mut buffer).unwrap() {
                0 => self.qmp.handle_eof(),
                count => self.qmp.handle_input(&buffer[..count]),
            }
        }
    }

    fn reply(&mut self, to: CommandId) -> Result<RawReturn, ServerError> {
        match self.next() {
            Received::Reply { id, result } if id == to => result,
            other => panic!("{other:?}"),
        }
    }

    fn end(mut self) -> Vec<TypedEvent> {
        let quit = self.qmp.command(&Quit).unwrap();
        self.reply(quit).unwrap();
        assert_eq!(self.next(), Received::Closed);
        assert!(self.qemu.wait().unwrap().success());
        self.events
    }
}

#[test]
fn run_state_and_its_events_in_reads_of_every_small_size() {
    for read in [1, 2, 7, 4096] {
        let mut live = Live::start(read, &["-mon", "chardev=qmp,mode=control"]);
        let stop = live.qmp.command(&Stop).unwrap();
        live.reply(stop).unwrap();
        assert_eq!(
            live.events,
            [TypedEvent::Stop],
            "the event precedes the reply"
        );
        let status = live.qmp.command(&QueryStatus).unwrap();
        assert_eq!(
            parse_return::<QueryStatus>(&live.reply(status).unwrap())
                .unwrap()
                .status,
            RunState::Paused
        );
        let cont = live.qmp.command(&Cont).unwrap();
        live.reply(cont).unwrap();
        let events = live.end();
        assert_eq!(events[..2], [TypedEvent::Stop, TypedEvent::Resume]);
        assert!(
            matches!(&events[2..], [TypedEvent::Shutdown(why)] if why.reason == ShutdownCause::HostQmpQuit)
        );
    }
}

#[test]
fn pretty_printed_it_is_the_same() {
    let mut live = Live::start(3, &["-mon", "chardev=qmp,mode=control,pretty=on"]);
    let status = live.qmp.command(&QueryStatus).unwrap();
    assert!(live.reply(status).unwrap().as_str().contains('\n'));
    live.end();
}

#[test]
fn eight_in_band_and_an_out_of_band_command_that_overtakes_none() {
    let mut live = Live::start(4096, &["-mon", "chardev=qmp,mode=control"]);
    let ids: Vec<_> = (0..8)
        .map(|_| live.qmp.command(&QueryStatus).unwrap())
        .collect();
    assert!(!live.qmp.can_execute());
    let oob = live.qmp.execute_oob("migrate-pause", &()).unwrap();
    let mut answered = Vec::new();
    while live.qmp.in_flight() > 0 {
        let Received::Reply { id, result } = live.next() else {
            panic!()
        };
        assert_eq!(result.is_err(), id == oob);
        answered.push(id);
    }
    answered.retain(|&id| id != oob);
    assert_eq!(answered, ids, "in order");
    live.end();
}

#[test]
fn errors_are_the_server_s_own_and_the_connection_goes_on() {
    let mut live = Live::start(4096, &["-mon", "chardev=qmp,mode=control"]);
    let id = live.qmp.execute("no-such-command", &()).unwrap();
    assert_eq!(
        live.reply(id).unwrap_err().class,
        ErrorClass::CommandNotFound
    );
    let id = live.qmp.command_oob(&QueryStatus).unwrap();
    assert_eq!(live.reply(id).unwrap_err().class, ErrorClass::GenericError);
    let id = live.qmp.command(&QueryQmpSchema).unwrap();
    let schema = Schema::read(&live.reply(id).unwrap()).unwrap();
    assert!(
        schema.has_command("query-status")
            && schema.has_event("STOP")
            && !schema.has_command("no-such-command")
    );
    assert_eq!((live.qmp.phase(), live.qmp.dropped()), (Phase::Ready, 0));
    live.end();
}

#[test]
fn the_deepest_command_that_may_be_sent_is_read_whole() {
    let mut live = Live::start(4096, &["-mon", "chardev=qmp,mode=control"]);
    let deep = |levels| {
        let innermost = serde_json::Value::Array(Vec::new());
        let value = (1..levels).fold(innermost, |inner, _| serde_json::json!([inner]));
        serde_json::json!({ "a": value })
    };
    let refused = live.qmp.execute("no-such-command", &deep(127)).unwrap_err();
    assert!(matches!(
        refused,
        SendError::Encode(EncodeError::Invalid { reason })
            if reason == "command nested deeper than the limit of 128"
    ));
    let id = live.qmp.execute("no-such-command", &deep(126)).unwrap();
    assert_eq!(
        live.reply(id).unwrap_err().class,
        ErrorClass::CommandNotFound
    );
    live.end();
}
