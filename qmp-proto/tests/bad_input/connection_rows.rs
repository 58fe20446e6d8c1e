//! What a connection makes of messages that come at the wrong time or to the wrong address.

use qmp_proto::{
    Capability, CommandId, Connection, DecodeErrorKind, Dropped, EncodeError, Limits, Phase,
    Received, SendError, commands::Stop,
};

use super::cuttings;

const PREFIX: u32 = 0x2a;
const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";
/// The answer to a negotiation, which is always command 1.
const AGREED: &str = "{\"return\": {}, \"id\": \"0000002a-1\"}\r\n";

/// The state before a row's input.
#[derive(Debug, Clone, Copy)]
enum Setup {
    New,
    Greeted,
    Negotiating,
    /// Ready, with as many commands in flight (2, 3, …), written whole.
    Ready(u8),
    /// The same, but for the last byte of the output.
    NotQuiteWritten(u8),
    /// With `oob`, as many in-band commands in flight and an out-of-band one after them.
    OutOfBand(u8),
    /// Two in flight, the first abandoned.
    Abandoned,
}

use Setup::{Abandoned, Greeted, Negotiating, New, NotQuiteWritten, OutOfBand, Ready};

struct Row {
    name: &'static str,
    setup: Setup,
    input: &'static str,
    /// Each event in the words of [`describe`]; the last may be `fatal` and a kind.
    expect: &'static [&'static str],
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Before the greeting.
    Row { name: "an event before the greeting", setup: New, input: "{\"event\": \"STOP\"}", expect: &["early"] },
    Row { name: "a stale return before the greeting", setup: New, input: "{\"return\": {}}", expect: &["early"] },
    Row { name: "a stale return with an id of ours before the greeting", setup: New, input: "{\"return\": {}, \"id\": \"0000002a-1\"}", expect: &["early"] },
    Row { name: "a stale error before the greeting", setup: New, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"\"}}", expect: &["early"] },
    Row { name: "all of them, then the greeting", setup: New, input: "{\"event\": \"STOP\"}\r\n{\"return\": {}}\r\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"\"}}\r\n{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}", expect: &["early", "early", "early", "greeting"] },

    // Around negotiation.
    Row { name: "an event before negotiation", setup: Greeted, input: "{\"event\": \"RESET\"}", expect: &["event RESET"] },
    Row { name: "a return without id before any command", setup: Greeted, input: "{\"return\": {}}", expect: &["stray return"] },
    Row { name: "an error without id before any command", setup: Greeted, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["unattributed bad"] },
    Row { name: "an answer before any command", setup: Greeted, input: "{\"return\": {}, \"id\": \"0000002a-1\"}", expect: &["unknown 0000002a-1"] },
    Row { name: "an event before the answer to negotiation", setup: Negotiating, input: "{\"event\": \"RESET\"}{\"return\": {}, \"id\": \"0000002a-1\"}", expect: &["event RESET", "negotiated"] },
    Row { name: "negotiation refused", setup: Negotiating, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": \"0000002a-1\"}", expect: &["refused no"] },
    Row { name: "an earlier client's answer during negotiation", setup: Negotiating, input: "{\"return\": {}, \"id\": \"0000002b-1\"}{\"return\": {}, \"id\": \"libvirt-1\"}", expect: &["unknown 0000002b-1", "unknown \"libvirt-1\""] },
    Row { name: "returns without id during negotiation: an earlier client's", setup: Negotiating, input: "{\"return\": {}}{\"return\": {}}", expect: &["stray return", "stray return"] },
    Row { name: "a return without id during negotiation, then its answer, then another", setup: Negotiating, input: "{\"return\": {}}{\"return\": {}, \"id\": \"0000002a-1\"}{\"return\": {}}", expect: &["stray return", "negotiated", "fatal ReturnWithoutId"] },
    Row { name: "a return without id after a refused negotiation", setup: Negotiating, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": \"0000002a-1\"}{\"return\": {}}", expect: &["refused no", "stray return"] },
    Row { name: "an error without id during negotiation, then its answer", setup: Negotiating, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}{\"return\": {}, \"id\": \"0000002a-1\"}", expect: &["unattributed bad", "negotiated"] },
    Row { name: "an error without id during negotiation: it may be an earlier client's", setup: Negotiating, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["unattributed bad"] },
    Row { name: "a second greeting at once", setup: New, input: "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}\n{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}", expect: &["greeting", "fatal SecondGreeting"] },
    Row { name: "a second greeting later", setup: Ready(2), input: "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}", expect: &["fatal SecondGreeting"] },

    // Answers.
    Row { name: "answers in order", setup: Ready(2), input: "{\"return\": {}, \"id\": \"0000002a-2\"}{\"return\": 1, \"id\": \"0000002a-3\"}", expect: &["reply 2 {}", "reply 3 1"] },
    Row { name: "answers out of order", setup: Ready(3), input: "{\"return\": {}, \"id\": \"0000002a-4\"}{\"return\": {}, \"id\": \"0000002a-2\"}{\"return\": {}, \"id\": \"0000002a-3\"}", expect: &["reply 4 {}", "reply 2 {}", "reply 3 {}"] },
    Row { name: "an error as answer", setup: Ready(1), input: "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}, \"id\": \"0000002a-2\"}", expect: &["error 2 no"] },
    Row { name: "a return of null", setup: Ready(1), input: "{\"return\": null, \"id\": \"0000002a-2\"}", expect: &["reply 2 null"] },
    Row { name: "an event between answers", setup: Ready(2), input: "{\"return\": {}, \"id\": \"0000002a-2\"}{\"event\": \"STOP\"}{\"return\": {}, \"id\": \"0000002a-3\"}", expect: &["reply 2 {}", "event STOP", "reply 3 {}"] },
    Row { name: "a second answer", setup: Ready(1), input: "{\"return\": {}, \"id\": \"0000002a-2\"}{\"return\": {}, \"id\": \"0000002a-2\"}", expect: &["reply 2 {}", "unknown 0000002a-2"] },
    Row { name: "an id not yet given", setup: Ready(1), input: "{\"return\": {}, \"id\": \"0000002a-3\"}", expect: &["unknown 0000002a-3"] },
    Row { name: "the negotiation's id again", setup: Ready(1), input: "{\"return\": {}, \"id\": \"0000002a-1\"}", expect: &["unknown 0000002a-1"] },
    Row { name: "another connection's id with a number of ours", setup: Ready(1), input: "{\"return\": {}, \"id\": \"0000002b-2\"}", expect: &["unknown 0000002b-2"] },
    Row { name: "ids of other types", setup: Ready(1), input: "{\"return\": {}, \"id\": 2}{\"return\": {}, \"id\": null}{\"return\": {}, \"id\": [\"0000002a-2\"]}{\"error\": {\"class\": \"C\", \"desc\": \"\"}, \"id\": {}}", expect: &["unknown 2", "unknown null", "unknown [\"0000002a-2\"]", "unknown {}"] },
    Row { name: "a late answer to an abandoned command", setup: Abandoned, input: "{\"return\": {}, \"id\": \"0000002a-2\"}{\"return\": {}, \"id\": \"0000002a-3\"}", expect: &["late 2", "reply 3 {}"] },
    Row { name: "a late error to an abandoned command, twice", setup: Abandoned, input: "{\"error\": {\"class\": \"C\", \"desc\": \"\"}, \"id\": \"0000002a-2\"}{\"return\": {}, \"id\": \"0000002a-2\"}", expect: &["late 2", "unknown 0000002a-2"] },
    Row { name: "an out-of-band answer overtakes", setup: OutOfBand(2), input: "{\"return\": {}, \"id\": \"0000002a-4\"}{\"return\": {}, \"id\": \"0000002a-2\"}", expect: &["reply 4 {}", "reply 2 {}"] },

    // Without id.
    Row { name: "a return without id", setup: Ready(1), input: "{\"return\": {}}", expect: &["fatal ReturnWithoutId"] },
    Row { name: "a return without id with nothing in flight", setup: Ready(0), input: "{\"return\": {}}", expect: &["fatal ReturnWithoutId"] },
    Row { name: "an error without id with one in flight", setup: Ready(1), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["error 2 bad"] },
    Row { name: "an error without id is for the oldest", setup: Ready(3), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}{\"return\": {}, \"id\": \"0000002a-3\"}", expect: &["error 2 bad", "reply 3 {}"] },
    Row { name: "an error without id for the second", setup: Ready(2), input: "{\"return\": {}, \"id\": \"0000002a-2\"}{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["reply 2 {}", "error 3 bad"] },
    Row { name: "two errors without id for one command", setup: Ready(1), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}{\"error\": {\"class\": \"GenericError\", \"desc\": \"worse\"}}", expect: &["error 2 bad", "unattributed worse"] },
    Row { name: "an error without id for an abandoned command", setup: Abandoned, input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["late 2"] },
    Row { name: "an error without id with nothing in flight", setup: Ready(0), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["unattributed bad"] },
    Row { name: "an error without id to a command not quite written", setup: NotQuiteWritten(1), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["unattributed bad"] },
    Row { name: "an error without id to the first, the second not quite written", setup: NotQuiteWritten(2), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["error 2 bad"] },
    Row { name: "an error without id with one out of band", setup: OutOfBand(1), input: "{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad\"}}", expect: &["unattributed bad"] },

    // Neither.
    Row { name: "a command from the server", setup: Ready(1), input: "{\"execute\": \"quit\", \"id\": \"0000002a-2\"}", expect: &["fatal NotOneKind"] },
    Row { name: "a fault after an answer", setup: Ready(2), input: "{\"return\": {}, \"id\": \"0000002a-2\"}\r\n\r\n{]}", expect: &["reply 2 {}", "fatal Syntax"] },
];

