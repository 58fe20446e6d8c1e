//! What each verb does on a Cortex-M.

use std::time::Duration;

use qemu_controller::debug::{Access, DebugError, StopReason, Until};
use qemu_controller::{RunState, Session};

use super::{assert_runs, config, run_to_tick, start};
use crate::support::{DEADLINE, symbol};

#[tokio::test]
async fn a_breakpoint_is_met_and_what_is_there_is_seen_and_changed() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    assert!(!session.query_status().await.unwrap().running);
    let stop = run_to_tick(&mut debugger).await;
    assert_eq!(stop.place.unwrap().to_string(), "tick");
    assert_eq!(
        session.query_status().await.unwrap().status,
        RunState::Debug
    );

    let registers = debugger.read_registers().await.unwrap();
    let pc = symbol("tick", "tick") & !1;
    assert_eq!(registers.get("pc"), Some(pc), "{registers:?}");
    assert_eq!(registers.names().count(), 17);
    assert_eq!(debugger.read_register("pc").await.unwrap(), pc);
    debugger.write_register("r7", 0x1234_5678).await.unwrap();
    assert_eq!(debugger.read_register("r7").await.unwrap(), 0x1234_5678);

    let ticks = session.read_u32("tick_count").await.unwrap();
    let bytes = debugger.read_memory("tick_count", 4).await.unwrap();
    assert_eq!(bytes, ticks.to_le_bytes());
    debugger
        .write_memory("tick_count", &1000_u32.to_le_bytes())
        .await
        .unwrap();
    assert_eq!(session.read_u32("tick_count").await.unwrap(), 1000);
    // More than one packet, and flash.
    let flash = debugger.read_memory(0, 5000).await.unwrap();
    debugger.write_memory(0x8000, &flash).await.unwrap();
    assert_eq!(debugger.read_memory(0x8000, 5000).await.unwrap(), flash);
    // In many packets at once; the monitor's way is another one.
    let all = debugger.read_memory(0, 200_001).await.unwrap();
    assert_eq!(all, session.read_memory(0_u64, 200_001).await.unwrap());
    // What ends in the middle of one: where it ends is told.
    let beyond = debugger.read_memory(0x2000_0000, 100_000).await;
    let beyond = beyond.unwrap_err().to_string();
    assert!(beyond.contains("0x20010000"), "{beyond}");
    let much = debugger.read_memory(0, usize::MAX).await.unwrap_err();
    assert!(much.to_string().contains("16777216"), "{much}");

    let stop = run_to_tick(&mut debugger).await;
    assert!(
        matches!(stop.reason, StopReason::Reached { hits: 1, .. }),
        "{stop:?}"
    );
    assert_eq!(session.read_u32("tick_count").await.unwrap(), 1001);
}

#[tokio::test]
async fn hits_are_counted_conditions_are_asked_and_several_are_told_apart() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    let before = session.read_u32("tick_count").await.unwrap();
    let stop = debugger
        .run_until([Until::reaches("tick").skip(4)], DEADLINE)
        .await
        .unwrap();
    assert!(
        matches!(stop.reason, StopReason::Reached { index: 0, hits: 5 }),
        "{stop:?}"
    );
    assert_eq!(session.read_u32("tick_count").await.unwrap(), before + 5);

    let mut asked = 0;
    let third = Until::reaches("tick").when(|registers| {
        asked += 1;
        assert_eq!(registers.get("pc"), Some(symbol("tick", "tick") & !1));
        asked == 3
    });
    let stop = debugger.run_until([third], DEADLINE).await.unwrap();
    assert!(
        matches!(stop.reason, StopReason::Reached { hits: 3, .. }),
        "{stop:?}"
    );
    assert_eq!(asked, 3);

    let both = ["main_loop", "print_string"].map(Until::reaches);
    let stop = debugger.run_until(both, DEADLINE).await.unwrap();
    assert!(
        matches!(stop.reason, StopReason::Reached { index: 1, .. }),
        "{stop:?}"
    );
    assert_eq!(stop.place.unwrap().symbol.name, "print_string");
}

#[tokio::test]
async fn steps_go_one_instruction_over_calls_and_out() {
    // The other one has these cores as well.
    for qemu in ["qemu-system-arm", "qemu-system-aarch64"] {
        let session = Session::start(config("tick").qemu(qemu)).await.unwrap();
        check_steps(&session).await;
    }
}

