//! Tests in the firmware, 50 that take no time: by restore, by fork, with one QEMU for each, by a
//! shell's loop of one QEMU for each, and beside the bare restore and continue by hand.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use qemu_controller::testing::{Isolation, TestCase, TestRun, embedded_tests};
use qemu_controller::{QemuConfig, Semihosting};
use tempfile::TempDir;

use crate::Bench;
use crate::peers::runtime;
use crate::report::{Limit, Report};
use crate::snapshots::Bare;
use crate::stats::{Contender, Spread, take_turns};
use crate::stub::Stub;

const RESTORE: &str = "qemu-controller, restore";
const RESTORE_ALONE: &str = "qemu-controller, restore, one machine";
const FORK: &str = "qemu-controller, fork";
const BOOT: &str = "qemu-controller, one QEMU a test";
const SHELL: &str = "a shell's loop of one QEMU a test";
const BY_HAND: &str = "bare restore and continue by hand, one machine";

/// How often the 50 are run in a round: of what a test takes, its share of the boot is 2 % then.
const TIMES: usize = 20;

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let fixture = "qemu-controller/fixtures/embedded-test/empty.elf";
    let firmware = bench.root.join(fixture);
    let tests = embedded_tests(&firmware)?.context("the fixture has tests")?;
    let many: Vec<_> = std::iter::repeat_n(&tests, TIMES)
        .flatten()
        .cloned()
        .collect();
    let runtime = runtime()?;
    let with = |isolation, threads, tests: &[TestCase]| {
        let config = QemuConfig::default()
            .firmware(&firmware)
            .semihosting(Semihosting::console());
        let run = TestRun::new(config).isolation(isolation).threads(threads);
        let since = Instant::now();
        let results = runtime.block_on(run.run(tests, |_| {}))?;
        let took = since.elapsed();
        ensure!(
            results.iter().all(|result| result.outcome.is_success()),
            "a test failed"
        );
        Ok(vec![tests.len() as f64 / took.as_secs_f64()])
    };
    let mut by_hand = ByHand::start(&firmware)?;
    let contenders = vec![
        Contender::new(RESTORE, || with(Isolation::Restore, 2, &many)),
        Contender::new(RESTORE_ALONE, || with(Isolation::Restore, 1, &many)),
        Contender::new(FORK, || with(Isolation::Fork, 2, &tests)),
        Contender::new(BOOT, || with(Isolation::Boot, 2, &tests)),
        Contender::new(SHELL, || shell(&firmware, &tests)),
        Contender::new(BY_HAND, || by_hand.round(&many)),
    ];
    let measured = take_turns(bench.rounds(2, 8), contenders)?;
    report.rows("tests", &[("tests", "/s")], &measured);
    let rate = crate::stats::of(&measured, RESTORE, 0).and_then(Spread::of);
    report.aim(
        "tests a second, restored, two machines",
        rate,
        Limit::AtLeast(200.0),
    );
    let what = "tests, how many times faster by restore than with one QEMU a test";
    report.ratio(what, &measured, (RESTORE, BOOT), 0, Limit::AtLeast(8.0));
    let what = "tests, restored, against the bare restore and continue by hand";
    report.ratio(
        what,
        &measured,
        (BY_HAND, RESTORE_ALONE),
        0,
        Limit::AtMost(1.3),
    );
    Ok(())
}

/// As people do without a runner: QEMU answers the question itself.
fn shell(firmware: &Path, tests: &[TestCase]) -> Result<Vec<f64>> {
    let addresses: Vec<_> = tests
        .iter()
        .map(|test| test.address().to_string())
        .collect();
    let line = "for address in $1; do qemu-system-arm -nodefaults -display none -serial null -machine lm3s6965evb -cpu cortex-m3 -m 64K -kernel \"$0\" \
        -semihosting-config enable=on,target=native,arg=run_addr,arg=$address || exit 1; done";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .arg(firmware)
        .arg(addresses.join(" "));
    let since = Instant::now();
    let status = shell.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "the shell's loop: {status}");
    Ok(vec![tests.len() as f64 / since.elapsed().as_secs_f64()])
}

