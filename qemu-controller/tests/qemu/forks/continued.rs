//! What is forked continues where its parent was, by itself.

use qemu_controller::{Endpoint, QemuConfig, RunState, Session, StateError};

use super::{next_tick, serial};
use crate::snapshots::{Fingerprint, Ram, check_put_back};
use crate::support::{DEADLINE, config, counter, counts, reserved_port, start};

const RAM: Ram = Ram {
    from: 0x2000_0000,
    bytes: 8192,
};

/// SysTick's reload value, its current one, and the first UART's flags.
const PERIPHERALS: [u64; 3] = [0xe000_e014, 0xe000_e018, 0x4000_c018];

/// What a machine printed up to the end of this line, without what it was given.
async fn printed(session: &Session, input: &[u8], last_line: u32) -> Vec<u8> {
    let before = serial(session)
        .expect_within(format!("tick {last_line}\n"), DEADLINE)
        .await
        .unwrap()
        .before;
    assert_eq!(
        before.iter().filter(|byte| input.contains(byte)).count(),
        input.len(),
        "{before:?}"
    );
    before
        .into_iter()
        .filter(|byte| !input.contains(byte))
        .collect()
}

/// Twenty of them are where the parent is; each then does what the others do and answers its
/// own input.
async fn twenty(config: QemuConfig, peripherals: &[u64]) {
    let parent = Session::start(config).await.unwrap();
    serial(&parent)
        .expect_within("tick 2\n", DEADLINE)
        .await
        .unwrap();
    parent.pause().await.unwrap();
    serial(&parent).take();
    let there = Fingerprint::of(&parent, RAM, peripherals).await;
    let forks = parent.fork(20).await.unwrap();
    assert_eq!(forks.len(), 20);
    for fork in &forks {
        assert_eq!(fork.query_status().await.unwrap().status, RunState::Paused);
        assert_eq!(*fork.watch_run_state().borrow(), RunState::Paused);
        assert_eq!(Fingerprint::of(fork, RAM, peripherals).await, there);
    }
    for (fork, input) in forks.iter().zip(b'A'..) {
        serial(fork).write(&[input]).await.unwrap();
        fork.resume().await.unwrap();
    }
    let mut outputs = Vec::new();
    for (fork, input) in forks.iter().zip(b'A'..) {
        outputs.push(printed(fork, &[input], 5).await);
    }
    assert!(
        outputs.iter().all(|output| *output == outputs[0]),
        "{outputs:?}"
    );
    // And the parent has not run one instruction.
    assert_eq!(
        parent.query_status().await.unwrap().status,
        RunState::Paused
    );
    assert_eq!(Fingerprint::of(&parent, RAM, peripherals).await, there);
    parent.resume().await.unwrap();
    assert_eq!(printed(&parent, &[], 5).await, outputs[0]);
}

#[tokio::test]
async fn twenty_of_the_board_with_the_sd_card() {
    twenty(config("tick"), &PERIPHERALS).await;
}

#[tokio::test]
async fn twenty_of_a_board_without_one() {
    twenty(config("tick-mps2").machine("mps2-an385"), &PERIPHERALS[..2]).await;
}

#[tokio::test]
async fn a_parent_that_runs_runs_on_and_so_do_its_forks() {
    let parent = start("tick").await;
    serial(&parent)
        .expect_within("tick 1\n", DEADLINE)
        .await
        .unwrap();
    let forks = parent.fork(3).await.unwrap();
    check_put_back(&parent).await;
    assert!(parent.query_status().await.unwrap().running && counts(&parent).await);
    for fork in &forks {
        assert!(fork.query_status().await.unwrap().running);
        assert!(next_tick(fork).await >= 2 && counts(fork).await);
    }
    // Each is a session like any other: it is reset, saved, forked.
    forks[0].reset().await.unwrap();
    serial(&forks[0])
        .expect_within("boot\n", DEADLINE)
        .await
        .unwrap();
    forks[1].save_snapshot("here").await.unwrap();
    forks[1].load_snapshot("here").await.unwrap();
    let again = forks[2].fork(1).await.unwrap();
    drop((parent, forks));
    assert!(counts(&again[0]).await);
}

#[tokio::test]
async fn each_has_endpoints_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (_held, free) = reserved_port();
    let config = config("tick")
        .gdb(Endpoint::loopback(free))
        .qmp(Endpoint::Socket(folder.path().join("qmp")))
        .qmp_transcript(folder.path().join("transcript"))
        .snapshot_file(folder.path().join("snapshots"))
        .with_spec(|spec| spec.serial(Endpoint::Socket(folder.path().join("uart"))))
        .wait_for_gdb(true);
    let parent = Session::start(config).await.unwrap();
    parent.save_snapshot("start").await.unwrap();
    assert!(parent.fork(1).await.unwrap()[0].gdb().is_none());
    let with_gdb = |config: QemuConfig| config.gdb(Endpoint::free_port()).wait_for_gdb(true);
    let forks = parent.fork_with(2, with_gdb).await.unwrap();
    let stubs: Vec<_> = [&parent, &forks[0], &forks[1]]
        .map(|session| session.gdb().unwrap().clone())
        .into();
    assert!(
        stubs[0] != stubs[1] && stubs[1] != stubs[2] && stubs[0] != stubs[2],
        "{stubs:?}"
    );
    for fork in &forks {
        assert_eq!(
            fork.query_status().await.unwrap().status,
            RunState::Prelaunch
        );
        assert!(fork.check_gdb().await.unwrap().reachability.can_attach());
        assert_eq!(fork.list_snapshots().await.unwrap(), []);
        assert_eq!(counter(fork).await, 0);
        fork.resume().await.unwrap();
        serial(fork)
            .expect_within("boot\n", DEADLINE)
            .await
            .unwrap();
    }
    assert_eq!(parent.list_snapshots().await.unwrap().len(), 1);
    assert_eq!(
        parent.query_status().await.unwrap().status,
        RunState::Prelaunch
    );
}

/// By instruction count the same program does the same at the same time, in whichever process.
#[tokio::test]
async fn with_a_clock_that_counts_instructions() {
    let parent = Session::start(config("tick").deterministic(6));
    let parent = parent.await.unwrap();
    serial(&parent)
        .expect_within("tick 3\n", DEADLINE)
        .await
        .unwrap();
    let forks = parent.fork(2).await.unwrap();
    let (one, two) = (next_tick(&forks[0]).await, next_tick(&forks[1]).await);
    assert_eq!(one, two);
}

#[tokio::test]
async fn no_forks_are_no_forks() {
    let parent = start("tick").await;
    assert!(parent.fork(0).await.unwrap().is_empty());
    assert!(counts(&parent).await);
}

#[tokio::test]
async fn of_a_session_that_was_attached_only_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qmp");
    let parent = Session::start(
        config("tick")
            .qmp(Endpoint::Socket(socket.clone()))
            .keep_running(true),
    );
    let parent = parent.await.unwrap();
    let watch = parent.process().unwrap();
    parent.detach().unwrap();
    let address = qemu_controller::Address::Socket(socket);
    let attached = Session::attach(address, DEADLINE).await.unwrap();
    let error = attached.fork(1).await.unwrap_err();
    assert!(matches!(error, StateError::Attached), "{error:?}");
    let state = attached.with_deadline(DEADLINE).save_state().await.unwrap();
    let session = Session::start_from(config("tick"), &state).await.unwrap();
    assert!(counts(&session).await && counts(&attached).await);
    attached.stop().await.unwrap();
    watch.wait().await;
}
