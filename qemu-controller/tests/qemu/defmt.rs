//! defmt on real QEMU: over RTT, semihosting and a UART, whole, cut off and damaged.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu_controller::defmt::{Decoded, Decoder, DefmtError, Level, Log};
use qemu_controller::rtt::Rtt;
use qemu_controller::{QemuConfig, Semihosting, Session, Verdict};

use crate::rtt::told;
use crate::support::{DEADLINE, image, long};

/// What the firmware logs first, whatever the way.
const LINES: [&str; 7] = [
    "0.000000 a line without a level",
    "0.000001 TRACE trace 0xff",
    "0.000002 DEBUG debug text, grün",
    "0.000003 INFO info Circle { radius: 300 } Square(4) Nothing",
    "0.000004 WARN warn READY | LATE b\"ab\\x00\"",
    "0.000005 ERROR error 1.5 true -9223372036854775808",
    "0.000006 DEBUG sensor at -7 of the lab",
];

fn fixture(way: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/defmt/{way}.elf"))
}

fn decoder(way: &str) -> Decoder {
    Decoder::new(&std::fs::read(fixture(way)).unwrap())
        .unwrap()
        .unwrap()
}

/// Started paused, and the lines of its defmt.
async fn start(way: &str, words: &str) -> (Session, Log) {
    let console = words.split(' ').fold(
        Semihosting::console().argument("logs"),
        Semihosting::argument,
    );
    let rtt = match way {
        "rtt" => Some(Rtt::default().blocking(0)),
        "rtt-target" => Some(Rtt::default()),
        _ => None,
    };
    let config = QemuConfig::default()
        .firmware(fixture(way))
        .semihosting(console)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);
    let config = match rtt {
        Some(rtt) => config.rtt(rtt),
        None => config,
    };
    let session = Session::start(config).await.unwrap();
    let port = match way {
        "uart" => session.serial(0).unwrap().clone(),
        "semihosting" => session.semihosting().unwrap().clone(),
        "rtt" => session.rtt(0).unwrap(),
        _ => session.rtt(2).unwrap(),
    };
    (session, Log::new(&port, decoder(way)))
}

async fn all(log: &mut Log) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(decoded) = log.next().await {
        lines.push(decoded.to_string());
    }
    lines
}

#[tokio::test]
async fn every_kind_of_line_comes_over_every_way() {
    for way in ["rtt", "semihosting", "uart", "rtt-target"] {
        let (session, mut log) = start(way, "exit").await;
        let verdict = session.run_to_end(DEADLINE).await;
        assert!(verdict.success(), "{way}: {verdict}");
        assert_eq!(all(&mut log).await, LINES, "{way}");
    }
}

#[tokio::test]
async fn a_line_has_a_level_a_time_a_message_and_a_place() {
    let (session, mut log) = start("uart", "exit").await;
    assert!(session.run_to_end(DEADLINE).await.success());
    let line = log.expect("radius", DEADLINE).await.unwrap();
    assert_eq!(
        (line.level, line.timestamp.as_deref()),
        (Some(Level::Info), Some("0.000003"))
    );
    assert_eq!(
        line.message,
        "info Circle { radius: 300 } Square(4) Nothing"
    );
    let location = line.location.unwrap();
    assert!(
        location.file.ends_with("src/main.rs") && location.line > 40,
        "{location:?}"
    );
    assert_eq!(location.module, "logs::say_all");
    let line = log.expect("sensor", DEADLINE).await.unwrap();
    assert_eq!(line.location.unwrap().module, "logs::sensors::report");
    let error = log.expect("never", DEADLINE).await.unwrap_err().to_string();
    assert!(
        error.starts_with("no line with 'never' came before the port closed"),
        "{error}"
    );
}

