//! What a session remembers of its snapshots, so that it need not ask at each; and that it sees
//! what others do to them.

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use qemu_controller::{QemuConfig, RunState, Session, SnapshotError};
use qmp_proto::transcript;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::check_put_back;
use crate::support::{DEADLINE, config, counts, start};

/// The session's transcript, to be read while it is written.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Told {
    /// The commands since the last look, and how many bytes they have.
    fn commands(&self) -> (Vec<String>, usize) {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let sent = transcript::lines(&text)
            .map(Result::unwrap)
            .filter(|line| line.text.contains("\"execute\""));
        let name = |text: &str| {
            let command: Value = serde_json::from_str(text).unwrap();
            command["execute"].as_str().unwrap().to_owned()
        };
        let sent: Vec<_> = sent
            .map(|line| (name(line.text), line.text.len()))
            .collect();
        let bytes = sent.iter().map(|(_, bytes)| bytes).sum();
        (sent.into_iter().map(|(name, _)| name).collect(), bytes)
    }
}

async fn with_transcript(config: QemuConfig) -> (Session, Told) {
    let told = Told::default();
    let session = Session::start(config.qmp_transcript_to(told.clone()))
        .await
        .unwrap();
    (session, told)
}

/// Each byte costs time, and each command a round trip: bare of all questions, a save takes five
/// commands and a load three, in 404 and 177 bytes with the shortest names.
#[tokio::test]
async fn nothing_is_asked_twice() {
    let (session, told) = with_transcript(config("tick")).await;
    for name in ["first", "second"] {
        session.save_snapshot(name).await.unwrap();
    }
    told.commands();
    session.save_snapshot("third").await.unwrap();
    let (commands, bytes) = told.commands();
    assert_eq!(
        commands,
        ["qom-set", "snapshot-save", "job-dismiss", "qom-set"]
    );
    assert!(bytes < 480, "{bytes}");
    for name in ["third", "first"] {
        session.load_snapshot(name).await.unwrap();
        let (commands, bytes) = told.commands();
        assert_eq!(commands, ["snapshot-load", "job-dismiss"]);
        assert!(bytes < 240, "{bytes}");
    }
    // Memory that is read is no reason to ask anew, nor is what a user asks.
    assert!(counts(&session).await);
    session.execute("query-block", &()).await.unwrap();
    session.pause().await.unwrap();
    told.commands();
    session.load_snapshot("second").await.unwrap();
    // Why the guest stands still no event tells, and whether the board has flash memory is asked
    // once.
    let (commands, _) = told.commands();
    assert_eq!(
        commands,
        [
            "query-status",
            "qom-list",
            "qom-list",
            "snapshot-load",
            "job-dismiss"
        ]
    );
    check_put_back(&session).await;
}

#[tokio::test]
async fn what_the_user_does_by_other_commands_is_seen() {
    let session = start("tick").await;
    for name in ["boot", "other"] {
        session.save_snapshot(name).await.unwrap();
        session.load_snapshot(name).await.unwrap();
    }
    session
        .human_monitor_command("delvm boot;1;running")
        .await
        .unwrap();
    let error = session.load_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Missing { available, .. } if available == &["other"]),
        "{error:?}"
    );
    session.save_snapshot("boot").await.unwrap();
    session.human_monitor_command("savevm more").await.unwrap();
    let error = session.save_snapshot("more").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error:?}");

    // A job goes on after its command was answered.
    let nodes: Value = session
        .execute("query-named-block-nodes", &())
        .await
        .unwrap()
        .parse()
        .unwrap();
    let nodes = nodes
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["drv"] == "qcow2");
    let node = nodes
        .map(|node| node["node-name"].as_str().unwrap())
        .next()
        .unwrap();
    session.save_snapshot("another").await.unwrap();
    let over = session.wait_for_event("the job", |event| {
        event
            .data
            .as_ref()
            .is_some_and(|data| data.as_str().contains("\"concluded\""))
    });
    let job = json!({ "job-id": "mine", "tag": "another;1;running", "devices": [node] });
    session.execute("snapshot-delete", &job).await.unwrap();
    session.load_snapshot("other").await.unwrap();
    over.await.unwrap();
    session
        .execute("job-dismiss", &json!({ "id": "mine" }))
        .await
        .unwrap();
    let error = session.load_snapshot("another").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Missing { .. }), "{error:?}");
}

