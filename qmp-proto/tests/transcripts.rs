//! Conversations with a real QEMU, replayed: cut at every offset they give the same messages, and a
//! connection that is used the same way sends the same.
#![expect(clippy::unwrap_used, reason = "a test that meets an error is to fail")]

use std::{collections::BTreeMap, path::Path};

use qmp_proto::{
    Capability, Codec, Command, CommandId, Connection, Dropped, Limits, MessageId, ParseError,
    Phase, RawReturn, Received, Schema, ServerMessage,
    commands::{
        BlockDeviceInfo, QueryBlock, QueryChardev, QueryCommands, QueryCpusFast, QueryJobs,
        QueryStatus, TypedEvent,
    },
    parse_return,
    transcript::{Speaker, lines, server_bytes},
};
use serde::Deserialize;
use serde_json::value::RawValue;

const NAMES: [&str; 7] = [
    "session", "pretty", "errors", "early", "jobs", "objects", "schema",
];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name)
        .with_extension("qmp");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<ServerMessage> {
    let mut codec = Codec::new(Limits::default());
    let mut messages = Vec::new();
    for piece in pieces {
        codec.feed(piece);
        while let Some(message) = codec.next_message().expect("QEMU keeps to the protocol") {
            messages.push(message);
        }
    }
    codec.feed_eof();
    assert_eq!(codec.next_message(), Ok(None));
    assert!(codec.is_finished());
    messages
}

#[test]
fn cut_at_every_offset_they_give_the_same_messages() {
    for name in NAMES {
        let bytes = server_bytes(&read(name)).unwrap();
        let whole = decode([&*bytes]);
        let mut cuts = 0;
        assert_eq!(decode(bytes.chunks(1)), whole, "{name}, byte by byte");
        if bytes.len() < 20_000 {
            for at in 0..=bytes.len() {
                assert_eq!(
                    decode([&bytes[..at], &bytes[at..]]),
                    whole,
                    "{name}, cut at {at}"
                );
                cuts += 1;
            }
        } else {
            // One cut a run would take the square of the length; pieces of equal size, begun at
            // each offset below that size, cut at every offset too.
            const SIZE: usize = 64;
            for first in 0..SIZE {
                let pieces = std::iter::once(&bytes[..first]).chain(bytes[first..].chunks(SIZE));
                assert_eq!(
                    decode(pieces),
                    whole,
                    "{name}, cut at {first} and every {SIZE}"
                );
                cuts += (bytes.len() - first).div_ceil(SIZE);
            }
        }
        println!(
            "{name}: {} bytes, {} messages, {cuts} cuts",
            bytes.len(),
            whole.len()
        );
    }
}

/// A command as the recorder sent it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sent<'a> {
    execute: Option<&'a str>,
    exec_oob: Option<&'a str>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[test]
