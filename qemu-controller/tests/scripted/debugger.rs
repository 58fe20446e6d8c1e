//! A debugger at a stub that lies, floods, falls silent or ends, at each packet: a typed error or a
//! stop within the deadline, and the session goes on.

use std::time::Duration;

use qemu_controller::Session;
use qemu_controller::debug::{DebugError, Stop, Until};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::peer::Peer;

/// What a session of these waits for a stub.
const PATIENCE: Duration = Duration::from_millis(200);

/// So many are at it at once.
const AT_ONCE: usize = 6;

/// Ample for a verb that asks a few questions, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// What a stub does in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Ends,
    FallsSilent,
    StopsInAPacket,
    FloodsWithPackets,
    FloodsWithRubbish,
    AnswersOk,
    AnswersAnError,
    AnswersNothing,
    AnswersAStop,
    AnswersTooMuch,
    DamagesAll,
    Echoes,
}

const FAULTS: [Fault; 12] = [
    Fault::Ends,
    Fault::FallsSilent,
    Fault::StopsInAPacket,
    Fault::FloodsWithPackets,
    Fault::FloodsWithRubbish,
    Fault::AnswersOk,
    Fault::AnswersAnError,
    Fault::AnswersNothing,
    Fault::AnswersAStop,
    Fault::AnswersTooMuch,
    Fault::DamagesAll,
    Fault::Echoes,
];

/// How the packets begin that are answered wrongly.
const PACKETS: [&str; 9] = [
    "qSupported",
    "qXfer",
    "g",
    "p",
    "m",
    "M",
    "Z",
    "c",
    "vCont;s",
];

const TARGET: &str = "<target><architecture>arm</architecture><feature name=\"org.gnu.gdb.arm.m-profile\">\
    <reg name=\"sp\" bitsize=\"32\"/><reg name=\"lr\" bitsize=\"32\"/><reg name=\"pc\" bitsize=\"32\"/>\
    <reg name=\"xpsr\" bitsize=\"32\"/></feature></target>";

fn framed(payload: &str) -> Vec<u8> {
    let sum = payload.bytes().fold(0_u8, u8::wrapping_add);
    format!("${payload}#{sum:02x}").into_bytes()
}

/// What QEMU's stub would answer.
fn answer(packet: &str) -> String {
    match packet {
        "?" | "c" => "T05thread:p01.01;".to_owned(),
        "g" => "00010020".repeat(4),
        _ if packet.starts_with("vCont;") => "T05thread:p01.01;".to_owned(),
        _ if packet.starts_with("qSupported") => {
            "PacketSize=1000;qXfer:features:read+;vContSupported+;multiprocess+".to_owned()
        }
        _ if packet.starts_with("qXfer:features:read:target.xml:0,") => format!("l{TARGET}"),
        _ if packet.starts_with('p') => "00010020".to_owned(),
        _ if packet.starts_with('m') => {
            let length = packet.rsplit(',').next().unwrap();
            "00".repeat(usize::from_str_radix(length, 16).unwrap())
        }
        _ if packet.starts_with(['M', 'P', 'Z', 'z', 'H']) => "OK".to_owned(),
        _ => String::new(),
    }
}

/// Serves one client; false when the stub has ended.
async fn serve(mut stream: TcpStream, fault: Fault, at: &str) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let packet = loop {
            let begin = bytes.iter().position(|&byte| byte == b'$');
            let end = bytes.iter().position(|&byte| byte == b'#');
            if let (Some(begin), Some(end)) = (begin, end)
                && bytes.len() >= end + 3
            {
                let packet = String::from_utf8_lossy(&bytes[begin + 1..end]).into_owned();
                bytes.drain(..end + 3);
                break packet;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        stream.write_all(b"+").await?;
        if !packet.starts_with(at) {
            stream.write_all(&framed(&answer(&packet))).await?;
            continue;
        }
        let wrong = match fault {
            Fault::Ends => return Ok(()),
            Fault::FallsSilent => continue,
            Fault::StopsInAPacket => b"$0001".to_vec(),
            Fault::FloodsWithPackets => framed("O4142").repeat(100_000),
            Fault::FloodsWithRubbish => vec![b'A'; 4_000_000],
            Fault::AnswersOk => framed("OK"),
            Fault::AnswersAnError => framed("E22"),
            Fault::AnswersNothing => framed(""),
            Fault::AnswersAStop => framed("T05thread:p01.01;"),
            Fault::AnswersTooMuch => framed(&"ff".repeat(300_000)),
            Fault::DamagesAll => b"$OK#00".repeat(10),
            Fault::Echoes => framed(&packet),
        };
        stream.write_all(&wrong).await?;
    }
}

