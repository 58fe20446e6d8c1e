//! Machines whose cores are in clusters: each core by name, and each one's place, memory and fault by
//! its own cluster.

use qemu_controller::{AfterLoad, CoreName, QemuConfig, Session};

use crate::support::DEADLINE;

/// A machine that is paused before its first instruction, with these cores.
async fn start(qemu: &str, machine: &str, words: &[&str]) -> Session {
    let config = QemuConfig::default()
        .qemu(format!("qemu-system-{qemu}"))
        .machine(machine)
        .extra_args(words)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE);
    Session::start(config).await.unwrap()
}

fn shown(cores: &[CoreName]) -> Vec<String> {
    cores.iter().map(CoreName::to_string).collect()
}

#[tokio::test]
async fn each_core_is_named_by_its_cluster_and_model() {
    let rows: [(&str, &str, &[&str], &[&str]); 4] = [
        (
            "arm",
            "mps2-an521",
            &[],
            &[
                "core 0 (cortex-m33, cluster0)",
                "core 1 (cortex-m33, cluster1)",
            ],
        ),
        (
            "riscv64",
            "sifive_u",
            &["-bios", "none"],
            &[
                "core 0 (sifive-e51, e-cluster)",
                "core 1 (sifive-u54, u-cluster)",
            ],
        ),
        ("arm", "virt", &["-smp", "2"], &["core 0", "core 1"]),
        ("arm", "lm3s6965evb", &[], &["core 0"]),
    ];
    for (qemu, machine, words, expected) in rows {
        let session = start(qemu, machine, words).await;
        let cores = session.cores().await.unwrap();
        assert_eq!(shown(&cores), expected, "{machine}");
        let hang = session.look().await;
        let places: Vec<_> = hang.places.iter().map(|place| place.core.clone()).collect();
        let text = hang.to_string();
        match cores.len() {
            1 => assert!(places.is_empty() && !text.contains("core"), "{text}"),
            _ => {
                assert_eq!(places, cores, "{machine}");
                for core in expected {
                    assert!(text.contains(&format!("{core} at 0x")), "{text}");
                }
            }
        }
        session.stop().await.unwrap();
    }
}

#[tokio::test]
async fn memory_is_read_as_the_core_that_is_named_sees_it() {
    // The block that tells a core of this board its number.
    let session = start("arm", "mps2-an521", &[]).await;
    for (core, place) in [(0, 0x4001_f000), (1, 0x4001_f000), (1, 0x5001_f000)] {
        let read = session.with_core(core).read_u32(place).await.unwrap();
        assert_eq!(read, core as u32, "core {core}");
    }
    assert_eq!(session.read_u32(0x4001_f000).await.unwrap(), 0);
    let unknown = session.with_core(2).read_u32(0x4001_f000).await;
    let words = unknown.unwrap_err().to_string();
    assert_eq!(words, "there is no core 2: it has 2");
}

#[tokio::test]
async fn a_core_of_another_memory_is_written_by_the_debugger_alone() {
    let session = start("arm", "fby35", &[]).await;
    let mut debugger = session.debugger().await.unwrap();
    let threads = debugger.threads().await.unwrap();
    debugger.select_thread(threads[2]).await.unwrap();
    assert_eq!(debugger.current_core(), 2);
    let (place, bytes) = (0x1000, [1, 2, 3, 4]);
    debugger.write_memory(place, &bytes).await.unwrap();
    let bic = session.with_core(2);
    assert_eq!(bic.read_memory(place, 4).await.unwrap(), bytes);
    // The other cores have flash there, or nothing.
    let seen = session.read_memory(place, 4).await;
    assert_ne!(seen.ok(), Some(bytes.to_vec()));
    let refused = bic.write_u32(place, 0).await.unwrap_err();
    assert!(refused.to_string().contains("core 2"), "{refused}");
    assert_eq!(bic.read_memory(place, 4).await.unwrap(), bytes);
}

/// A Cortex-A53 and a Cortex-R5 that both run the program of the fifteen cores.
mod two_kinds {
    use std::collections::BTreeSet;
    use std::path::Path;

    use qemu_controller::debug::{StopReason, Until};
    use qemu_controller::firmware_info::Firmware;
    use qemu_controller::semihosting::{Event, Request};

    use super::*;

    const R5: &str = "../firmware-info/fixtures/same/r5.elf";
    const A53: &str = "../firmware-info/fixtures/same/a53.elf";