#[tokio::test]
async fn text_and_defmt_come_side_by_side() {
    let (session, mut log) = start("rtt-target", "exit").await;
    let verdict = session.run_to_end(DEADLINE).await;
    assert!(verdict.success(), "{verdict}");
    assert_eq!(all(&mut log).await, LINES);
    let waits = String::from_utf8(session.rtt(0).unwrap().take()).unwrap();
    let expected: String = (0..200).map(|number| format!("waits {number}\n")).collect();
    assert_eq!(waits, expected + "text is over\n");
    let skips = String::from_utf8(session.rtt(1).unwrap().take()).unwrap();
    assert!(skips.starts_with("skips 0\n"), "{skips}");
    assert_eq!(session.rtt_named("defmt").await.unwrap().take(), b"");
}

/// Ten seconds of it at full speed; in CI some thousand lines. `defmt-rtt` overwrites what nobody has
/// read, unless it is made to wait before it begins, as a watched run does.
#[tokio::test]
async fn a_flood_is_whole_over_every_way() {
    for way in ["rtt", "semihosting", "uart", "rtt-target"] {
        let count = if long() { 1_000_000 } else { 3_000 };
        let (session, mut log) = start(way, &format!("flood {count}")).await;
        let lasts = Duration::from_secs(10);
        let since = Instant::now();
        let read = async {
            log.expect(LINES[6], DEADLINE).await.unwrap();
            let mut bytes = 0;
            for number in 0..count {
                let Some(Decoded::Line(line)) = log.next().await else {
                    panic!("{way} at {number}");
                };
                assert_eq!(line.message, format!("flood {number} of many"), "{way}");
                bytes += line.to_string().len() + 1;
                if long() && since.elapsed() > lasts {
                    told(way, number, bytes, since.elapsed());
                    return;
                }
            }
            told(way, count, bytes, since.elapsed());
            log.expect("flooded", DEADLINE).await.unwrap();
        };
        tokio::select! {
            () = read => {}
            report = session.run_watched(Duration::from_secs(120), || false) => {
                assert!(report.verdict.success(), "{way}: {report}");
            }
        }
    }
}

#[tokio::test]
async fn a_panic_has_its_place() {
    let (session, mut log) = start("rtt", "panic").await;
    let read = async {
        let line = log.expect("on purpose", DEADLINE).await.unwrap();
        let place = line.panic().unwrap().unwrap().to_owned();
        assert!(place.starts_with("src/main.rs:"), "{place}");
        assert_eq!(line.message.lines().nth(1), Some("on purpose"));
    };
    tokio::select! {
        () = read => {}
        verdict = session.run_to_end(DEADLINE) => assert!(!verdict.success()),
    }
    let (session, mut log) = start("uart", "assert").await;
    session.resume().await.unwrap();
    let line = log
        .expect("panicked at 'assertion", DEADLINE)
        .await
        .unwrap();
    assert_eq!(line.panic(), Some(None), "{line}");
    drop(session);
}

/// A frame that QEMU's end cuts off is named.
#[tokio::test]
async fn a_frame_that_is_cut_off_is_named() {
    let (session, _) = start("uart", "exit").await;
    assert!(session.run_to_end(DEADLINE).await.success());
    let bytes = session.serial(0).unwrap().take();
    let mut decoder = decoder("uart");
    let whole = decoder.push(&bytes);
    assert_eq!((whole.len(), decoder.finish()), (LINES.len(), None));
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0);
    let last = ends.rev().nth(1).unwrap().0;
    for cut in 1..bytes.len() {
        let mut decoder = decoder.for_stream();
        let mut decoded = decoder.push(&bytes[..cut]);
        // As far as they go, they are the same.
        assert_eq!(decoded, whole[..decoded.len()]);
        let is_whole = bytes[cut - 1] == 0;
        let cut_off = decoder.finish();
        assert_eq!(cut_off.is_none(), is_whole, "{cut}");
        if let Some(cut_off) = cut_off {
            assert!(
                cut_off.to_string().contains("was cut off after"),
                "{cut_off}"
            );
        }
        // And behind a gap the next whole frame is found.
        decoded = decoder.for_stream().push(&bytes[cut..]);
        if cut <= last {
            assert_eq!(decoded.last(), whole.last(), "{cut}");
        }
    }
}