/// Who has the human monitor by way of the GDB stub, of which QMP hears nothing; but a guest that
/// runs is stopped.
struct Debugger(TcpStream);

impl Debugger {
    fn attach(session: &Session) -> Self {
        let Some(gdb_port::StubAddress::Tcp(address)) = session.gdb() else {
            panic!("no port")
        };
        let stub = TcpStream::connect(address).unwrap();
        stub.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stub)
    }

    fn monitor(&mut self, line: &str) {
        let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
        let packet = format!("qRcmd,{hex}");
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "+${packet}#{sum:02x}").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"$OK#9a") {
            let byte = self.byte();
            answer.push(byte);
            if byte == b'#' {
                self.0.write_all(b"+").unwrap();
            }
        }
    }

    /// It lets the guest run, and takes nothing more.
    fn detach(mut self) {
        self.0.write_all(b"+$D#44").unwrap();
        while self.byte() != b'#' {}
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }
}

async fn heard_that_it_runs(session: &Session, runs: bool) {
    let mut told = session.watch_run_state();
    let heard = told.wait_for(|state| (*state == RunState::Running) == runs);
    timeout(DEADLINE, heard).await.unwrap().unwrap();
}

/// A guest that is stopped or let run by others shows that somebody is there, and what he may have
/// done no failure might.
#[tokio::test]
async fn a_debugger_who_comes_and_goes_is_seen() {
    let (session, told) = with_transcript(config("tick")).await;
    session.save_snapshot("boot").await.unwrap();
    session.load_snapshot("boot").await.unwrap();
    told.commands();
    let mut debugger = Debugger::attach(&session);
    debugger.monitor("savevm more");
    heard_that_it_runs(&session, false).await;
    let error = session.save_snapshot("more").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error:?}");
    let (commands, _) = told.commands();
    assert!(
        !commands.iter().any(|name| name == "snapshot-save"),
        "{commands:?}"
    );

    session.load_snapshot("boot").await.unwrap();
    told.commands();
    debugger.detach();
    heard_that_it_runs(&session, true).await;
    session.load_snapshot("boot").await.unwrap();
    let (commands, _) = told.commands();
    assert!(
        commands.iter().any(|name| name == "query-block"),
        "{commands:?}"
    );
    check_put_back(&session).await;
}

/// Of a guest that stands nothing is heard. What is remembered is wrong then; the failure shows it,
/// and what there is now counts.
#[tokio::test]
async fn what_a_debugger_does_is_found_when_it_matters() {
    let (session, told) = with_transcript(config("tick")).await;
    for name in ["boot", "other"] {
        session.save_snapshot(name).await.unwrap();
        session.load_snapshot(name).await.unwrap();
    }
    session.pause().await.unwrap();
    let mut debugger = Debugger::attach(&session);
    debugger.monitor("delvm boot;1;running");
    told.commands();
    let error = session.load_snapshot("boot").await.unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Missing { available, .. } if available == &["other"]),
        "{error:?}"
    );
    assert!(
        told.commands().0.iter().any(|name| name == "snapshot-load"),
        "it went by memory"
    );
    assert_eq!(
        session.query_status().await.unwrap().status,
        RunState::Paused,
        "as before"
    );

    session.load_snapshot("other").await.unwrap();
    debugger.monitor("savevm boot;1;paused");
    told.commands();
    // QEMU has this tag: the save fails, and what was there without the session's knowledge is
    // kept.
    let error = session.save_snapshot("boot").await.unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error:?}");
    assert_eq!(
        told.commands()
            .0
            .iter()
            .filter(|name| *name == "snapshot-save")
            .count(),
        1
    );
    session.save_snapshot("boot").overwrite().await.unwrap();
    let names: Vec<_> = session
        .list_snapshots()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["other", "boot"]);
    debugger.detach();
    check_put_back(&session).await;
}