async fn check_steps(session: &Session) {
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    let (pc, sp) = (
        debugger.read_register("pc").await.unwrap(),
        debugger.read_register("sp").await.unwrap(),
    );
    // push {r4, lr}
    let stop = debugger.step_instruction().await.unwrap();
    assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
    assert_eq!(stop.pc, Some(pc + 2));
    assert_eq!(debugger.read_register("sp").await.unwrap(), sp - 8);
    // Through the whole function, its calls as one step each: it stays in `tick` until it returns.
    let mut steps = 0;
    loop {
        let stop = debugger.step_over(DEADLINE).await.unwrap();
        assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
        steps += 1;
        let place = stop.place.unwrap();
        if place.symbol.name != "tick" {
            assert_eq!(place.symbol.name, "main_loop");
            break;
        }
        assert!(steps < 100);
    }
    run_to_tick(&mut debugger).await;
    let caller = debugger.read_register("lr").await.unwrap() & !1;
    let stop = debugger.finish(DEADLINE).await.unwrap();
    assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
    assert_eq!(stop.pc, Some(caller));
    debugger.step_instruction().await.unwrap();
    let refused = debugger.finish(DEADLINE).await.unwrap_err();
    assert!(
        matches!(&refused, DebugError::NotAtEntry(here) if here.starts_with("main_loop+")),
        "{refused}"
    );
    let stop = debugger.run_to(pc, DEADLINE).await.unwrap();
    assert_eq!(stop.pc, Some(pc));
}

#[tokio::test]
async fn watchpoints_tell_the_access_and_both_values() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    run_to_tick(&mut debugger).await;
    for _ in 0..3 {
        let before = session.read_u32("tick_count").await.unwrap();
        let stop = debugger
            .run_until([Until::writes("tick_count", 4)], DEADLINE)
            .await
            .unwrap();
        let StopReason::Watched {
            index: 0,
            hits: 1,
            access: Access::Write,
            address,
            old,
            new,
        } = &stop.reason
        else {
            panic!("{stop:?}")
        };
        assert_eq!(*address, symbol("tick", "tick_count"));
        assert_eq!(*old, before.to_le_bytes());
        assert_eq!(*new, (before + 1).to_le_bytes());
        assert_eq!(stop.place.unwrap().symbol.name, "tick");
    }
    let stop = debugger
        .run_until([Until::reads("tick_count", 4).skip(2)], DEADLINE)
        .await
        .unwrap();
    let StopReason::Watched {
        access: Access::Read,
        hits: 3,
        old,
        new,
        ..
    } = &stop.reason
    else {
        panic!("{stop:?}")
    };
    assert_eq!(old, new);
    run_to_tick(&mut debugger).await;
    let both = [Until::reaches("tick"), Until::accesses("tick_count", 1)];
    let stop = debugger.run_until(both, DEADLINE).await.unwrap();
    assert!(
        matches!(stop.reason, StopReason::Watched { index: 1, .. }),
        "{stop:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    let second = session.debugger().await.unwrap_err();
    assert!(matches!(second, DebugError::Busy), "{second}");
    let unknown = [Until::reaches("tic")];
    let error = debugger
        .run_until(unknown, DEADLINE)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the firmware has no symbol 'tic'; similar ones: tick, tick_count"
    );
    let error = debugger
        .run_until([Until::reaches(0x7000_0000)], DEADLINE)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no memory at 0x70000000 that can be read"
    );
    let error = debugger
        .run_until([Until::writes("counter", 0)], DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(error, DebugError::NoWatchpoint { size: 0, .. }),
        "{error}"
    );
    let error = debugger.read_register("r16").await.unwrap_err().to_string();
    assert!(
        error.starts_with("the guest has no register 'r16'; it has r0, r1,"),
        "{error}"
    );
    let error = debugger
        .write_register("r0", 1 << 32)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "0x100000000 does not fit register 'r0', which has 32 bits"
    );
    let error = debugger
        .read_memory(0x2000_fff0, 32)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "there is no memory at 0x20010000 that can be read");
    // All that is past, and the guest runs until something as ever.
    run_to_tick(&mut debugger).await;
    // A run that fails leaves the guest as it was.
    session.resume().await.unwrap();
    let running = debugger.read_registers().await.unwrap_err();
    assert!(matches!(running, DebugError::Running), "{running}");
    assert_runs(&session).await;
}

#[tokio::test]
async fn at_the_deadline_it_says_where_the_guest_is() {
    let session = start("tick").await;
    let mut debugger = session.debugger().await.unwrap();
    let stop = debugger
        .run_until([Until::reaches("hard_fault")], Duration::from_millis(50))
        .await
        .unwrap();
    assert!(matches!(stop.reason, StopReason::DeadlinePassed), "{stop}");
    assert!(stop.pc.is_some() && stop.place.is_some(), "{stop}");
    assert!(!session.query_status().await.unwrap().running);
    run_to_tick(&mut debugger).await;
}

/// What is awaited in other tasks must be able to move between threads.
fn is_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn the_core_is_a_thread() {
    let session = start("tick").await;
    let mut debugger = is_send(session.debugger()).await.unwrap();
    let nothing = Until::reaches("hard_fault");
    drop(is_send(debugger.run_until([nothing], DEADLINE)));
    drop(is_send(debugger.step_over(DEADLINE)));
    drop(is_send(debugger.finish(DEADLINE)));
    let threads = debugger.threads().await.unwrap();
    assert_eq!(threads.len(), 1);
    debugger.select_thread(threads[0]).await.unwrap();
    assert_eq!(threads[0].to_string(), "p1.1");
}
