//! Start, ask, pause, resume, reset, stop.

use qemu_controller::{CommandError, QemuConfig, RunState, Session, StoppedBy};

use crate::support::{DEADLINE, chain, config, counter, counts, gone, image, start};

async fn prints(session: &Session, text: &str) {
    let port = session.serial(0).unwrap();
    port.expect_within(text, DEADLINE).await.unwrap();
}

async fn status(session: &Session) -> RunState {
    session.query_status().await.unwrap().status
}

#[tokio::test]
async fn the_whole_job() {
    let session = Session::start(config("tick").wait_for_gdb(true))
        .await
        .unwrap();
    assert!(session.qemu_version().major >= 7);
    assert_eq!(status(&session).await, RunState::Prelaunch);
    let cpus = session.query_cpus().await.unwrap();
    assert_eq!((cpus.len(), cpus[0].cpu_index), (1, 0));
    assert_eq!(
        counter(&session).await,
        0,
        "the guest waits for its debugger"
    );

    session.resume().await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    assert!(counts(&session).await);
    prints(&session, "boot").await;
    prints(&session, "tick 2").await;

    session.pause().await.unwrap();
    assert_eq!(status(&session).await, RunState::Paused);
    let stands = counter(&session).await;
    for _ in 0..20 {
        assert_eq!(counter(&session).await, stands);
    }

    session.resume().await.unwrap();
    session.reset().await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    prints(&session, "boot").await;

    let pid = session.pid().unwrap();
    let stopped = session.stop().await.unwrap();
    assert_eq!(stopped.by, StoppedBy::Quit);
    assert!(stopped.exit.unwrap().success());
    assert!(gone(pid).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_a_runtime_with_threads_and_another_board() {
    let config = QemuConfig::default()
        .machine("mps2-an385")
        .firmware(image("tick-mps2"))
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
        .stop_policy(DEADLINE, DEADLINE, DEADLINE);
    let session = Session::start(config).await.unwrap();
    prints(&session, "boot").await;
    session.pause().await.unwrap();
    assert_eq!(status(&session).await, RunState::Paused);
    session.resume().await.unwrap();
    session.reset().await.unwrap();
    prints(&session, "boot").await;
    assert_eq!(session.stop().await.unwrap().by, StoppedBy::Quit);
}

#[tokio::test]
async fn a_reset_of_a_paused_machine_waits_at_the_reset_vector() {
    let session = start("tick").await;
    assert!(counts(&session).await);
    session.pause().await.unwrap();
    session.reset().await.unwrap();
    assert_eq!(status(&session).await, RunState::Prelaunch);
    let stands = counter(&session).await;
    assert_eq!(counter(&session).await, stands);
    session.resume().await.unwrap();
    assert!(counts(&session).await);
}

#[tokio::test]
async fn pausing_and_resuming_twice_is_no_error() {
    let session = start("tick").await;
    for _ in 0..2 {
        session.pause().await.unwrap();
    }
    for _ in 0..2 {
        session.resume().await.unwrap();
    }
    assert!(counts(&session).await);
}

#[tokio::test]
async fn an_event_is_there_before_the_verb_that_caused_it_returns() {
    let session = start("tick").await;
    let mut events = session.events();
    for _ in 0..20 {
        session.pause().await.unwrap();
        session.resume().await.unwrap();
        session.reset().await.unwrap();
        for name in ["STOP", "RESUME", "RESET"] {
            let mut next = Box::pin(events.next());
            let now = std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx)));
            let std::task::Poll::Ready(Some(Ok(event))) = now.await else {
                panic!("{name} has not come yet")
            };
            assert_eq!(event.name, name);
        }
    }
}

#[tokio::test]
async fn commands_by_name_and_refusals() {
    let session = start("tick").await;
    let version: serde_json::Value = session
        .execute("query-version", &())
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert!(version["qemu"]["major"].as_u64().unwrap() >= 7);

    let refused = session.execute("no-such-command", &()).await.unwrap_err();
    assert!(
        matches!(&refused, CommandError::Refused { error, .. } if error.class.as_str() == "CommandNotFound"),
        "{refused}"
    );
    let refused = session.execute_oob("query-status", &()).await.unwrap_err();
    assert!(
        matches!(&refused, CommandError::Refused { .. }),
        "{refused}"
    );
    let invalid = session.execute("query-status", &[1]).await.unwrap_err();
    assert!(
        chain(&invalid).contains("JSON object"),
        "{}",
        chain(&invalid)
    );

    assert!(
        session
            .human_monitor_command("info registers")
            .await
            .unwrap()
            .contains("R15=")
    );
    for line in ["savevm boot", "no-such-command"] {
        let refused = session.human_monitor_command(line).await.unwrap_err();
        assert!(
            matches!(&refused, CommandError::HumanMonitor { .. }),
            "{refused}"
        );
    }
    session.query_status().await.unwrap();
}

#[tokio::test]
async fn many_commands_at_once_are_all_answered() {
    let session = start("tick").await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let session = session.clone();
        asked.spawn(async move { session.query_status().await.map(|status| status.running) });
    }
    let mut answered = 0;
    while let Some(running) = asked.join_next().await {
        assert!(running.unwrap().unwrap());
        answered += 1;
    }
    assert_eq!(answered, 200);
}