fn set_up(setup: Setup) -> Connection {
    let mut qmp = Connection::with_id_prefix(Limits::default(), PREFIX);
    let oob = matches!(setup, OutOfBand(_));
    if matches!(setup, New) {
        return qmp;
    }
    qmp.handle_input(GREETING.as_bytes());
    assert!(matches!(qmp.poll(), Ok(Some(Received::Greeting(_)))));
    if matches!(setup, Greeted) {
        return qmp;
    }
    qmp.negotiate(if oob { &[Capability::Oob] } else { &[] })
        .unwrap();
    write_all(&mut qmp);
    if matches!(setup, Negotiating) {
        return qmp;
    }
    qmp.handle_input(AGREED.as_bytes());
    assert_eq!(qmp.poll(), Ok(Some(Received::Negotiated(Ok(())))));
    let count = match setup {
        Ready(count) | NotQuiteWritten(count) | OutOfBand(count) => count,
        _ => 2,
    };
    for number in 0..count {
        assert_eq!(
            qmp.command(&Stop).unwrap(),
            CommandId::new(PREFIX, 2 + u64::from(number))
        );
    }
    match setup {
        OutOfBand(_) => drop(qmp.command_oob(&Stop).unwrap()),
        Abandoned => assert!(qmp.abandon(CommandId::new(PREFIX, 2))),
        _ => {}
    }
    if matches!(setup, NotQuiteWritten(_)) {
        qmp.advance_output(qmp.output().len() - 1);
    } else {
        write_all(&mut qmp);
    }
    qmp
}

