//! A start that cannot work says why, soon, and leaves nothing behind.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use qemu_controller::{Endpoint, QemuConfig, Session, StartError};

use crate::support::{DEADLINE, chain, config, processes_with};
use test_support::write_program;

/// Starts it, and sees that it fails with these words and without leaving a process.
async fn check(config: QemuConfig, name: &str, words: &[&str]) -> StartError {
    let marker = format!("marker-{name}-{}", std::process::id());
    let since = Instant::now();
    let error = Session::start(config.extra_args(["-name", &marker]))
        .await
        .unwrap_err();
    // Not a matter of speed: a failed start that takes its deadline has missed QEMU's end.
    assert!(
        since.elapsed() < DEADLINE,
        "{name} took {:?}",
        since.elapsed()
    );
    let text = chain(&error);
    for word in words {
        assert!(text.contains(word), "{name}: no '{word}' in: {text}");
    }
    // A QEMU that was killed just now may take a moment.
    let until = Instant::now() + DEADLINE;
    while !processes_with(&marker).is_empty() {
        assert!(
            Instant::now() < until,
            "{name} left {:?}",
            processes_with(&marker)
        );
        tokio::task::yield_now().await;
    }
    error
}

fn firmware(path: impl AsRef<Path>) -> QemuConfig {
    QemuConfig::default()
        .gdb(Endpoint::free_port())
        .start_deadline(DEADLINE)
        .firmware(path.as_ref())
}

#[tokio::test]
async fn firmware_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
        path
    };
    check(
        firmware(folder.path().join("missing.elf")),
        "missing",
        &["missing.elf"],
    )
    .await;
    check(firmware(folder.path()), "folder", &["folder"]).await;
    check(
        firmware(write("empty.elf", b"")),
        "empty",
        &["empty.elf", "empty"],
    )
    .await;
    check(
        firmware(write("text.elf", b"int main(void) { return 0; }\n")),
        "text",
        &["text.elf", "ELF"],
    )
    .await;
    // This test program itself.
    let host = std::env::current_exe().unwrap();
    check(firmware(host), "host", &["64 bit"]).await;
}

#[tokio::test]
async fn what_qemu_itself_refuses_comes_with_its_own_words() {
    let error = check(
        config("tick").machine("no-such-board"),
        "machine",
        &["no-such-board", "unsupported machine type"],
    )
    .await;
    assert!(
        matches!(&error, StartError::Exited { exit, .. } if exit.code() == Some(1)),
        "{error:?}"
    );
    check(config("tick").cpu("no-such-cpu"), "cpu", &["no-such-cpu"]).await;
    check(
        config("tick").extra_args(["-rtc", "base=never"]),
        "option",
        &["never"],
    )
    .await;

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    check(
        config("tick").gdb(Endpoint::loopback(port)),
        "port",
        &["Address already in use", &port.to_string()],
    )
    .await;
}

#[tokio::test]
async fn a_qemu_that_is_not_there() {
    check(
        config("tick").qemu("/no/such/qemu"),
        "no-qemu",
        &["/no/such/qemu"],
    )
    .await;
    check(
        config("tick").qemu("/etc/passwd"),
        "not-executable",
        &["/etc/passwd"],
    )
    .await;
}

#[tokio::test]
async fn a_session_needs_a_monitor_that_can_be_found() {
    check(
        config("tick").with_spec(|spec| spec.without_qmp()),
        "no-monitor",
        &["QMP"],
    )
    .await;
    check(
        config("tick").qmp(Endpoint::free_port()),
        "free-port",
        &["name a port"],
    )
    .await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let marker = format!("marker-given-up-{}", std::process::id());
    for polls in 0..12 {
        let mut start = Box::pin(Session::start(
            config("tick").extra_args(["-name", &marker]),
        ));
        let mut left = polls;
        std::future::poll_fn(|cx| {
            if left == 0 || start.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
            left -= 1;
            std::task::Poll::Pending
        })
        .await;
    }
    let until = Instant::now() + DEADLINE;
    while !processes_with(&marker).is_empty() {
        assert!(
            Instant::now() < until,
            "left: {:?}",
            processes_with(&marker)
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_qemu_that_is_to_keep_running_needs_a_session_first() {
    // Nobody could ever reach it.
    check(
        config("tick").keep_running(true),
        "kept",
        &["keeps running", "socket pair"],
    )
    .await;
    // It was never ready, so it is not kept.
    let folder = tempfile::tempdir().unwrap();
    let reachable = config("tick")
        .keep_running(true)
        .qmp(Endpoint::Socket(folder.path().join("qmp.sock")));
    let error = check(
        reachable.start_deadline(Duration::from_millis(1)),
        "kept-late",
        &["1ms"],
    )
    .await;
    assert!(matches!(error, StartError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn a_monitor_that_was_closed_is_not_hung() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qemu-system-arm");
    let script = "#!/bin/bash\n[[ $* =~ id=qmp,fd=([0-9]+) ]]\neval \"exec ${BASH_REMATCH[1]}>&-\"\nexec sleep 1000\n";
    write_program(&path, script, 0o700);
    let closed = config("tick")
        .qemu(&path)
        .start_deadline(Duration::from_secs(2));
    let error = check(closed, "closed", &["monitor was closed"]).await;
    assert!(matches!(error, StartError::Ended { .. }), "{error}");
}

#[tokio::test]
async fn what_only_stderr_tells_is_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qemu-system-arm");
    let script = "#!/bin/sh\necho 'libfoo.so.1: cannot open shared object file' >&2\nexit 127\n";
    write_program(&path, script, 0o700);
    check(
        config("tick").qemu(&path),
        "stderr",
        &["status 127", "libfoo.so.1"],
    )
    .await;
}

/// QEMU's words have those of others in them: of a command line, or of a firmware.
#[tokio::test]
async fn what_qemu_says_is_escaped() {
    let config = QemuConfig::default().extra_args(["-device", "no\x1b]0;such\x07\u{202e}device"]);
    let words = ["no\\u{1b}]0;such\\u{7}\\u{202e}device"];
    let error = check(config, "escaped", &words).await;
    assert!(!error.to_string().contains(['\x1b', '\x07', '\u{202e}']));
}
