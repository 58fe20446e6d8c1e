//! Whatever becomes of the controller, no QEMU stays behind; and no QEMU dies while its handle
//! lives.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use qemu_launch::{Endpoint, MachineSpec, StopPolicy};
use serde_json::json;

use test_support::procfs::{entries, runs, with_word};
use test_support::{Qmp, eventually};

use crate::support::{again, alone, machine, role, start};

const CONTROLLERS: usize = 50;

/// Half of the controllers start QEMU from their main thread, half from another one.
#[test]
fn killed_controllers_leave_no_qemu() {
    if role().is_some() {
        return play_a_controller();
    }
    let mut controllers: Vec<_> = (0..CONTROLLERS)
        .map(|number| {
            again(
                "orphans::killed_controllers_leave_no_qemu",
                "controller",
                1 + number % 2,
            )
        })
        .collect();
    let pids: Vec<u32> = controllers
        .iter_mut()
        .map(|controller| {
            let lines = BufReader::new(controller.stdout.take().unwrap()).lines();
            let told = lines
                .map(Result::unwrap)
                .find_map(|line| line.split_once("QEMU is ").map(|l| l.1.to_owned()));
            told.expect("the controller tells").parse().unwrap()
        })
        .collect();
    assert!(pids.iter().all(|&pid| runs(pid)), "all {CONTROLLERS} run");
    let start = Instant::now();
    controllers
        .iter_mut()
        .for_each(|controller| controller.kill().unwrap());
    eventually("no QEMU is left", || !pids.iter().any(|&pid| runs(pid)));
    println!(
        "{CONTROLLERS} controllers killed, no QEMU left after {} ms",
        start.elapsed().as_millis()
    );
    for controller in &mut controllers {
        controller.wait().unwrap();
    }
}

fn play_a_controller() {
    let (process, _qmp) = start(&machine("tick"));
    println!("QEMU is {}", process.pid());
    // Until it is killed; should the test itself have died, until its QEMU has.
    let _ = process.wait_blocking(Instant::now() + std::time::Duration::from_secs(60));
}

/// One that is to keep running does: after its handle, and after its program.
#[test]
fn a_kept_qemu_outlives_its_handle_and_its_program() {
    const TEST: &str = "orphans::a_kept_qemu_outlives_its_handle_and_its_program";
    let monitor = |folder: &Path| Endpoint::Socket(folder.join("qmp"));
    if let Some(folder) = role() {
        let process = qemu_launch::spawn(
            &machine("tick")
                .keep_running()
                .qmp(monitor(Path::new(&folder))),
        )
        .unwrap();
        assert!(process.is_kept());
        let handle = process.handle();
        drop(process);
        assert!(handle.try_wait().is_none());
        println!("QEMU is {}", handle.pid());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let controller = again(TEST, folder.path().to_str().unwrap(), 1)
        .wait_with_output()
        .unwrap();
    let told = String::from_utf8(controller.stdout).unwrap();
    let pid: u32 = told
        .lines()
        .find_map(|line| line.split_once("QEMU is ")?.1.parse().ok())
        .expect(&told);
    let ends = EndsAtLast(pid);
    let mut stream = None;
    eventually("its monitor listens", || {
        stream = UnixStream::connect(folder.path().join("qmp")).ok();
        stream.is_some()
    });
    let mut qmp = Qmp::new(stream.unwrap());
    assert!(qmp.run_state() == "running");
    qmp.execute("quit", json!({}));
    eventually("it has quit", || !runs(pid));
    std::mem::forget(ends);
}

/// Kills the process should the test fail.
struct EndsAtLast(u32);

impl Drop for EndsAtLast {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0 as i32).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// `PR_SET_PDEATHSIG` follows the thread that started the process, so one that lasts has to.
#[test]
fn the_thread_that_started_it_may_end() {
    let starter = std::thread::spawn(|| start(&machine("tick")));
    let (process, mut qmp) = starter.join().unwrap();
    // The kernel would have sent the signal at the thread's exit; 20 round trips are far more than
    // it needs.
    for _ in 0..20 {
        assert!(qmp.run_state() == "running");
    }
    assert!(process.try_wait().is_none());
}

#[test]
fn the_runtime_that_started_it_may_be_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let asynchronous = runtime.block_on(async {
        tokio::spawn(qemu_launch::spawn_async(machine("tick")))
            .await
            .unwrap()
            .unwrap()
    });
    let blocking = runtime.block_on(async {
        tokio::task::spawn_blocking(|| qemu_launch::spawn(&machine("tick")))
            .await
            .unwrap()
            .unwrap()
    });
    drop(runtime);
    for mut process in [asynchronous, blocking] {
        let mut qmp = Qmp::new(process.take_qmp().unwrap());
        for _ in 0..20 {
            assert!(qmp.run_state() == "running");
        }
        assert!(process.try_wait().is_none());
    }
}

/// A start that is given up after any number of polls leaves no process, not even one that was to
/// be kept.
#[test]
fn a_start_that_is_given_up_leaves_no_process() {
    const TEST: &str = "orphans::a_start_that_is_given_up_leaves_no_process";
    // Alone, so that it can count its threads: a starter is one from the poll that makes it on,
    // whatever its name.
    alone(TEST, &std::env::temp_dir(), || {
        let threads = || entries("/proc/self/task");
        let plain = threads();
        drop(qemu_launch::spawn(&machine("tick")).unwrap());
        eventually("the serving threads are gone", || threads() == plain);
        for polls in 0..6 {
            for spec in [machine("tick"), machine("tick").keep_running()] {
                give_up(spec, polls);
                eventually("no starter is left", || threads() == plain);
                eventually("no process is left", || with_word(&mark(polls)).is_empty());
            }
        }
    });
}

fn mark(polls: usize) -> String {
    format!("given-up-after-{polls}-by-{}", std::process::id())
}

fn give_up(spec: MachineSpec, polls: usize) {
    let spec = spec.extra_args(["-name", &mark(polls)]);
    let mut start = Box::pin(qemu_launch::spawn_async(spec));
    for _ in 0..polls {
        if let Poll::Ready(process) = start.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            // On a slow machine it may be done between two polls; then nothing is given up any
            // more.
            return drop(process.unwrap().end_blocking(StopPolicy::kill()).unwrap());
        }
    }
    if polls == 5 {
        // This one has got its process for certain when it is given up.
        eventually("it has started", || with_word(&mark(polls)).len() == 1);
    }
}
