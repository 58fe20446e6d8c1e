//! Start, wait and end.

use qemu_launch::{ExitKind, Ladder, Rung};

use crate::support::{machine, soon, start};

#[test]
fn ends_by_sigterm_with_status_0() {
    let (process, mut qmp) = start(&machine("tick"));
    assert!(qmp.execute("query-status").contains("running"));
    let ended = process.end_blocking(Ladder::default()).unwrap();
    assert_eq!(ended.rung, Rung::Terminated);
    assert_eq!(ended.exit.kind(), &ExitKind::Exited(0));
}

#[test]
fn a_lockup_comes_with_its_registers() {
    let process = qemu_launch::spawn(&machine("lockup")).unwrap();
    let exit = process.wait_blocking(soon()).unwrap();
    let ExitKind::Lockup(dump) = exit.kind() else {
        panic!("{exit:?}")
    };
    assert!(dump.pc().is_some(), "{dump:?}");
}