/// The least that restores, answers and continues: QMP and the stub's protocol as written down.
struct ByHand {
    bare: Bare,
    stub: Stub,
    buffer: u64,
    block: u64,
    pc: u64,
    _folder: TempDir,
}

impl ByHand {
    fn start(firmware: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("stub");
        let mut bare = Bare::start(firmware)?;
        let stub = Stub::new(bare.stub(&path)?);
        let mut by_hand = Self {
            bare,
            stub,
            buffer: 0,
            block: 0,
            pc: 0,
            _folder: folder,
        };
        // QEMU 7.2 answers for single registers once the description has been read.
        by_hand.ask("qXfer:features:read:target.xml:0,1000")?;
        for site in sites(firmware)? {
            by_hand.ask(&format!("Z0,{site:x},2"))?;
        }
        while by_hand.go_on()?[0] != 0x15 {
            ensure!(by_hand.pc != 0, "it does not ask for its command line");
            let next = by_hand.pc + 2;
            by_hand.set(15, next)?;
        }
        let block = by_hand.ask(&format!("m{:x},4", by_hand.block))?;
        by_hand.buffer = word(&block, 0)?;
        by_hand.bare.save("booted")?;
        Ok(by_hand)
    }

    fn round(&mut self, tests: &[TestCase]) -> Result<Vec<f64>> {
        let (pc, block) = (self.pc, self.block);
        let since = Instant::now();
        for test in tests {
            self.bare.load("booted")?;
            let line = format!("run_addr {}", test.address());
            let hex: String = line.bytes().map(|byte| format!("{byte:02x}")).collect();
            self.ask(&format!("M{:x},{:x}:{hex}00", self.buffer, line.len() + 1))?;
            let length = (line.len() as u32).swap_bytes();
            self.ask(&format!("M{:x},4:{length:08x}", block + 4))?;
            self.set(0, 0)?;
            self.set(15, pc + 2)?;
            let [operation, parameter] = self.go_on()?;
            ensure!(
                operation == 0x20 || operation == 0x18,
                "call {operation:#x}"
            );
            let exit = self.ask(&format!("m{parameter:x},8"))?;
            ensure!(word(&exit, 8)? == 0, "the test failed: {exit}");
        }
        (self.pc, self.block) = (pc, block);
        Ok(vec![tests.len() as f64 / since.elapsed().as_secs_f64()])
    }

    /// Continues to the next call; its two registers.
    fn go_on(&mut self) -> Result<[u64; 2]> {
        self.ask("c")?;
        let registers = self.ask("g")?;
        self.pc = word(&registers, 15 * 8)?;
        let call = [word(&registers, 0)?, word(&registers, 8)?];
        self.block = call[1];
        Ok(call)
    }

    fn set(&mut self, register: u32, value: u64) -> Result<()> {
        let value = (value as u32).swap_bytes();
        self.ask(&format!("P{register:x}={value:08x}")).map(drop)
    }

    fn ask(&mut self, text: &str) -> Result<String> {
        Ok(String::from_utf8(self.stub.ask(text)?.to_vec())?)
    }
}

/// A word of a reply, little endian, at this digit.
fn word(reply: &str, at: usize) -> Result<u64> {
    let digits = reply
        .get(at..at + 8)
        .with_context(|| format!("{reply:?} is too short"))?;
    Ok(u64::from(u32::from_str_radix(digits, 16)?.swap_bytes()))
}

/// The addresses of `bkpt #0xab` in the image's code, which is loaded where it says.
fn sites(firmware: &Path) -> Result<Vec<u64>> {
    use qemu_controller::firmware_info::Firmware;
    let firmware = Firmware::open(firmware)?;
    let mut sites = Vec::new();
    for section in firmware
        .sections()
        .iter()
        .filter(|section| section.executable)
    {
        let mut code = vec![0; section.size as usize];
        ensure!(
            firmware.loaded(section.address, &mut code),
            "the code cannot be read"
        );
        let calls = code
            .chunks(2)
            .enumerate()
            .filter(|(_, word)| *word == [0xab, 0xbe]);
        sites.extend(calls.map(|(at, _)| section.address + 2 * at as u64));
    }
    Ok(sites)
}