    async fn start() -> Session {
        let config = |audio: &[&str]| {
            QemuConfig::default()
                .qemu("qemu-system-aarch64")
                .machine("xlnx-zcu102")
                .memory("2G")
                .extra_args(["-smp", "6"])
                .extra_args(["-device", &format!("loader,cpu-num=4,file={R5}")])
                .extra_args(audio)
                .firmware(A53)
                .symbols(A53)
                .symbols(R5)
                .start_paused(true)
                .start_deadline(DEADLINE)
                .command_deadline(DEADLINE)
        };
        // 10.0 wants to be told where the sound goes, in words that 7.2 does not know.
        let session = match Session::start(config(&["-audio", "none"])).await {
            Ok(session) => session,
            Err(_) => Session::start(config(&[])).await.unwrap(),
        };
        // QEMU has the core off, whatever the loader is told.
        let r5 = &session.query_cpus().await.unwrap()[4];
        let on = serde_json::json!({
            "path": r5.qom_path, "property": "start-powered-off", "value": false,
        });
        session.execute("qom-set", &on).await.unwrap();
        session.reset().await.unwrap();
        session
    }

    #[tokio::test]
    async fn an_r5_beside_an_a53_is_debugged() {
        let session = start().await;
        let mut debugger = session.debugger().await.unwrap();
        let firmware = Firmware::open(Path::new(R5)).unwrap();
        let main = firmware.symbol("main").unwrap().address;
        let stop = debugger.run_until([Until::reaches(main)], DEADLINE).await;
        let stop = stop.unwrap();
        assert!(matches!(stop.reason, StopReason::Reached { .. }), "{stop}");
        assert_eq!((stop.pc, debugger.current_core()), (Some(main), 4));
        for _ in 0..100 {
            let stop = debugger.step_instruction().await.unwrap();
            assert!(matches!(stop.reason, StopReason::Stepped), "{stop}");
            assert_eq!(debugger.current_core(), 4);
        }
        let rounds = firmware.symbol("rounds").unwrap().address;
        let rounds = session.with_core(4).read_u32(rounds).await.unwrap();
        assert!((1..100).contains(&rounds), "{rounds}");
        let registers = debugger.read_registers().await.unwrap();
        assert_eq!(registers.get("pc"), debugger.read_register("pc").await.ok());
        let backtrace = debugger.backtrace().await.unwrap();
        let frames = backtrace.to_string();
        assert!(frames.contains("main"), "{frames}");
        let reports = debugger.core_reports().await.unwrap();
        let report = reports.iter().find(|report| report.core.number == 4);
        let core = report.unwrap().core.to_string();
        assert_eq!(core, "core 4 (cortex-r5f, rpu-cluster)");
        let threads = debugger.threads().await.unwrap();
        debugger.select_thread(threads[0]).await.unwrap();
        assert_eq!(debugger.current_core(), 0);
        debugger.read_register("x30").await.unwrap();
        debugger.select_thread(threads[4]).await.unwrap();
        let add = firmware.symbol("add").unwrap().address;
        let stop = debugger.run_until([Until::reaches(add)], DEADLINE).await;
        assert_eq!(stop.unwrap().pc, Some(add));
        let stop = debugger.finish(DEADLINE).await.unwrap();
        assert_eq!(debugger.current_core(), 4, "{stop}");
        assert!(stop.to_string().contains("main"), "{stop}");
        // It goes on from there in a fork, and after a load.
        let rounds = async |session: &Session| {
            let place = firmware.symbol("rounds").unwrap().address;
            session.with_core(4).read_u32(place).await.unwrap()
        };
        let saved = rounds(&session).await;
        session.save_snapshot("here").await.unwrap();
        drop(debugger);
        let forks = session.fork(1).await.unwrap();
        session.resume().await.unwrap();
        // It would run to its end, which begins it anew where nobody serves its call.
        let load = session.load_snapshot("here").then(AfterLoad::Paused);
        load.await.unwrap();
        for session in [&forks[0], &session] {
            let mut debugger = session.debugger().await.unwrap();
            let stop = debugger.run_until([Until::reaches(add)], DEADLINE).await;
            let stop = stop.unwrap();
            assert_eq!((stop.pc, debugger.current_core()), (Some(add), 4));
            let now = rounds(session).await;
            assert!(now > saved, "{now} {saved}");
        }
    }

    #[tokio::test]
    async fn each_semihosting_call_is_read_and_answered_as_its_core_makes_it() {
        let session = start().await;
        let mut host = session.semihosting_host().await.unwrap();
        let mut cores = BTreeSet::new();
        for _ in 0..2 {
            let Event::Call(call) = host.next(DEADLINE).await.unwrap() else {
                panic!("no call")
            };
            assert_eq!(call.request, Request::Exit { status: 7 });
            let core = host.debugger().current_core();
            // Whichever is looked at meanwhile: the answer is for the core that has called.
            let threads = host.debugger().threads().await.unwrap();
            let other = threads[if core == 4 { 0 } else { 4 }];
            host.debugger().select_thread(other).await.unwrap();
            host.answer(&call, 0x55).await.unwrap();
            assert_eq!(host.debugger().current_core(), core);
            let result = if core == 4 { "r0" } else { "x0" };
            let answer = host.debugger().read_register(result).await.unwrap();
            assert_eq!(answer, 0x55);
            cores.insert(core);
        }
        assert_eq!(cores, BTreeSet::from([0, 4]));
    }
}