fn write_all(qmp: &mut Connection) {
    let count = qmp.output().len();
    qmp.advance_output(count);
    assert!(qmp.output().is_empty());
}

fn describe(event: &Received) -> String {
    match event {
        Received::Greeting(_) => "greeting".into(),
        Received::Negotiated(Ok(())) => "negotiated".into(),
        Received::Negotiated(Err(error)) => format!("refused {}", error.desc),
        Received::Reply {
            id,
            result: Ok(value),
        } => format!("reply {} {value}", id.number()),
        Received::Reply {
            id,
            result: Err(error),
        } => format!("error {} {}", id.number(), error.desc),
        Received::Event(event) => format!("event {}", event.name),
        Received::UnattributedError(error) => format!("unattributed {}", error.desc),
        Received::Dropped(Dropped::BeforeGreeting(_)) => "early".into(),
        Received::Dropped(Dropped::Abandoned { id, .. }) => format!("late {}", id.number()),
        Received::Dropped(Dropped::UnknownId(qmp_proto::MessageId::Command(id))) => {
            format!("unknown {id}")
        }
        Received::Dropped(Dropped::UnknownId(qmp_proto::MessageId::Foreign(id))) => {
            format!("unknown {id}")
        }
        Received::Dropped(Dropped::ReturnWithoutId) => "stray return".into(),
        Received::Closed => "closed".into(),
        other => panic!("{other:?}"),
    }
}

