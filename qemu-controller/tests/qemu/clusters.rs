//! Machines whose cores are in clusters: each core by name, and each one's place, memory and fault by
//! its own cluster.

use qemu_controller::{CoreName, QemuConfig, Session};

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