#[test]
fn garbage_is_no_frame_and_nothing_worse() {
    let random = &mut fastrand::Rng::with_seed(22);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for way in ["rtt", "uart"] {
        let mut decoder = decoder(way);
        let mut lines = 0;
        for _ in 0..if long() { 300_000 } else { 10_000 } {
            let length = random.usize(..64);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            // Half of them begin as a frame does.
            if random.bool() {
                bytes.splice(..0, [random.u8(..12), 0x7e]);
            }
            bytes.push(0);
            let decoded = decoder.push(&bytes);
            lines += decoded
                .iter()
                .filter(|one| matches!(one, Decoded::Line(_)))
                .count();
            let _ = decoded.iter().map(ToString::to_string).collect::<Vec<_>>();
        }
        // One without an end is given up, and what follows it is found.
        let endless = decoder.push(&vec![1; 1024 * 1024]);
        assert!(
            matches!(endless[..], [Decoded::Malformed(_)]),
            "{endless:?}"
        );
        let mut good = decoder.push(&[1, 0]);
        good.extend(decoder.push(&[0x49, 0x7e, 0]));
        assert!(
            matches!(good[..], [Decoded::Line(_)]),
            "{good:?}, {lines} lines"
        );
    }
    std::panic::set_hook(quiet);
}

#[test]
fn an_elf_without_it_or_of_another_version_is_said() {
    let none = Decoder::new(&std::fs::read(image("tick")).unwrap()).unwrap();
    assert!(none.is_none());
    assert!(Decoder::new(b"no ELF").is_err());
    let mut elf = std::fs::read(fixture("uart")).unwrap();
    let version = b"_defmt_version_ = 4";
    let at = elf
        .windows(version.len())
        .position(|window| window == version)
        .unwrap();
    elf[at + version.len() - 1] = b'9';
    let error = Decoder::new(&elf).unwrap_err();
    assert!(matches!(error, DefmtError::Table(_)));
    assert!(error.to_string().contains("firmware is using 9"), "{error}");
    // Damaged anywhere, it is words or a table.
    let random = &mut fastrand::Rng::with_seed(22);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let elf = std::fs::read(fixture("uart")).unwrap();
    for _ in 0..if long() { 1000 } else { 20 } {
        let mut damaged = elf.clone();
        for _ in 0..random.usize(1..40) {
            let at = random.usize(..damaged.len());
            damaged[at] = random.u8(..);
        }
        if let Ok(Some(mut decoder)) = Decoder::new(&damaged) {
            decoder.push(&[0x49, 0x7e, 0, 3, 1, 0xff, 0x3a, 0]);
        }
    }
    std::panic::set_hook(quiet);
}

#[tokio::test]
async fn lines_look_as_the_log_format_says() {
    let formats = [
        ("{t}|{L}|{s}", "0.000003|INFO|info Circle"),
        ("oneline", "0.000003 [INFO] info Circle"),
    ];
    for (format, expected) in formats {
        let (session, _) = start("semihosting", "exit").await;
        let mut log = Log::new(
            session.semihosting().unwrap(),
            decoder("semihosting").log_format(format).unwrap(),
        );
        let verdict = session.run_to_end(DEADLINE).await;
        let line = log.expect("Circle", DEADLINE).await.unwrap();
        let mut parts = line.text.split("\x1b[");
        let first = parts.next().unwrap().to_owned();
        let rest = parts.map(|part| part.split_once('m').unwrap().1);
        let plain = rest.fold(first, |text, part| text + part);
        assert!(
            plain
                .replace(' ', "")
                .starts_with(&expected.replace(' ', "")),
            "{plain}"
        );
        assert!(matches!(verdict, Verdict::Exited { .. }), "{verdict}");
    }
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let error = decoder("uart").log_format("{nonsense").unwrap_err();
    std::panic::set_hook(quiet);
    assert!(
        error.to_string().contains("'{nonsense' is no log format"),
        "{error}"
    );
}
