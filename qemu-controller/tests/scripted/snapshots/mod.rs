//! Snapshots against a machine in memory: a fault at every command, a future dropped after every
//! poll.

mod machine;
mod shut_down;
mod state;

use std::future::IntoFuture as _;

use qemu_controller::{AfterLoad, Session, SessionEnd, SnapshotError};

use machine::{Fault, Scene, State};
use test_support::drop_after;

async fn save_and_load(session: &Session) -> Result<(), SnapshotError> {
    session.save_snapshot("boot").await?;
    session.load_snapshot("boot").await?;
    session.save_snapshot("boot").overwrite().await?;
    session.delete_snapshot("boot").await
}

fn check_put_back(state: &State, what: &str) {
    assert!(
        !state.card_is_out && !state.paused && state.jobs.is_empty(),
        "{what}: {state:?}"
    );
}

/// How many commands all of it takes.
async fn commands() -> usize {
    let scene = Scene::new(Fault::None).await;
    save_and_load(&scene.session).await.unwrap();
    let state = scene.end().await;
    check_put_back(&state, "without a fault");
    assert!(state.tags.is_empty());
    state.told.len()
}

#[tokio::test(start_paused = true)]
async fn each_command_refused_in_turn() {
    for number in 0..commands().await {
        let scene = Scene::new(Fault::Refuse(number)).await;
        let result = save_and_load(&scene.session).await;
        let told = scene.state.lock().unwrap().told.clone();
        let what = format!("{} ({number}): {result:?}", told[number]);
        // That what was replaced is still there is no failure.
        let failed = matches!(result, Err(SnapshotError::Command(_)));
        assert!(
            failed || told[..=number].iter().any(|told| told == "snapshot-delete"),
            "{what}"
        );
        // What the refusal itself undoes is left undone, and nothing else.
        let mut state = scene.end().await;
        match told[number].as_str() {
            "qom-set" => state.card_is_out = false,
            "job-dismiss" | "query-jobs" => state.jobs.clear(),
            "cont" | "query-status" => state.paused = false,
            _ => {}
        }
        check_put_back(&state, &what);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_at_each_command() {
    for number in 0..commands().await {
        let scene = Scene::new(Fault::End(number)).await;
        let error = loop {
            if let Err(error) = save_and_load(&scene.session).await {
                break error;
            }
        };
        assert!(
            matches!(error.ended(), Some(SessionEnd::Closed)),
            "{number}: {error:?}"
        );
        scene.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails() {
    // Also where its events were missed, all of them or the last ones.
    for fault in [Fault::Job, Fault::SilentJob, Fault::LostJob] {
        let scene = Scene::new(fault("snapshot-save")).await;
        for _ in 0..2 {
            let error = scene.session.save_snapshot("boot").await.unwrap_err();
            assert_eq!(error.to_string(), "snapshot-save failed: what QEMU says");
        }
        check_put_back(&scene.end().await, "snapshot-save");
        let scene = Scene::new(fault("snapshot-load")).await;
        scene.session.save_snapshot("boot").await.unwrap();
        for then in [AfterLoad::AsBefore, AfterLoad::Paused] {
            let error = scene
                .session
                .load_snapshot("boot")
                .then(then)
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), "snapshot-load failed: what QEMU says");
            assert!(!scene.state.lock().unwrap().paused, "it runs as before");
        }
        check_put_back(&scene.end().await, "snapshot-load");
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_that_fails_leaves_the_one_that_it_was_to_replace() {
    let scene = Scene::new(Fault::Job("snapshot-save")).await;
    scene
        .state
        .lock()
        .unwrap()
        .tags
        .push("boot;7;running".to_owned());
    scene
        .session
        .save_snapshot("boot")
        .overwrite()
        .await
        .unwrap_err();
    let names: Vec<_> = scene
        .session
        .list_snapshots()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["boot"]);
    check_put_back(&scene.end().await, "overwrite");
}

#[tokio::test(start_paused = true)]
async fn events_that_were_missed() {
    let scene = Scene::new(Fault::Silent).await;
    save_and_load(&scene.session).await.unwrap();
    check_put_back(&scene.end().await, "silent");
}

#[tokio::test(start_paused = true)]
async fn a_qemu_without_snapshots() {
    let scene = Scene::new(Fault::Old).await;
    let error = scene.session.save_snapshot("boot").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "QEMU 7.2.22 has no snapshot-save; it came with QEMU 6.0"
    );
    let state = scene.end().await;
    let changed = ["blockdev", "snapshot", "qom-set"];
    assert!(
        !state
            .told
            .iter()
            .any(|told| changed.iter().any(|change| told.starts_with(change))),
        "{state:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn any_future_after_any_number_of_polls() {
    for polls in 0..5 {
        let scene = Scene::new(Fault::None).await;
        let session = &scene.session;
        for _ in 0..3 {
            drop_after(
                polls,
                session.save_snapshot("boot").overwrite().into_future(),
            )
            .await;
            // Waits for its turn: what was dropped has been finished then.
            let list = session.list_snapshots().await.unwrap();
            assert_eq!(list.len(), usize::from(polls > 0));
            check_put_back(
                &scene.state.lock().unwrap(),
                &format!("after {polls} polls"),
            );
            drop_after(polls, session.load_snapshot("boot").into_future()).await;
            drop_after(polls, session.list_snapshots()).await;
        }
        drop_after(polls, session.delete_snapshot("boot")).await;
        assert_eq!(session.list_snapshots().await.unwrap(), []);
        session.save_snapshot("boot").await.unwrap();
        check_put_back(&scene.end().await, &format!("{polls} polls"));
    }
}

/// What a load that fails has taken apart is put together, whoever waits for it.
#[tokio::test(start_paused = true)]
async fn a_load_that_fails_and_is_dropped_after_any_number_of_polls() {
    for polls in 0..8 {
        let scene = Scene::new(Fault::Job("snapshot-load")).await;
        scene.session.save_snapshot("boot").await.unwrap();
        drop_after(polls, scene.session.load_snapshot("boot").into_future()).await;
        // Waits for its turn: what was dropped has been finished then.
        scene.session.list_snapshots().await.unwrap();
        let what = format!("after {polls} polls");
        check_put_back(&scene.state.lock().unwrap(), &what);
        check_put_back(&scene.end().await, &what);
    }
}

/// A QEMU that was attached to is not left with its card out: the session waits with closing.
#[tokio::test(start_paused = true)]
async fn the_last_handle_of_an_attached_session_dropped_in_the_middle() {
    let scene = Scene::new(Fault::None).await;
    drop_after(1, scene.session.save_snapshot("boot").into_future()).await;
    let state = scene.end().await;
    check_put_back(&state, "dropped");
    assert_eq!(state.tags, ["boot;1;running"]);
}

/// The same where it is let go on purpose.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_detached_in_the_middle() {
    let scene = Scene::new(Fault::None).await;
    drop_after(1, scene.session.save_snapshot("boot").into_future()).await;
    scene.session.detach().unwrap();
    assert!(matches!(scene.session.ended().await, SessionEnd::Released));
    let state = scene.end().await;
    check_put_back(&state, "detached");
    assert_eq!(state.tags, ["boot;1;running"]);
}

/// What was printed before a restore is dropped in between.
#[tokio::test(start_paused = true)]
async fn a_case_begins_only_when_what_was_printed_before_is_dropped() {
    let scene = Scene::new(Fault::None).await;
    for _ in 0..2 {
        scene
            .session
            .with_fresh_state("boot", async |_| ())
            .await
            .unwrap();
    }
    let state = scene.end().await;
    let told = state
        .told
        .iter()
        .filter(|told| ["stop", "snapshot-load", "cont"].contains(&told.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), ["stop", "snapshot-load", "cont"]);
    check_put_back(&state, "fresh");
}

/// An image can say anything.
#[tokio::test(start_paused = true)]
async fn tags_at_the_end_of_what_can_be_counted() {
    for (tag, kept) in [
        ("boot;18446744073709551615;paused", 1),
        ("boot;+1;running;what", 1),
    ] {
        let scene = Scene::new(Fault::None).await;
        scene.state.lock().unwrap().tags.push(tag.to_owned());
        scene.session.save_snapshot("other").await.unwrap();
        scene.session.load_snapshot("boot").await.unwrap();
        scene
            .session
            .save_snapshot("boot")
            .overwrite()
            .await
            .unwrap();
        scene.session.load_snapshot("boot").await.unwrap();
        let tags = scene.end().await.tags;
        let boot: Vec<_> = tags.iter().filter(|tag| tag.starts_with("boot;")).collect();
        assert!(boot.len() == kept && boot[0] != tag, "{tags:?}");
    }
}
