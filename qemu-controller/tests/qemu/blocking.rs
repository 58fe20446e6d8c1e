//! The session without async.

use qemu_controller::blocking::Session;
use qemu_controller::{RunState, StoppedBy};

use crate::support::config;

#[test]
fn the_main_job_without_async() {
    let session = Session::start(config("tick")).unwrap();
    let serial = session.serial(0).unwrap();
    assert_eq!(serial.line().unwrap(), "boot");
    serial.write_line("echoed").unwrap();
    serial.expect("echoed").unwrap();
    session
        .wait_for_value("tick_count", |ticks| ticks >= 2)
        .unwrap();
    session.pause().unwrap();
    session.save_snapshot("here").unwrap();
    session.write_u32("tick_count", 77).unwrap();
    let fork = session.fork(1).unwrap().remove(0);
    session.load_snapshot("here").unwrap();
    assert_eq!(session.read_u32("tick_count").unwrap(), 2);
    assert_eq!(session.query_status().unwrap().status, RunState::Paused);
    assert_eq!(session.stop().unwrap().by, StoppedBy::Quit);
    drop(session);
    // Driven on, though the session that it was forked from has gone.
    assert_eq!(fork.read_u32("tick_count").unwrap(), 77);
    fork.resume().unwrap();
    fork.serial(0).unwrap().expect("tick 78\n").unwrap();
    assert!(
        fork.block_on(fork.session().query_status())
            .unwrap()
            .running
    );
}
