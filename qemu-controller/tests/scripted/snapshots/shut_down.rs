//! Loads into a machine that was shut down and stays, which is reset first, or that comes to a stop
//! when nobody can know of it yet: a fault at every command, a future dropped after every poll.

use std::future::IntoFuture as _;

use qemu_controller::{AfterLoad, RunState, SnapshotError};

use super::machine::{Fault, Reboot, Scene};
use test_support::drop_after;

/// A machine with a snapshot, which has been shut down by its guest.
async fn shut_down(fault: Fault, reboot: Reboot) -> Scene {
    let scene = Scene::new(fault).await;
    {
        let mut state = scene.state.lock().unwrap();
        state.tags.push("boot;1;running".to_owned());
        state.nodes.push("disk".to_owned());
        (state.shut_down, state.paused, state.reboot) = (true, true, reboot);
    }
    // The image is there from now on.
    scene.session.save_snapshot("other").await.unwrap();
    assert_eq!(
        scene.session.query_status().await.unwrap().status,
        RunState::Shutdown
    );
    scene
}

/// How many commands come before the load, and how many there are in all.
async fn commands(reboot: Reboot) -> (usize, usize) {
    let scene = shut_down(Fault::None, reboot).await;
    let before = scene.state.lock().unwrap().told.len();
    scene
        .session
        .load_snapshot("boot")
        .then(AfterLoad::Running)
        .await
        .unwrap();
    let state = scene.end().await;
    assert!(
        !state.shut_down && !state.paused && state.reboot == reboot,
        "{state:?}"
    );
    (before, state.told.len())
}

#[tokio::test(start_paused = true)]
async fn each_command_refused_in_turn() {
    for reboot in [Reboot::Resets, Reboot::ShutsDown] {
        let (before, all) = commands(reboot).await;
        for number in before..all {
            let scene = shut_down(Fault::Refuse(number), reboot).await;
            let result = scene
                .session
                .load_snapshot("boot")
                .then(AfterLoad::Running)
                .await;
            let state = scene.end().await;
            let refused = state.told[number].as_str();
            assert!(
                matches!(result, Err(SnapshotError::Command(_))),
                "{refused}: {result:?}"
            );
            // What the configuration says of a reset still holds, unless it is that which was
            // refused.
            assert!(
                state.reboot == reboot || refused == "set-action",
                "{refused}: {state:?}"
            );
            assert!(
                state.jobs.is_empty() || refused == "job-dismiss",
                "{refused}: {state:?}"
            );
        }
    }
}

/// What a reset has ended is not undone.
#[tokio::test(start_paused = true)]
async fn a_load_that_fails_leaves_it_reset() {
    for reboot in [Reboot::Resets, Reboot::ShutsDown] {
        let scene = shut_down(Fault::Job("snapshot-load"), reboot).await;
        for then in [AfterLoad::AsBefore, AfterLoad::Running] {
            let error = scene
                .session
                .load_snapshot("boot")
                .then(then)
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), "snapshot-load failed: what QEMU says");
        }
        let state = scene.end().await;
        assert!(
            !state.shut_down && state.paused && state.reboot == reboot,
            "{state:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_after_any_number_of_polls() {
    for reboot in [Reboot::Resets, Reboot::ShutsDown] {
        for polls in 0..5 {
            let scene = shut_down(Fault::None, reboot).await;
            let load = scene.session.load_snapshot("boot").then(AfterLoad::Running);
            drop_after(polls, load.into_future()).await;
            scene.session.list_snapshots().await.unwrap();
            let state = scene.end().await;
            // All of it, or nothing.
            assert_eq!(state.shut_down, polls == 0, "{polls}: {state:?}");
            assert_eq!(
                (state.paused, state.reboot),
                (polls == 0, reboot),
                "{polls}: {state:?}"
            );
        }
    }
}

/// What it is loaded for holds, though the look had said that it ran.
#[tokio::test(start_paused = true)]
async fn a_guest_that_stops_right_before_the_load() {
    for shut_down in [false, true] {
        for command in ["snapshot-load", "stop"] {
            let scene = Scene::new(Fault::StopsBefore { command, shut_down }).await;
            scene.session.save_snapshot("boot").await.unwrap();
            let what = format!("{command}, {shut_down}");
            if command == "stop" {
                scene
                    .session
                    .with_fresh_state("boot", async |_| ())
                    .await
                    .unwrap();
            } else {
                scene.session.load_snapshot("boot").await.unwrap();
            }
            assert_eq!(
                scene.session.query_status().await.unwrap().status,
                RunState::Running,
                "{what}"
            );
            // That a load is due to be settled is known.
            for then in [AfterLoad::Paused, AfterLoad::Paused, AfterLoad::Running] {
                scene
                    .session
                    .load_snapshot("boot")
                    .then(then)
                    .await
                    .unwrap();
            }
            let state = scene.end().await;
            assert!(
                state.is_loaded && !state.shut_down && !state.paused,
                "{what}: {state:?}"
            );
        }
    }
}

/// An error in the middle: the loads since are counted all the same.
#[tokio::test(start_paused = true)]
async fn a_load_of_which_the_last_command_is_refused() {
    let scene = shut_down(Fault::None, Reboot::Resets).await;
    scene
        .session
        .load_snapshot("boot")
        .then(AfterLoad::Running)
        .await
        .unwrap();
    let cont = scene
        .end()
        .await
        .told
        .iter()
        .rposition(|told| told == "cont")
        .unwrap();
    let scene = shut_down(Fault::Refuse(cont), Reboot::Resets).await;
    let result = scene
        .session
        .load_snapshot("boot")
        .then(AfterLoad::Running)
        .await;
    assert!(
        matches!(result, Err(SnapshotError::Command(_))),
        "{result:?}"
    );
    scene
        .session
        .load_snapshot("boot")
        .then(AfterLoad::Running)
        .await
        .unwrap();
    let state = scene.end().await;
    assert!(!state.paused && state.is_loaded, "{state:?}");
}
