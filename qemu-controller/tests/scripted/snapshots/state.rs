//! The state of a machine in memory, saved for others to continue from: a fault at every command, a
//! future dropped after every poll, an image that is not what QEMU writes.

use qemu_controller::{SessionEnd, SnapshotError, StateError};

use super::check_put_back;
use super::machine::{Fault, Scene};
use test_support::drop_after;

const CLUSTER: usize = 512;

/// What the state is in these images.
const STATE: &[u8] = b"QEVM and all that";

/// A qcow2 image of version 3 with one snapshot, whose state is in one cluster.
fn image() -> Vec<u8> {
    let mut image = vec![0; 5 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &9_u32.to_be_bytes());
    put(60, &1_u32.to_be_bytes());
    let [snapshot, l1, l2, data] = [1, 2, 3, 4].map(|cluster| cluster * CLUSTER);
    put(64, &(snapshot as u64).to_be_bytes());
    put(snapshot, &(l1 as u64).to_be_bytes());
    put(snapshot + 8, &1_u32.to_be_bytes());
    put(snapshot + 36, &16_u32.to_be_bytes());
    put(snapshot + 40, &(STATE.len() as u64).to_be_bytes());
    put(l1, &(l2 as u64).to_be_bytes());
    put(l2, &(data as u64).to_be_bytes());
    put(data, STATE);
    image
}

async fn scene(fault: Fault, image: Vec<u8>) -> Scene {
    let scene = Scene::new(fault).await;
    scene.state.lock().unwrap().image = image;
    scene
}

/// How many commands it takes.
async fn commands() -> usize {
    let scene = scene(Fault::None, image()).await;
    let saved = scene.session.save_state().await.unwrap();
    assert_eq!(
        (saved.bytes(), saved.was_running()),
        (STATE.len() as u64, true)
    );
    let state = scene.end().await;
    check_put_back(&state, "without a fault");
    assert!(state.nodes.is_empty(), "{state:?}");
    state.told.len()
}

#[tokio::test(start_paused = true)]
async fn each_command_refused_in_turn() {
    for number in 0..commands().await {
        let scene = scene(Fault::Refuse(number), image()).await;
        let result = scene.session.save_state().await;
        let mut state = scene.end().await;
        let what = format!("{} ({number}): {result:?}", state.told[number]);
        assert!(
            matches!(result, Err(StateError::Save(SnapshotError::Command(_)))),
            "{what}"
        );
        // What the refusal itself undoes is left undone, and nothing else.
        match state.told[number].clone().as_str() {
            "qom-set" => state.card_is_out = false,
            "job-dismiss" => state.jobs.clear(),
            "blockdev-del" => state.nodes.clear(),
            _ => {}
        }
        check_put_back(&state, &what);
        assert!(state.nodes.is_empty(), "{what}: {state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_at_each_command() {
    for number in 0..commands().await {
        let scene = scene(Fault::End(number), image()).await;
        let StateError::Save(error) = scene.session.save_state().await.unwrap_err() else {
            panic!("{number}")
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
    let scene = scene(Fault::Job("snapshot-save"), image()).await;
    let error = scene.session.save_state().await.unwrap_err();
    assert_eq!(error.to_string(), "snapshot-save failed: what QEMU says");
    let state = scene.end().await;
    check_put_back(&state, "snapshot-save");
    assert!(state.nodes.is_empty(), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_damaged_or_cut() {
    let cut = |length: usize| image()[..length].to_vec();
    let mut damaged = image();
    damaged[63] = 2;
    for image in [cut(4 * CLUSTER), cut(CLUSTER), b"QFI".to_vec(), damaged] {
        let scene = scene(Fault::None, image).await;
        let error = scene.session.save_state().await.unwrap_err();
        assert!(matches!(error, StateError::File { .. }), "{error:?}");
        let state = scene.end().await;
        check_put_back(&state, "damaged");
        assert!(state.nodes.is_empty(), "{state:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_after_any_number_of_polls() {
    for polls in 0..5 {
        let scene = scene(Fault::None, image()).await;
        drop_after(polls, scene.session.save_state()).await;
        // Waits for its turn: what was dropped has been finished then.
        let saved = scene.session.save_state().await.unwrap();
        assert_eq!(saved.bytes(), STATE.len() as u64);
        let state = scene.end().await;
        check_put_back(&state, &format!("{polls} polls"));
        assert!(state.nodes.is_empty(), "{polls}: {state:?}");
    }
}
