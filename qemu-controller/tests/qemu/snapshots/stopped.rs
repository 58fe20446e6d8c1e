//! The guest stopped by somebody else while a save makes its image and saves: QEMU lives, the save
//! works, and the guest is left stopped.
//!
//! With `blockdev-create` for the image this aborted QEMU 7.2 and failed on 10.0, in some of a
//! hundred rounds.

use std::future::IntoFuture as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use qemu_controller::gdb_port::StubAddress;
use qemu_controller::{RunState, Session};
use test_support::drop_after;
use tokio::time::timeout;

use super::check_put_back;
use crate::support::{DEADLINE, config, counts, long};

#[derive(Clone, Copy, Debug)]
enum Save {
    Snapshot,
    State,
    Fork,
}

impl Save {
    async fn run(self, session: &Session) {
        match self {
            Self::Snapshot => drop(session.save_snapshot("boot").await.unwrap()),
            Self::State => drop(session.save_state().await.unwrap()),
            Self::Fork => {
                let forks = session.fork(1).await.unwrap();
                forks[0].query_status().await.unwrap();
            }
        }
    }
}

async fn rounds(stop: impl AsyncFn(&Session, Save, Duration)) {
    let count = if long() { 500 } else { 5 };
    let mut random = fastrand::Rng::with_seed(17);
    for round in 0..count {
        for save in [Save::Snapshot, Save::State, Save::Fork] {
            // The first save of a session makes an image, as each state and fork does.
            let session = Session::start(config("tick")).await.unwrap();
            stop(&session, save, Duration::from_micros(random.u64(0..3000))).await;
            check_stopped(&session, &format!("{save:?}, round {round}")).await;
            session.stop().await.unwrap();
        }
    }
}

/// What was stopped stays stopped, nothing else is left, and it can run on.
async fn check_stopped(session: &Session, what: &str) {
    let stopped = async {
        while session.query_status().await.unwrap().running {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, stopped).await.expect(what);
    check_put_back(session).await;
    session.resume().await.unwrap();
    assert!(counts(session).await, "{what}");
}

#[tokio::test]
async fn by_a_pause_beside_it() {
    rounds(async |session, save, delay| {
        let pause = async {
            tokio::time::sleep(delay).await;
            session.pause().await.unwrap();
        };
        tokio::join!(save.run(session), pause);
        assert_eq!(
            session.query_status().await.unwrap().status,
            RunState::Paused
        );
    })
    .await;
}

#[tokio::test]
async fn by_a_pause_after_its_caller_has_gone() {
    rounds(async |session, save, delay| {
        let polls = 1 + delay.as_micros() as usize % 3;
        match save {
            Save::Snapshot => {
                drop_after(polls, session.save_snapshot("boot").into_future()).await;
            }
            Save::State => drop(drop_after(polls, session.save_state()).await),
            Save::Fork => drop(drop_after(polls, session.fork(1)).await),
        }
        session.pause().await.unwrap();
        assert_eq!(
            session.query_status().await.unwrap().status,
            RunState::Paused
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_debugger() {
    rounds(async |session, save, delay| {
        let Some(&StubAddress::Tcp(address)) = session.gdb() else {
            panic!("no port")
        };
        let mut stub = TcpStream::connect(address).unwrap();
        stub.set_read_timeout(Some(DEADLINE)).unwrap();
        // Who connects stops the guest; `c` lets it run.
        heard_that_it_runs(session, false).await;
        stub.write_all(b"+$c#63").unwrap();
        heard_that_it_runs(session, true).await;
        let mut control_c = stub.try_clone().unwrap();
        let interrupt = tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            control_c.write_all(&[3]).unwrap();
        });
        save.run(session).await;
        interrupt.await.unwrap();
        let (mut reply, mut chunk) = (Vec::new(), [0; 64]);
        while !reply.windows(4).any(|bytes| bytes == b"$T02") {
            let length = stub.read(&mut chunk).unwrap();
            assert_ne!(length, 0, "the stub has hung up");
            reply.extend_from_slice(&chunk[..length]);
        }
    })
    .await;
}

async fn heard_that_it_runs(session: &Session, runs: bool) {
    let mut run_state = session.watch_run_state();
    let heard = run_state.wait_for(|state| (*state == RunState::Running) == runs);
    timeout(DEADLINE, heard).await.unwrap().unwrap();
}
