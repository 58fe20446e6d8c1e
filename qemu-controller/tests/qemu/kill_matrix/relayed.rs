//! Before the session is ready, by `Session::attach_stream` a relay: each message of the handshake withheld
//! in turn.

use qemu_controller::{Session, SessionEnd, StartError, StartPhase, StopPolicy};
use qemu_launch::MachineSpec;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex,
};
use tokio::net::UnixStream;

use super::{SIGNALS, patience_for_a_start};
use crate::support::{Held, image};

/// Lets pass all that comes before a phase, and then nothing more.
async fn over_a_relay(phase: StartPhase, signal: Signal) {
    let mut qemu = qemu_launch::spawn_async(MachineSpec::default().firmware(image("tick")))
        .await
        .unwrap();
    let held = Held::of(qemu.pid());
    let stream = qemu.take_qmp().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = BufReader::new(UnixStream::from_std(stream).unwrap());
    let greeting = line(&mut stream).await;

    let (client, mut relay) = duplex(64 * 1024);
    let deadline = patience_for_a_start(signal).await;
    let attaching = tokio::spawn(Session::attach_stream(client, deadline));
    if phase != StartPhase::Greeting {
        relay.write_all(greeting.as_bytes()).await.unwrap();
        let asked = command(&mut relay, "qmp_capabilities").await;
        if phase == StartPhase::FirstStatus {
            stream.write_all(&asked).await.unwrap();
            let answer = line(&mut stream).await;
            relay.write_all(answer.as_bytes()).await.unwrap();
            command(&mut relay, "query-status").await;
        }
    }
    held.signal(signal).await;

    if signal == Signal::STOP {
        let error = attaching.await.unwrap().unwrap_err();
        let told = matches!(error, StartError::Deadline { phase: seen, .. } if seen == phase);
        assert!(told, "{phase:?}: {error:?}");
    } else {
        // QEMU's end comes over the socket as an end or a reset; the relay passes it on.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        drop(relay);
        let error = attaching.await.unwrap().unwrap_err();
        let told = matches!(&error, StartError::Ended { phase: seen, end: SessionEnd::Closed, .. } if *seen == phase);
        assert!(told, "{phase:?}, {signal:?}: {error:?}");
    }
    qemu.end(StopPolicy::kill()).await.unwrap();
    held.reaped().await;
}

async fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(
        line.ends_with('\n'),
        "QEMU closed its monitor after '{line}'"
    );
    line
}

/// What the session sends next, which is this command.
async fn command(relay: &mut DuplexStream, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let length = relay.read_buf(&mut bytes).await.unwrap();
        assert!(length > 0, "the session closed the stream");
        if let Ok(command) = serde_json::from_slice::<Value>(&bytes) {
            assert_eq!(command["execute"], name);
            return bytes;
        }
    }
}

async fn each_signal_over_a_relay(phase: StartPhase) {
    let [kill, stop] = SIGNALS.map(|signal| over_a_relay(phase, signal));
    tokio::join!(kill, stop);
}

#[tokio::test]
async fn before_a_relay_lets_the_greeting_pass() {
    each_signal_over_a_relay(StartPhase::Greeting).await;
}

#[tokio::test]
async fn before_a_relay_lets_the_capabilities_pass() {
    each_signal_over_a_relay(StartPhase::Negotiation).await;
}

#[tokio::test]
async fn before_a_relay_lets_the_first_status_pass() {
    each_signal_over_a_relay(StartPhase::FirstStatus).await;
}
