//! QEMU's end, from every cause: who waits learns at once, how.

use std::time::{Duration, Instant};

use qemu_controller::{Address, CommandError, Endpoint, ExitKind, Session, SessionEnd, StoppedBy};
use qemu_launch::{Monitor, Semihosting};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{DEADLINE, config, gone, processes_with, start};

fn signal(session: &Session, signal: Signal) {
    let pid = Pid::from_raw(session.pid().unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

fn exit_kind(ended: &SessionEnd) -> &ExitKind {
    let SessionEnd::Exited(exit) = ended else {
        panic!("not an exit: {ended}")
    };
    exit.kind()
}

#[tokio::test]
async fn every_waiter_hears_of_a_kill() {
    for killer in [Signal::KILL, Signal::SEGV, Signal::ABORT] {
        let session = start("tick").await;
        let event = session.wait_for_event("an event that never comes", |_| false);
        let mut events = session.events();
        signal(&session, killer);
        let ended = session.ended().await;
        let SessionEnd::Exited(exit) = &ended else {
            panic!("not an exit: {ended}")
        };
        assert_eq!(exit.signal(), Some(killer.as_raw()));
        assert!(matches!(event.await, Err(CommandError::Ended { .. })));
        assert!(events.next().await.is_none());
        assert!(matches!(
            session.query_status().await,
            Err(CommandError::Ended { .. })
        ));
        assert_eq!(session.stop().await.unwrap().by, StoppedBy::Itself);
        assert!(gone(session.pid().unwrap()).await);
    }
}

#[tokio::test]
async fn a_command_in_flight_hears_of_a_kill() {
    let session = start("tick").await;
    // A stopped process takes the command and never answers.
    signal(&session, Signal::STOP);
    let asked = tokio::spawn({
        let session = session.clone();
        async move { session.query_status().await }
    });
    tokio::task::yield_now().await;
    signal(&session, Signal::KILL);
    let error = asked.await.unwrap().unwrap_err();
    assert!(
        matches!(error.ended(), Some(SessionEnd::Exited(exit)) if exit.signal() == Some(9)),
        "{error}"
    );
}

#[tokio::test]
async fn a_lockup_comes_with_its_registers() {
    let session = Session::start(config("lockup").wait_for_gdb(true))
        .await
        .unwrap();
    // Its answer may be lost with QEMU.
    let _ = session.resume().await;
    let ended = session.ended().await;
    assert!(matches!(exit_kind(&ended), ExitKind::Lockup(_)), "{ended}");
}

#[tokio::test]
async fn a_reset_request_ends_a_qemu_that_may_not_reboot() {
    let session = Session::start(
        config("reset-request")
            .with_spec(|spec| spec.no_reboot())
            .wait_for_gdb(true),
    )
    .await
    .unwrap();
    let shutdown = session.wait_for_event("SHUTDOWN", |event| event.name == "SHUTDOWN");
    let _ = session.resume().await;
    let reason: serde_json::Value = shutdown.await.unwrap().data.unwrap().parse().unwrap();
    assert_eq!(reason["reason"], "guest-reset");
    assert_eq!(exit_kind(&session.ended().await), &ExitKind::Exited(0));
}

#[tokio::test]
async fn a_semihosting_exit_has_the_guest_s_status_and_no_event() {
    let session = Session::start(
        config("semihosting-exit")
            .with_spec(|spec| spec.semihosting(Semihosting::full()))
            .wait_for_gdb(true),
    )
    .await
    .unwrap();
    let mut events = session.events();
    // Its answer may be lost with QEMU.
    let _ = session.resume().await;
    let ended = session.ended().await;
    assert_eq!(exit_kind(&ended), &ExitKind::Exited(7));
    while let Some(event) = events.next().await {
        assert_eq!(event.unwrap().name, "RESUME");
    }
    let stopped = session.stop().await.unwrap();
    assert_eq!(stopped.by, StoppedBy::Itself);
    let said = stopped.exit.unwrap().stderr().to_string_lossy();
    assert!(said.contains("hello by semihosting"), "{said}");
}

#[tokio::test]
async fn a_loop_in_the_fault_handler_is_a_guest_that_runs() {
    let session = start("hardfault-loop").await;
    let serial = session.serial(0).unwrap();
    serial.expect_within("hard fault", DEADLINE).await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    session.pause().await.unwrap();
    session.resume().await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    assert_eq!(session.stop().await.unwrap().by, StoppedBy::Quit);
}

/// Sees that QEMU ends with status 0 and this reason, and that everybody learns of it.
async fn check_shutdown(session: &Session, reason: &str, end: impl Future<Output = ()>) {
    let shutdown = session.wait_for_event("SHUTDOWN", |event| event.name == "SHUTDOWN");
    let never = session.wait_for_event("an event that never comes", |_| false);
    end.await;
    let data: serde_json::Value = shutdown.await.unwrap().data.unwrap().parse().unwrap();
    assert_eq!(data["reason"], reason);
    let ended = session.ended().await;
    assert_eq!(exit_kind(&ended), &ExitKind::Exited(0));
    assert!(matches!(never.await, Err(CommandError::Ended { .. })));
    let error = session.query_status().await.unwrap_err();
    assert!(
        matches!(error.ended(), Some(SessionEnd::Exited(exit)) if exit.success()),
        "{error}"
    );
    assert_eq!(session.stop().await.unwrap().by, StoppedBy::Itself);
    assert!(gone(session.pid().unwrap()).await);
}

#[tokio::test]
async fn another_client_quits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("second.sock");
    let second = Monitor::Qmp(Endpoint::Socket(path.clone()));
    let session = Session::start(config("tick").with_spec(|spec| spec.monitor(second)))
        .await
        .unwrap();
    let other = Session::attach(Address::Socket(path), DEADLINE)
        .await
        .unwrap();
    check_shutdown(&session, "host-qmp-quit", async {
        assert_eq!(other.stop().await.unwrap().by, StoppedBy::Quit);
    })
    .await;
    assert!(matches!(other.ended().await, SessionEnd::Closed));
}

/// A wrapper that does not `exec` is what is killed; QEMU is its child.
#[tokio::test]
async fn a_qemu_that_is_no_direct_child_ends_too() {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("qemu-system-arm");
    let script = "#!/bin/sh\nqemu-system-arm \"$@\" &\nwait\n";
    test_support::write_program(&wrapper, script, 0o700);
    for end in ["stop", "drop", "wrapper dies"] {
        let marker = format!("marker-wrapped-{}", std::process::id());
        let wrapped = config("tick").qemu(&wrapper).extra_args(["-name", &marker]);
        let session = Session::start(wrapped).await.unwrap();
        let wrapper = session.pid().unwrap();
        match end {
            "stop" => drop(session.stop().await.unwrap()),
            "drop" => drop(session),
            _ => {
                signal(&session, Signal::KILL);
                session.ended().await;
            }
        }
        assert!(gone(wrapper).await, "{end}");
        let until = Instant::now() + DEADLINE;
        while !processes_with(&marker).is_empty() {
            assert!(
                Instant::now() < until,
                "{end} left {:?}",
                processes_with(&marker)
            );
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_sigterm_from_outside() {
    let session = start("tick").await;
    check_shutdown(&session, "host-signal", async {
        signal(&session, Signal::TERM);
    })
    .await;
}

#[tokio::test]
async fn stop_climbs_as_far_as_it_must() {
    let session = start("tick").await;
    let (one, two) = tokio::join!(session.stop(), session.stop());
    assert_eq!(
        (one.unwrap().by, two.unwrap().by),
        (StoppedBy::Quit, StoppedBy::Quit)
    );
    assert_eq!(
        session.stop().await.unwrap().by,
        StoppedBy::Quit,
        "the same answer for whoever asks later"
    );

    let session =
        Session::start(config("tick").stop_policy(Duration::from_millis(200), DEADLINE, DEADLINE))
            .await
            .unwrap();
    signal(&session, Signal::STOP);
    let stopped = session.stop().await.unwrap();
    assert!(
        matches!(stopped.by, StoppedBy::Terminate | StoppedBy::Kill),
        "{stopped}"
    );
    assert!(gone(session.pid().unwrap()).await);
}

#[tokio::test]
async fn the_last_handle_takes_qemu_with_it() {
    let session = start("tick").await;
    let pid = session.pid().unwrap();
    let clone = session.clone();
    drop(session);
    clone.query_status().await.unwrap();
    drop(clone);
    assert!(gone(pid).await);
}

#[test]
fn qemu_outlives_a_runtime_that_is_dropped() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let session = first.block_on(start("tick"));
    drop(first);
    runtime().block_on(async {
        let error = session.query_status().await.unwrap_err();
        assert!(
            matches!(error.ended(), Some(SessionEnd::RuntimeGone)),
            "{error}"
        );
        let process = session.process().unwrap();
        assert!(
            process.try_wait().is_none(),
            "QEMU lives while its handle does"
        );
        let stopped = session.stop().await.unwrap();
        assert_eq!(
            stopped.by,
            StoppedBy::Terminate,
            "nobody is left to send quit"
        );
    });
}