fn a_connection_told_the_same_sends_the_same_and_has_every_answer() {
    for name in NAMES {
        // There the recorder sends what a connection cannot; see the next test.
        if name == "errors" {
            continue;
        }
        let text = read(name);
        let mut qmp = Connection::with_id_prefix(Limits::default(), 0x2a);
        let mut asked = Vec::new();
        let mut answered = Vec::new();
        for line in lines(&text) {
            let line = line.unwrap();
            if line.speaker == Speaker::Client {
                asked.extend(repeat(&mut qmp, line.text));
                continue;
            }
            qmp.handle_input(line.text.as_bytes());
            qmp.handle_input(b"\r\n");
            while let Some(event) = qmp.poll().unwrap() {
                match event {
                    Received::Reply { id, .. } => answered.push(id),
                    Received::Greeting(_) | Received::Negotiated(Ok(())) | Received::Event(_) => {}
                    Received::Dropped(_) if name == "early" => {}
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        assert_eq!(answered, asked, "{name}");
        assert_eq!(qmp.in_flight(), 0);
        assert_eq!(qmp.dropped(), u64::from(name == "early"));
        qmp.handle_eof();
        assert_eq!(qmp.poll(), Ok(Some(Received::Closed)));
    }
}

/// The input that QEMU could not read was not the connection's own, so what it makes of the errors
/// is wrong, but no error and no answer is lost, and the first return without id ends it.
#[test]
fn errors_without_id_go_to_the_oldest_command_or_to_none() {
    let text = read("errors");
    let mut qmp = Connection::with_id_prefix(Limits::default(), 0x2a);
    let mut seen = Vec::new();
    'stream: for line in lines(&text) {
        let line = line.unwrap();
        let sent = serde_json::from_str::<Sent<'_>>(line.text).ok();
        if line.speaker == Speaker::Server {
            qmp.handle_input(line.text.as_bytes());
        } else if let Some(name) = sent.and_then(|sent| sent.execute)
            && line.text.contains("0000002a-")
        {
            if qmp.phase() == Phase::Greeted {
                qmp.negotiate(&[]).unwrap();
            } else {
                qmp.execute(name, &()).unwrap();
            }
            qmp.advance_output(qmp.output().len());
        }
        loop {
            match qmp.poll() {
                Ok(None) => break,
                Ok(Some(Received::Reply { id, result })) => {
                    seen.push(format!(
                        "{} {}",
                        id.number(),
                        if result.is_ok() { "ok" } else { "error" }
                    ));
                }
                Ok(Some(Received::Dropped(Dropped::UnknownId(MessageId::Command(id))))) => {
                    seen.push(format!("{} again", id.number()));
                }
                Ok(Some(Received::UnattributedError(_))) => seen.push("unattributed".into()),
                Ok(Some(other)) => {
                    assert!(matches!(
                        other,
                        Received::Greeting(_) | Received::Negotiated(_)
                    ))
                }
                Err(error) => {
                    seen.push(error.kind().to_string());
                    break 'stream;
                }
            }
        }
    }
    assert_eq!(
        seen,
        [
            "4 error",
            "5 error",
            "5 again",
            "6 error",
            "6 again",
            "7 error",
            "unattributed",
            "7 again",
            "8 error",
            "8 again",
            "9 error",
            "9 again",
            "10 error",
            "10 again",
            "return without id, although every command was sent with one"
        ]
    );
    assert_eq!(qmp.take_lost(), [CommandId::new(0x2a, 11)]);
}

/// Sends what the recorder sent, and sees that it is the same.
fn repeat(qmp: &mut Connection, line: &str) -> Option<CommandId> {
    let sent: Sent<'_> = serde_json::from_str(line).unwrap();
    let id = match sent {
        Sent {
            execute: Some("qmp_capabilities"),
            arguments,
            ..
        } => {
            qmp.negotiate(if arguments.is_some() {
                &[Capability::Oob]
            } else {
                &[]
            })
            .unwrap();
            None
        }
        Sent {
            execute: Some(name),
            arguments,
            ..
        } => Some(qmp.execute(name, &arguments).unwrap()),
        Sent {
            exec_oob: Some(name),
            arguments,
            ..
        } => Some(qmp.execute_oob(name, &arguments).unwrap()),
        _ => panic!("no command: {line}"),
    };
    assert_eq!(String::from_utf8_lossy(qmp.output()), line);
    qmp.advance_output(qmp.output().len());
    id
}

/// The returns of a transcript by the command that they answer.
fn returns(name: &str) -> Vec<(String, RawReturn)> {
    let text = read(name);
    let mut names = BTreeMap::new();
    for line in lines(&text)
        .map(Result::unwrap)
        .filter(|line| line.speaker == Speaker::Client)
    {
        let Ok(sent) = serde_json::from_str::<serde_json::Value>(line.text) else {
            continue;
        };
        names.insert(
            sent["id"].to_string(),
            sent["execute"].as_str().unwrap_or_default().to_owned(),
        );
    }
    let messages = decode([&*server_bytes(&text).unwrap()]);
    let named = messages.into_iter().filter_map(|message| match message {
        ServerMessage::Return {
            id: Some(MessageId::Command(id)),
            value,
        } => Some((names[&format!("\"{id}\"")].clone(), value)),
        _ => None,
    });
    named.collect()
}

/// Every return of this command, typed.
fn typed<C: Command>() -> Vec<C::Return> {
    let of = |name| {
        returns(name)
            .into_iter()
            .filter(|(command, _)| command == C::NAME)
    };
    let parsed: Result<Vec<_>, ParseError> = NAMES
        .into_iter()
        .flat_map(of)
        .map(|(_, raw)| parse_return::<C>(&raw))
        .collect();
    parsed.unwrap()
}

#[derive(serde::Serialize)]
struct QueryNamedBlockNodes;

impl Command for QueryNamedBlockNodes {
    const NAME: &'static str = "query-named-block-nodes";
    type Return = Vec<BlockDeviceInfo>;
}

#[test]
fn the_typed_commands_read_what_qemu_returns() {
    let status = typed::<QueryStatus>();
    assert!(
        status.iter().any(|status| status.running) && status.iter().any(|status| !status.running)
    );
    assert!(
        status
            .iter()
            .any(|status| status.status.as_str() == "prelaunch")
    );
    assert!(
        typed::<QueryCommands>()[0]
            .iter()
            .any(|command| command.name == "query-commands")
    );
    assert_eq!(
        typed::<QueryChardev>()[0]
            .iter()
            .filter(|chardev| chardev.label == "qmp")
            .count(),
        1
    );
    let cpus = typed::<QueryCpusFast>();
    assert!(
        cpus.iter()
            .all(|cpus| cpus.len() == 1 && cpus[0].target == "arm" && cpus[0].thread_id > 0)
    );
    assert!(
        typed::<QueryBlock>()
            .iter()
            .flatten()
            .any(|block| block.qdev.is_some())
    );
    let nodes = typed::<QueryNamedBlockNodes>();
    let snapshots = nodes[0]
        .iter()
        .filter_map(|node| node.image.as_ref())
        .flat_map(|image| &image.snapshots);
    assert_eq!(
        snapshots
            .map(|snapshot| &*snapshot.name)
            .collect::<Vec<_>>(),
        ["boot"]
    );
    let jobs = typed::<QueryJobs>();
    let failed: Vec<_> = jobs
        .iter()
        .flatten()
        .filter(|job| job.error.is_some())
        .map(|job| &*job.id)
        .collect();
    assert_eq!(failed, ["again"]);
}

#[test]
fn the_typed_events_read_what_qemu_sends() {
    let mut counts = BTreeMap::new();
    for name in NAMES {
        for message in decode([&*server_bytes(&read(name)).unwrap()]) {
            let ServerMessage::Event(event) = message else {
                continue;
            };
            assert!(event.timestamp.is_some());
            assert_ne!(event.typed().unwrap(), TypedEvent::Other, "{}", event.name);
            *counts.entry(event.name).or_insert(0) += 1;
        }
    }
    let names: Vec<_> = counts.keys().map(|name| &**name).collect();
    assert_eq!(
        names,
        [
            "JOB_STATUS_CHANGE",
            "POWERDOWN",
            "RESET",
            "RESUME",
            "SHUTDOWN",
            "STOP"
        ]
    );
}

#[test]
fn the_schema_of_a_real_qemu_answers_questions() {
    let (_, reply) = returns("schema")
        .into_iter()
        .find(|(command, _)| command == "query-qmp-schema")
        .unwrap();
    let schema = Schema::read(&reply).unwrap();
    for command in [
        "query-status",
        "snapshot-save",
        "blockdev-create",
        "qom-set",
        "human-monitor-command",
    ] {
        assert!(schema.has_command(command), "{command}");
    }
    assert!(!schema.has_command("no-such-command") && !schema.has_command("STOP"));
    assert!(
        schema.has_argument("blockdev-add", "driver")
            && schema.has_argument("blockdev-add", "cache/direct")
    );
    assert!(
        schema.has_argument("blockdev-add", "file/driver"),
        "through an alternate"
    );
    assert!(!schema.has_argument("blockdev-add", "cache/flux"));
    assert!(
        schema
            .argument_values("screendump", "format")
            .unwrap()
            .contains(&"png")
    );
    for (command, path, value) in [
        ("qmp_capabilities", "enable", "oob"),
        ("object-add", "policy", "interleave"),
        ("blockdev-create", "options/subformat", "streamOptimized"),
        ("blockdev-create", "options/subformat", "dynamic"),
    ] {
        let values = schema.argument_values(command, path).unwrap_or_default();
        assert!(values.contains(&value), "{command} {path}: {values:?}");
    }
    assert!(
        schema.has_returned_field("query-status", "singlestep"),
        "7.2 has it"
    );
    assert!(
        schema.has_returned_field("query-cpus-fast", "props/core-id"),
        "through a list"
    );
    assert!(
        schema.has_event("JOB_STATUS_CHANGE")
            && schema.has_event_field("JOB_STATUS_CHANGE", "status")
    );
    assert!(schema.allows_oob("migrate-pause") && !schema.allows_oob("stop"));
    assert!(schema.commands().count() > 200 && schema.events().count() > 40);
}