/// A monitor of a stopped guest, with this stub.
async fn monitor(mut peer: Peer, stub: String) {
    while let Some(command) = peer.hear_or_end().await {
        let value = match command.name.as_str() {
            "query-chardev" => json!([{ "label": "gdb", "filename": stub, "frontend-open": true }]),
            "query-target" => json!({ "arch": "arm" }),
            "query-status" => json!({ "status": "paused", "running": false }),
            _ => {
                peer.answer_to(&command).await;
                continue;
            }
        };
        peer.reply(&command, value).await;
    }
}

/// Each verb once, whatever the one before came to.
async fn use_debugger(session: &Session) -> Vec<Result<(), DebugError>> {
    let stopped = |stop: Result<Stop, DebugError>| stop.map(drop);
    let mut debugger = match session.debugger().await {
        Ok(debugger) => debugger,
        Err(error) => return vec![Err(error)],
    };
    vec![
        debugger.read_registers().await.map(drop),
        debugger.read_register("xpsr").await.map(drop),
        debugger.write_register("lr", 1).await,
        debugger.read_memory(0, 5000).await.map(drop),
        // What the stub has everywhere: a write is looked at on QEMU before 10.
        debugger.write_memory(0, &[0; 5000]).await,
        stopped(debugger.step_instruction().await),
        stopped(
            debugger
                .run_until([Until::reaches(0x2000_0100)], PATIENCE)
                .await,
        ),
        stopped(
            debugger
                .run_until([Until::writes(0x100, 4), Until::faults()], PATIENCE)
                .await,
        ),
    ]
}

async fn check(
    fault: Fault,
    packet: &'static str,
    patience: Duration,
) -> Vec<Result<(), DebugError>> {
    let what = format!("{fault:?} at {packet}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stub = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that has hung up ends it.
            let _ = serve(stream, fault, packet).await;
        }
    });
    let (mut peer, session) = Peer::new();
    let (session, ()) = tokio::join!(session, peer.handshake());
    let session = session.unwrap().with_deadline(patience);
    let filename = format!("disconnected:tcp:{address},server=on");
    let monitor = tokio::spawn(monitor(peer, filename));
    let results = timeout(SOON, use_debugger(&session)).await;
    let results = results.unwrap_or_else(|_| panic!("{what}: still at it"));
    // The session has nothing to do with it.
    let status = timeout(SOON, session.query_status()).await.unwrap();
    assert!(!status.unwrap().running, "{what}");
    drop(session);
    monitor.abort();
    stub.abort();
    results
}

/// What cannot be told from a right answer.
fn is_harmless(fault: Fault, packet: &str) -> bool {
    match fault {
        Fault::AnswersOk => matches!(packet, "M" | "Z"),
        Fault::AnswersAStop => matches!(packet, "c" | "vCont;s"),
        _ => false,
    }
}

#[tokio::test]
async fn a_stub_that_does_wrong_at_any_packet_is_an_error_in_time() {
    // One that does nothing wrong, to begin with: at a packet that is never sent.
    let results = check(Fault::Ends, "never", SOON).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut all = FAULTS
        .iter()
        .flat_map(|fault| PACKETS.iter().map(move |packet| (*fault, *packet)));
    let mut checks = JoinSet::new();
    loop {
        while checks.len() < AT_ONCE
            && let Some((fault, packet)) = all.next()
        {
            checks.spawn(async move { (fault, packet, check(fault, packet, PATIENCE).await) });
        }
        let Some(checked) = checks.join_next().await else {
            break;
        };
        let (fault, packet, results) = checked.unwrap();
        let what = format!("{fault:?} at {packet}: {results:?}");
        assert!(
            is_harmless(fault, packet) || results.iter().any(Result::is_err),
            "{what}"
        );
        for error in results.into_iter().filter_map(Result::err) {
            assert!((1..2000).contains(&error.to_string().len()), "{what}");
        }
    }
}