fn fault(kind: &DecodeErrorKind) -> String {
    match kind {
        DecodeErrorKind::Protocol { reason } if reason.starts_with("second greeting") => {
            "SecondGreeting".into()
        }
        DecodeErrorKind::Protocol { reason } if reason.starts_with("return without id") => {
            "ReturnWithoutId".into()
        }
        DecodeErrorKind::Protocol { reason } if reason.starts_with("message with none") => {
            "NotOneKind".into()
        }
        kind => format!("{kind:?}").split(' ').next().unwrap().to_owned(),
    }
}

/// All that comes of these pieces.
fn run(qmp: &mut Connection, pieces: &[&[u8]]) -> Vec<String> {
    let mut seen = Vec::new();
    for piece in pieces {
        qmp.handle_input(piece);
        loop {
            match qmp.poll() {
                Ok(Some(event)) => seen.push(describe(&event)),
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("fatal {}", fault(error.kind())));
                    assert_eq!(qmp.phase(), Phase::Failed);
                    qmp.handle_input(b"{\"event\": \"AFTER\"}");
                    qmp.handle_eof();
                    assert_eq!(qmp.poll(), Err(error), "the error stays");
                    return seen;
                }
            }
        }
    }
    seen
}

#[test]
fn every_row_in_every_cutting_alone_and_among_neighbours() {
    let mut runs = 0;
    for row in ROWS {
        for neighbours in [false, true] {
            let (before, after) = if neighbours {
                ("{\"event\": \"BEFORE\"}\r\n", "\r\n{\"event\": \"AFTER\"}")
            } else {
                ("", "")
            };
            let stream = format!("{before}{}{after}", row.input);
            let mut expect: Vec<&str> = row.expect.to_vec();
            if neighbours {
                let greeted = !matches!(row.setup, New) || expect.contains(&"greeting");
                expect.insert(
                    0,
                    if matches!(row.setup, New) {
                        "early"
                    } else {
                        "event BEFORE"
                    },
                );
                if !expect.iter().any(|word| word.starts_with("fatal")) {
                    expect.push(if greeted { "event AFTER" } else { "early" });
                }
            }
            for pieces in cuttings(stream.as_bytes()) {
                let mut qmp = set_up(row.setup);
                let in_flight = qmp.in_flight();
                assert_eq!(run(&mut qmp, &pieces), expect, "{}", row.name);
                check_ledger(row, &expect, in_flight, qmp);
                runs += 1;
            }
        }
    }
    println!("{} rows, {runs} runs", ROWS.len());
}

/// Every command was answered, swallowed, or is handed back; and what was dropped was counted.
fn check_ledger(row: &Row, expect: &[&str], in_flight: usize, mut qmp: Connection) {
    let begins = |words: &[&str]| {
        expect
            .iter()
            .filter(|said| words.iter().any(|word| said.starts_with(word)))
            .count()
    };
    assert_eq!(
        qmp.dropped() as usize,
        begins(&["early", "late", "unknown", "stray"]),
        "{}",
        row.name
    );
    let answered = begins(&["reply", "error", "late", "negotiated", "refused"]);
    let negotiating = matches!(row.setup, Negotiating) && begins(&["negotiated", "refused"]) == 0;
    let abandoned = matches!(row.setup, Abandoned) && begins(&["late"]) == 0;
    qmp.handle_eof();
    while let Ok(Some(_)) = qmp.poll() {}
    assert_eq!(qmp.in_flight(), 0);
    let lost = qmp.take_lost().len();
    assert_eq!(
        in_flight - answered,
        lost + usize::from(negotiating) + usize::from(abandoned),
        "{}",
        row.name
    );
    assert!(qmp.take_lost().is_empty(), "handed back once");
}

