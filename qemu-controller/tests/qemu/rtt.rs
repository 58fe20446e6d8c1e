//! RTT on real QEMU: a control block that comes late, moves, is damaged, and firmware that floods,
//! skips, resets, exits and locks up.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qemu_controller::rtt::{Rtt, RttError, RttMode};
use qemu_controller::{QemuConfig, Semihosting, Serial, Session, Verdict};

use crate::support::{DEADLINE, long};

fn firmware() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rtt/rtt.elf")
}

fn config(rtt: Rtt) -> QemuConfig {
    QemuConfig::default()
        .firmware(firmware())
        .semihosting(Semihosting::console())
        .rtt(rtt)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE)
}

async fn start(rtt: Rtt) -> (Session, Serial) {
    let session = Session::start(config(rtt)).await.unwrap();
    let terminal = session.rtt(0).unwrap();
    (session, terminal)
}

async fn ask(terminal: &Serial, letter: &str, answer: &str) {
    terminal.write(letter.as_bytes()).await.unwrap();
    terminal.expect(answer).await.unwrap();
}

fn lines(count: u32) -> Vec<u8> {
    let lines = (0..count).map(|line| format!("line {line:08}\n"));
    lines.collect::<String>().into_bytes()
}

#[tokio::test]
async fn a_blocking_channel_loses_nothing() {
    let (session, terminal) = start(Rtt::default()).await;
    assert_eq!(terminal.line().await.unwrap(), "boot 00000001");
    terminal.write(b"f").await.unwrap();
    let all = terminal.expect("flooded\n").await.unwrap();
    // The port keeps 1 MiB, which is more than that.
    assert_eq!(all.before.len(), lines(20_000).len());
    assert!(all.before == lines(20_000), "all lines, in order");
    ask(&terminal, "ae", "<a>\n<e>\n").await;
    let status = session.rtt_status().unwrap();
    assert_eq!(
        (status.found, status.restarts, &status.problem),
        (1, 0, &None)
    );
    let names: Vec<_> = status
        .channels
        .iter()
        .map(|c| (c.name.as_deref(), c.mode))
        .collect();
    assert_eq!(
        names,
        [
            (Some("Terminal"), RttMode::Block),
            (Some("Skipping"), RttMode::Skip),
            (Some("Trimming"), RttMode::Trim),
            (Some("Terminal"), RttMode::Skip),
        ]
    );
    let by_name = session.rtt_named("Terminal").await.unwrap();
    ask(&by_name, "e", "<e>\n").await;
}

/// The figures of a long flood, for who measures.
pub(crate) fn told(way: &str, lines: u32, bytes: usize, took: Duration) {
    let rate = bytes as f64 / 1024.0 / took.as_secs_f64();
    eprintln!("{way}: {lines} lines whole, {rate:.0} KB/s of text, in {took:?}");
}

/// At full speed for ten seconds; in CI for one.
#[tokio::test]
async fn a_flood_is_whole_for_as_long_as_it_lasts() {
    let (_session, terminal) = start(Rtt::default()).await;
    terminal.expect("boot 00000001\n").await.unwrap();
    let lasts = Duration::from_secs(if long() { 10 } else { 1 });
    let since = Instant::now();
    terminal.write(b"F").await.unwrap();
    let (mut line, mut bytes) = (0_u32, 0);
    while since.elapsed() < lasts {
        let text = terminal.line().await.unwrap();
        assert_eq!(text, format!("line {line:08}"));
        line += 1;
        bytes += text.len() + 1;
    }
    assert_eq!(terminal.dropped(), 0);
    assert!(bytes > 10_000, "{bytes} bytes in {lasts:?}");
    told("rtt, C", line, bytes, lasts);
}

