//! A real gdb-multiarch as the oracle of the session's debugger: the same firmware in two QEMUs,
//! stepped through by each.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use qemu_controller::{Endpoint, QemuConfig, Session, gdb_port};

const STEPS: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(60);
const NAMES: [&str; 17] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "sp", "lr",
    "pc", "xpsr",
];

fn config() -> QemuConfig {
    let tick = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware/tick/tick.elf");
    QemuConfig::default()
        .firmware(tick)
        .start_paused(true)
        .start_deadline(DEADLINE)
        .command_deadline(DEADLINE)
}

/// What gdb shows after each step, a line each, and four bytes of the stack's and the counter's
/// memory at the end.
fn steps_of_gdb(address: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("steps.gdb");
    let format = ["%x"; NAMES.len()].join(" ");
    let values: Vec<String> = NAMES.iter().map(|name| format!("${name}")).collect();
    let values = values.join(", ");
    let text = format!(
        "set pagination off\nset architecture armv7\ntarget remote {address}\nset $i = 0\n\
         while $i < {STEPS}\nstepi\nprintf \"@ {format}\\n\", {values}\nset $i = $i + 1\nend\n\
         printf \"@ %x\\n\", *(unsigned int *) 0x20000000\ndetach\n"
    );
    std::fs::write(&script, text).unwrap();
    let output = Command::new("gdb-multiarch")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-x"])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .expect("gdb-multiarch is needed here: install the package of that name");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("@ ").map(str::to_owned))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(lines.len(), STEPS + 1, "{errors}");
    lines
}

#[tokio::test]
async fn a_thousand_steps_are_as_gdb_takes_them() {
    let theirs = Session::start(config().gdb(Endpoint::free_port()))
        .await
        .unwrap();
    let Some(gdb_port::StubAddress::Tcp(address)) = theirs.gdb() else {
        panic!("no stub")
    };
    let expected = steps_of_gdb(&address.to_string());

    let session = Session::start(config()).await.unwrap();
    let mut debugger = session.debugger().await.unwrap();
    for (step, expected) in expected[..STEPS].iter().enumerate() {
        debugger.step_instruction().await.unwrap();
        let registers = debugger.read_registers().await.unwrap();
        let values = NAMES.map(|name| format!("{:x}", registers.get(name).unwrap()));
        assert_eq!(values.join(" "), *expected, "after step {step}");
    }
    let counter = debugger.read_memory(0x2000_0000, 4).await.unwrap();
    let counter = u32::from_le_bytes(counter.try_into().unwrap());
    assert_eq!(format!("{counter:x}"), expected[STEPS]);
}