#[test]
fn a_command_in_the_wrong_phase_is_told_which_it_is() {
    for (setup, phase) in [
        (New, "waiting for the server's greeting"),
        (Greeted, "capabilities are not negotiated"),
        (Negotiating, "capabilities are being negotiated"),
    ] {
        let refused = set_up(setup).command(&Stop).unwrap_err();
        assert_eq!(refused.to_string(), format!("not possible while {phase}"));
    }
    let refused = set_up(Ready(0)).negotiate(&[]).unwrap_err();
    assert_eq!(refused.to_string(), "not possible while ready for commands");
    for (left, phase) in [
        ("", "the connection is closed"),
        ("{", "the connection has failed"),
    ] {
        let mut qmp = set_up(Ready(0));
        qmp.handle_input(left.as_bytes());
        qmp.handle_eof();
        let _ = qmp.poll();
        assert_eq!(
            qmp.command(&Stop).unwrap_err().to_string(),
            format!("not possible while {phase}")
        );
    }
}

#[test]
fn the_last_reply_comes_before_the_end() {
    for setup in [Ready(1), Ready(2)] {
        let mut qmp = set_up(setup);
        qmp.handle_input(
            b"{\"event\": \"SHUTDOWN\"}\r\n{\"return\": {}, \"id\": \"0000002a-2\"}\r\n",
        );
        qmp.handle_eof();
        let mut seen = Vec::new();
        while let Some(event) = qmp.poll().unwrap() {
            assert_ne!(qmp.phase(), Phase::Failed);
            seen.push(describe(&event));
        }
        assert_eq!(seen, ["event SHUTDOWN", "reply 2 {}", "closed"]);
        assert_eq!(qmp.phase(), Phase::Closed);
        assert_eq!(qmp.poll(), Ok(None), "closed is said once");
        let lost = if matches!(setup, Ready(2)) {
            vec![CommandId::new(PREFIX, 3)]
        } else {
            vec![]
        };
        assert_eq!(qmp.take_lost(), lost);
    }
}

#[test]
fn an_end_inside_a_message_is_truncated_and_hands_back() {
    let mut qmp = set_up(Ready(2));
    qmp.handle_input(b"{\"return\": {}, \"id\": \"0000002a-2\"}{\"return\": {}, \"id\": \"0000");
    qmp.handle_eof();
    assert_eq!(describe(&qmp.poll().unwrap().unwrap()), "reply 2 {}");
    assert!(qmp.take_lost().is_empty(), "not yet at the end");
    assert_eq!(qmp.poll().unwrap_err().kind(), &DecodeErrorKind::Truncated);
    assert_eq!(qmp.take_lost(), [CommandId::new(PREFIX, 3)]);
}

#[test]
fn a_value_out_of_range_is_an_error_where_it_is_read_and_the_connection_goes_on() {
    for number in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e400",
        "1.5",
        "1",
    ] {
        let mut qmp = set_up(Ready(2));
        let cpu =
            format!("{{\"cpu-index\": {number}, \"thread-id\": 1, \"qom-path\": \"/machine\"}}");
        qmp.handle_input(format!("{{\"return\": [{cpu}], \"id\": \"0000002a-2\"}}").as_bytes());
        let Ok(Some(Received::Reply {
            result: Ok(value), ..
        })) = qmp.poll()
        else {
            panic!("{number}")
        };
        let parsed = value.parse::<Vec<qmp_proto::commands::CpuInfoFast>>();
        assert_eq!(parsed.is_ok(), number == "1", "{number}");
        qmp.handle_input(b"{\"return\": {}, \"id\": \"0000002a-3\"}");
        assert_eq!(describe(&qmp.poll().unwrap().unwrap()), "reply 3 {}");
        assert_eq!(qmp.phase(), Phase::Ready);
    }
}

#[test]
fn empty_input_does_nothing_and_input_after_the_end_neither() {
    let mut qmp = set_up(Ready(1));
    qmp.handle_input(b"");
    assert_eq!(qmp.poll(), Ok(None));
    qmp.handle_eof();
    qmp.handle_input(b"{\"return\": {}, \"id\": \"0000002a-2\"}");
    assert_eq!(qmp.poll(), Ok(Some(Received::Closed)));
    assert_eq!(qmp.poll(), Ok(None));
}