/// What QEMU has been asked for when a future is dropped is out of the ring, and comes all the same.
#[tokio::test]
async fn a_drain_that_is_dropped_loses_nothing() {
    let (session, terminal) = start(Rtt::default()).await;
    terminal.expect("boot 00000001\n").await.unwrap();
    terminal.write(b"f").await.unwrap();
    let dropping = async {
        for polls in (1..6).cycle() {
            test_support::drop_after(polls, session.drain_rtt()).await;
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::select! {
        all = terminal.expect("flooded\n") => all.unwrap(),
        () = dropping => unreachable!("it goes on"),
    };
    assert!(all.before == lines(20_000), "all lines, in order");
}

/// Whole lines at least: what is skipped is skipped as a whole, and counted where it can be.
#[tokio::test]
async fn a_skipping_channel_has_whole_lines_and_a_count() {
    let (session, terminal) = start(Rtt::default()).await;
    let skipping = session.rtt(1).unwrap();
    ask(&terminal, "s", "skipped\n").await;
    session.drain_rtt().await.unwrap();
    let text = String::from_utf8(skipping.take()).unwrap();
    let numbers: Vec<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("line "))
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(
        numbers.is_sorted() && numbers.len() < 20_000,
        "{}",
        numbers.len()
    );
    ask(&terminal, "t", "trimmed\n").await;
    let status = session.rtt_status().unwrap();
    let full = |number| {
        status
            .channels
            .iter()
            .find(|c| c.is_up && c.number == number)
            .unwrap()
            .full
    };
    assert!(full(2) > 0 && full(0) == 0, "{status:?}");
}

/// A channel that the firmware has as one that skips waits when it is told to.
#[tokio::test]
async fn a_channel_can_be_made_to_wait() {
    let (session, terminal) = start(Rtt::default().blocking(2)).await;
    terminal.expect("boot").await.unwrap();
    // From its first round on it is a waiting one.
    let mut status = session.watch_rtt().unwrap();
    status.wait_for(|status| status.found > 0).await.unwrap();
    session.drain_rtt().await.unwrap();
    ask(&terminal, "t", "trimmed\n").await;
    session.drain_rtt().await.unwrap();
    assert!(session.rtt(2).unwrap().take().starts_with(&lines(20_000)));
}

#[tokio::test]
async fn it_is_found_by_a_search_and_where_it_moves_to() {
    let (session, terminal) = start(Rtt::default().search()).await;
    terminal.expect("boot 00000001\n").await.unwrap();
    let first = session.rtt_status().unwrap().address;
    assert_eq!(
        first,
        Some(
            session
                .firmware_info()
                .unwrap()
                .raw_symbol("_SEGGER_RTT")
                .unwrap()
                .address
        )
    );
    ask(&terminal, "m", "moved\n").await;
    let second = session.rtt_status().unwrap();
    assert_ne!(second.address, first);
    assert_eq!(second.found, 2);
    let at = Rtt::default().at(first.unwrap());
    let (_session, terminal) = start(at).await;
    terminal.expect("boot 00000001\n").await.unwrap();
}

#[tokio::test]
async fn damage_is_said_and_harms_nothing_else() {
    for (letter, answer, problem) in [
        (
            "b",
            "wild\n",
            "up channel 1: its buffer of 64 bytes at 0x4000c000 is not in the guest's RAM",
        ),
        (
            "z",
            "huge\n",
            "up channel 1: its size of 4294967280 bytes is none",
        ),
        (
            "o",
            "outside\n",
            "up channel 1: its offsets (write 1000, read 0) are not in its buffer of 64 bytes",
        ),
    ] {
        let (session, terminal) = start(Rtt::default()).await;
        terminal.expect("boot").await.unwrap();
        ask(&terminal, letter, answer).await;
        let mut status = session.watch_rtt().unwrap();
        status
            .wait_for(|status| status.problem.as_deref() == Some(problem))
            .await
            .unwrap();
        ask(&terminal, "w", "whole\n").await;
        ask(&terminal, "a", "<a>\n").await;
    }
    let (session, terminal) = start(Rtt::default()).await;
    terminal.expect("boot").await.unwrap();
    terminal.write(b"c").await.unwrap();
    let mut status = session.watch_rtt().unwrap();
    let counts = |status: &qemu_controller::rtt::RttStatus| {
        let problem = status.problem.as_deref().unwrap_or_default();
        status.address.is_none() && problem.contains("an impossible number of channels")
    };
    let seen = tokio::time::timeout(DEADLINE, status.wait_for(counts)).await;
    assert!(seen.is_ok());
}

#[tokio::test]
async fn a_firmware_that_resets_goes_on_in_the_same_channel() {
    let (session, terminal) = start(Rtt::default()).await;
    terminal.expect("boot 00000001\n").await.unwrap();
    for boot in 2..6 {
        terminal.write(b"r").await.unwrap();
        terminal.expect(format!("boot {boot:08}\n")).await.unwrap();
        ask(&terminal, "a", "<a>\n").await;
    }
    let status = session.rtt_status().unwrap();
    assert!(status.found + status.restarts > 1, "{status:?}");
}

/// What was printed just before the end is there, whatever the end was.
#[tokio::test]
async fn the_last_words_are_not_lost() {
    type Expected = fn(&Verdict) -> bool;
    let ends: [(&str, &[u8], Expected); 3] = [
        ("x", b"bye\n", |verdict| {
            matches!(verdict, Verdict::Exited { status: 0 })
        }),
        ("l", b"locking up\n", |verdict| {
            matches!(verdict, Verdict::LockedUp { .. })
        }),
        ("r", b"resetting\n", |verdict| {
            matches!(verdict, Verdict::Reset)
        }),
    ];
    for (letter, words, expected) in ends {
        let session = Session::start(config(Rtt::default()).no_reboot(true))
            .await
            .unwrap();
        let terminal = session.rtt(0).unwrap();
        terminal.expect("boot").await.unwrap();
        terminal.write(letter.as_bytes()).await.unwrap();
        let verdict = session.run_to_end(DEADLINE).await;
        assert!(expected(&verdict), "{letter}: {verdict}");
        assert!(terminal.take().ends_with(words), "{letter}");
    }
}

#[tokio::test]
async fn a_snapshot_has_its_channels() {
    let (session, terminal) = start(Rtt::default()).await;
    terminal.expect("boot 00000001\n").await.unwrap();
    session.save_snapshot("booted").await.unwrap();
    for _ in 0..10 {
        terminal.write(b"f").await.unwrap();
        terminal.expect("line 00000100").await.unwrap();
        session.load_snapshot("booted").await.unwrap();
        session.resume().await.unwrap();
        terminal.take();
        ask(&terminal, "a", "<a>\n").await;
    }
    let fork = session.fork(1).await.unwrap().remove(0);
    fork.resume().await.unwrap();
    ask(&fork.rtt(0).unwrap(), "z", "huge\n").await;
    ask(&terminal, "b", "wild\n").await;
}

#[tokio::test]
async fn what_there_is_not_is_said() {
    let session = Session::start(config(Rtt::default()).with_spec(|spec| spec))
        .await
        .unwrap();
    let error = session.rtt(32).unwrap_err().to_string();
    assert_eq!(error, "there is no channel 32: RTT channels are 0 to 31");
    let soon = session.with_deadline(Duration::from_millis(300));
    let error = soon.rtt_named("other").await.unwrap_err().to_string();
    assert!(
        error.contains("there are: Terminal, Skipping, Trimming"),
        "{error}"
    );
    session.stop().await.unwrap();
    let after = session.rtt(7).unwrap();
    after.closed().await;
    // An image without any, and a session that was not asked to.
    let session = Session::start(
        QemuConfig::default()
            .firmware(crate::support::image("tick"))
            .rtt(Rtt::default()),
    );
    let session = session
        .await
        .unwrap()
        .with_deadline(Duration::from_millis(300));
    let error = session.rtt_named("x").await.unwrap_err().to_string();
    assert!(error.contains("no control block was found"), "{error}");
    let at = Rtt::default().at(0x4000_c000);
    let session = Session::start(config(at)).await.unwrap();
    let mut status = session.watch_rtt().unwrap();
    let found = status
        .wait_for(|status| status.problem.is_some())
        .await
        .unwrap()
        .clone();
    assert!(found.problem.unwrap().contains("is not in the guest's RAM"));
    let session = crate::support::start("tick").await;
    assert!(matches!(session.rtt(0), Err(RttError::NotConfigured)));
}
