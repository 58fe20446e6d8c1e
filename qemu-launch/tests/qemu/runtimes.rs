//! Waiting and ending need no particular runtime, and can be given up at any point.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use qemu_launch::{ExitKind, StopStep};

use crate::support::{machine, patient, start};

/// The smallest executor: parks the thread until it is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn without_any_runtime() {
    let process = block_on(qemu_launch::spawn_async(machine("tick"))).unwrap();
    let ended = block_on(process.end(patient())).unwrap();
    assert!(ended.step >= StopStep::Terminated);
    assert_eq!(block_on(process.wait()).signal(), ended.exit.signal());
}

#[test]
fn on_tokio_everybody_who_waits_is_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let process = qemu_launch::spawn_async(machine("tick")).await.unwrap();
        let waiters: Vec<_> = (0..100).map(|_| tokio::spawn(process.wait())).collect();
        process.kill();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap().kind(), &ExitKind::Signalled(9));
        }
    });
}

#[test]
fn a_wait_and_an_end_that_are_given_up_change_nothing() {
    let (process, mut qmp) = start(&machine("tick"));
    for polls in 0..3 {
        let mut wait = Box::pin(process.wait());
        for _ in 0..polls {
            assert!(
                wait.as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        }
    }
    assert!(qmp.run_state() == "running");
    // The end goes on although nobody polls it.
    drop(process.end(patient()));
    let exit = block_on(process.wait());
    assert_eq!(exit.kind(), &ExitKind::Exited(0));
}

#[test]
fn stderr_can_be_followed_by_line() {
    let spec = machine("lockup");
    let process = qemu_launch::spawn(&spec).unwrap();
    let mut lines = process.stderr_lines();
    let mut all = Vec::new();
    while let Some(line) = block_on(lines.next_line()) {
        assert_eq!(line.dropped_before, 0);
        all.push(line.text);
    }
    assert!(
        all.iter()
            .any(|line| line.starts_with("qemu: fatal: Lockup")),
        "{all:?}"
    );
    assert_eq!(
        all.join("\n"),
        block_on(process.wait())
            .stderr()
            .to_string_lossy()
            .trim_end_matches('\n')
    );
}