#[test]
fn what_cannot_be_sent_is_refused_and_changes_nothing() {
    let mut qmp = set_up(Ready(0));
    let large = "x".repeat(70_000);
    let deep = |levels: usize| {
        let value = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        serde_json::value::RawValue::from_string(format!(
            "{{\"a\": \"]}}\\\"}}\", \"b\": {value}}}"
        ))
        .unwrap()
    };
    let refused: [(SendError, &str); 9] = [
        (
            qmp.execute("", &()).unwrap_err(),
            "the command's name is empty",
        ),
        (
            qmp.execute("a\0b", &()).unwrap_err(),
            "NUL in the command's name",
        ),
        (
            qmp.execute("x", &serde_json::json!({"a": "b\0c"}))
                .unwrap_err(),
            "NUL in the command's arguments",
        ),
        (
            qmp.execute("x", &serde_json::json!({"a\0": [1]}))
                .unwrap_err(),
            "NUL in the command's arguments",
        ),
        (
            qmp.execute("x", &serde_json::json!([1])).unwrap_err(),
            "the arguments of a command must be a JSON object, or nothing",
        ),
        (
            qmp.execute("x", &serde_json::json!({"a": large}))
                .unwrap_err(),
            "command of 70054 bytes, over the limit of 65536 bytes",
        ),
        (
            qmp.execute("x", &std::collections::BTreeMap::from([([0_u8], 1)]))
                .unwrap_err(),
            "the command's arguments do not serialise: key must be a string",
        ),
        (
            qmp.execute("x", &deep(127)).unwrap_err(),
            "command nested deeper than the limit of 128",
        ),
        (
            qmp.execute("x", &deep(2000)).unwrap_err(),
            "command nested deeper than the limit of 128",
        ),
    ];
    for (error, text) in refused {
        assert_eq!(error.to_string(), text);
        let is_too_large = matches!(error, SendError::Encode(EncodeError::TooLarge { .. }));
        assert_eq!(is_too_large, text.contains("70054 bytes"));
    }
    assert!(qmp.output().is_empty());
    assert_eq!(qmp.in_flight(), 0);
    // The number was not used up.
    assert_eq!(qmp.command(&Stop).unwrap(), CommandId::new(PREFIX, 2));
    assert_eq!(qmp.output(), br#"{"execute":"stop","id":"0000002a-2"}"#);
    qmp.execute("x", &deep(126)).unwrap();
    let brackets = "\"[{\\".repeat(1000);
    qmp.execute("x", &serde_json::json!({ "a": brackets }))
        .unwrap();
    let side_by_side = vec![serde_json::json!({"a": [{}]}); 200];
    qmp.execute("x", &serde_json::json!({ "a": side_by_side }))
        .unwrap();
}

#[test]
fn a_backslash_before_u0000_is_no_nul() {
    let mut qmp = set_up(Ready(0));
    qmp.execute(
        "x",
        &serde_json::json!({"a": "\\u0000", "b": "\\\\", "c": "\"\\"}),
    )
    .unwrap();
    let sent =
        r#"{"execute":"x","arguments":{"a":"\\u0000","b":"\\\\","c":"\"\\"},"id":"0000002a-2"}"#;
    assert_eq!(String::from_utf8_lossy(qmp.output()), sent);
    qmp.execute("x", &serde_json::json!({"a": "\\\0"}))
        .unwrap_err();
}

#[test]
fn places_in_flight_are_eight_in_band_and_as_many_out_of_band() {
    let mut qmp = set_up(OutOfBand(0));
    for _ in 0..8 {
        assert!(qmp.can_execute());
        qmp.command(&Stop).unwrap();
    }
    assert!(!qmp.can_execute());
    assert!(matches!(
        qmp.command(&Stop),
        Err(SendError::Full { limit: 8 })
    ));
    for _ in 0..7 {
        qmp.command_oob(&Stop).unwrap();
    }
    assert!(matches!(
        qmp.command_oob(&Stop),
        Err(SendError::Full { limit: 8 })
    ));
    assert_eq!((qmp.in_flight(), qmp.in_flight_in_band()), (16, 8));
    // An abandoned command keeps its place until it is answered.
    let abandoned = CommandId::new(PREFIX, 3);
    assert!(qmp.abandon(abandoned));
    assert!(!qmp.can_execute());
    qmp.handle_input(format!("{{\"return\": {{}}, \"id\": \"{abandoned}\"}}").as_bytes());
    assert_eq!(describe(&qmp.poll().unwrap().unwrap()), "late 3");
    assert!(qmp.can_execute());
}
