//! What is said of each way to fault: the words, and the line.

use std::path::{Path, PathBuf};

use qemu_controller::firmware_info::Firmware;

use crate::support::{Call, Said};

/// Case, exit status, what the first line says, and whether it names the marked line itself; the
/// lines below do so otherwise.
const CASES: [(&str, i32, &str); 21] = [
    (
        "null-read",
        139,
        "MemManage: a data access that the MPU forbids (DACCVIOL) at 0x00000004, in null_read at",
    ),
    (
        "null-write",
        139,
        "MemManage: a data access that the MPU forbids (DACCVIOL) at 0x00000008, in null_write at",
    ),
    (
        "null-call",
        139,
        "UsageFault: a branch to an address without the Thumb bit (INVSTATE), in vectors, called by null_call at",
    ),
    (
        "unaligned",
        139,
        "UsageFault: an unaligned access (UNALIGNED), in unaligned at",
    ),
    (
        "undefined",
        139,
        "UsageFault: an undefined instruction (UNDEFINSTR), in undefined at",
    ),
    (
        "divide",
        139,
        "UsageFault: a division by zero (DIVBYZERO), in divide at",
    ),
    (
        "no-execute",
        139,
        "MemManage: an instruction fetch from where execution is forbidden (IACCVIOL), in code_in_ram, called by no_execute at",
    ),
    ("overflow", 139, "the stack is that of recurse at"),
    ("overflow-into-data", 139, "called by recurse_to at"),
    (
        "bad-exc-return",
        139,
        "UsageFault: an exception return with a bad EXC_RETURN or stacked state (INVPC), in bad_exc_return at",
    ),
    (
        "mpu",
        139,
        "MemManage: a data access that the MPU forbids (DACCVIOL) at 0x2000010c, in mpu at",
    ),
    (
        "bus",
        139,
        "BusFault: a data access that nothing answered (PRECISERR) at 0x60000010, in bus at",
    ),
    (
        "usage",
        139,
        "in the handler of UsageFault: UsageFault: an undefined instruction (UNDEFINSTR), in usage at",
    ),
    (
        "escalation",
        139,
        "UsageFault: an undefined instruction (UNDEFINSTR), in escalation at",
    ),
    ("lockup", 134, "can't escalate 3 to HardFault"),
    ("no-vectors", 134, "can't take terminal derived exception"),
    (
        "assertion",
        121,
        "__assert_func was called, in assertion at",
    ),
    (
        "stack-hook",
        121,
        "vApplicationStackOverflowHook was called, in stack_hook at",
    ),
    (
        "thread",
        139,
        "UsageFault: a division by zero (DIVBYZERO), in divide at",
    ),
    (
        "guarded-thread",
        139,
        "in the handler of UsageFault: UsageFault: a division by zero (DIVBYZERO), in divide at",
    ),
    ("panic", 121, "panicked, in third at"),
];

fn fixture(name: &str) -> PathBuf {
    let faults = "../firmware-info/fixtures/faults";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(faults)
        .join(name)
}

/// The file and line that are marked with a case's name, as the debug information has them.
fn marked_line(case: &str) -> String {
    let (file, path) = match case {
        "panic" => ("panic/src/main.rs", "/fixtures/faults/panic/src/main.rs"),
        _ => ("faults.c", "/fixtures/faults/faults.c"),
    };
    let case = if case.ends_with("thread") {
        "divide"
    } else {
        case
    };
    let text = std::fs::read_to_string(fixture(file)).unwrap();
    let mark = format!("LINE {case}");
    let is_marked = |line: &str| {
        line.split("LINE ").nth(1).is_some() && {
            let rest = &line[line.find(&mark).unwrap_or(line.len())..];
            let end = rest.strip_prefix(&mark);
            end.is_some_and(|end| end.is_empty() || end.starts_with(' '))
        }
    };
    let line = text.lines().position(is_marked).unwrap() + 1;
    format!("{path}:{line}:")
}

fn run(case: &str, words: &[&str]) -> Call {
    let image = match case {
        "overflow" => "stack-first.elf",
        "panic" => "panic.elf",
        _ => "faults.elf",
    };
    let machine: &[&str] = match case {
        "panic" => &[],
        _ => &["--machine", "stm32vldiscovery"],
    };
    let image = fixture(image);
    let ours = machine.iter().chain(words).map(|word| word.to_string());
    let ours = ours.chain(["--timeout=40s".to_owned()]);
    Call::new(ours.chain([image.display().to_string(), case.to_owned()]))
}

fn check(case: &str, status: i32, words: &str, said: &Said) {
    let stderr = &said.stderr;
    assert!(stderr.contains(words), "{case}: {stderr}");
    assert!(
        stderr.contains(&marked_line(case)),
        "{case}: {} in {stderr}",
        marked_line(case)
    );
    assert!(stderr.lines().count() <= 10, "{case}: {stderr}");
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let document = std::fs::read_to_string(document).unwrap();
    // A stack overflow of the same firmware has other addresses with another compiler only.
    for line in stderr.lines() {
        let line = line.trim_start().trim_start_matches("qemu-controller: ");
        assert!(
            document.contains(line),
            "docs/faults.md does not have, of {case}: {line}\n{stderr}"
        );
    }
    assert_ne!(status, 0);
}

#[test]
fn each_fault_is_named_with_its_line() {
    for (case, status, words) in CASES {
        let said = run(case, &[]).ends_with(status);
        check(case, status, words, &said);
    }
}

/// No frame could be pushed. QEMU before 8.1 does not tell PSP, so that whose stack it is cannot be
/// known there.
#[test]
fn a_stack_that_overflows_into_its_guard_is_named() {
    let stderr = run("guarded-overflow", &[]).ends_with(139).stderr;
    assert!(stderr.contains("a stack overflow (MSTKERR)"), "{stderr}");
    match stderr.contains("PSP is not known") {
        true => assert!(
            stderr.contains("which code did it is not known"),
            "{stderr}"
        ),
        false => {
            assert!(
                stderr.contains("the stack is that of recurse at /fixtures"),
                "{stderr}"
            );
            assert!(
                stderr.contains("of 1024 bytes of stack left (to worker_stack)"),
                "{stderr}"
            );
        }
    }
}

/// Cores that are no Cortex-M, and what their images need.
const PROFILES: [(&str, &[&str]); 4] = [
    ("arm", &["--machine", "virt", "--cpu", "cortex-a15"]),
    ("aarch64", &[]),
    ("riscv32", &[]),
    ("riscv64", &[]),
];

/// Each of them is named with its line and its callers, in the document's words.
#[test]
fn cores_that_are_no_cortex_m_are_told_alike() {
    let source = std::fs::read_to_string(fixture("../profiles/faults.c")).unwrap();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let document = std::fs::read_to_string(document).unwrap();
    let line_of = |mark: &str| {
        let line = source.lines().position(|line| line.contains(mark));
        format!("/fixtures/profiles/faults.c:{}:", line.unwrap() + 1)
    };
    let run = |profile: &str, machine: &[&str], case: &str, timeout: &str| {
        let image = fixture(&format!("../profiles/{profile}.elf"));
        let words = [timeout, &image.display().to_string(), case].map(str::to_owned);
        Call::new(machine.iter().map(|word| word.to_string()).chain(words))
    };
    for (profile, machine) in PROFILES {
        for (case, outermost) in [
            ("read", "start"),
            ("write", "start"),
            ("undefined", "start"),
            ("jump", "start"),
            ("thread", "thread at"),
        ] {
            let said = run(profile, machine, case, "--timeout=40s").ends_with(139);
            let arch = profile.trim_end_matches("32").trim_end_matches("64");
            let mark = match case {
                "undefined" => format!(
                    "LINE undefined {}",
                    if profile == "aarch64" { profile } else { arch }
                ),
                "thread" => "LINE read".to_owned(),
                case => format!("LINE {case} "),
            };
            let stderr = &said.stderr;
            assert!(
                stderr.contains(&line_of(&mark)),
                "{profile} {case}: {stderr}"
            );
            assert!(stderr.contains(outermost), "{profile} {case}: {stderr}");
            let first = stderr
                .lines()
                .find(|line| line.contains("a core stays"))
                .unwrap();
            let (_, words) = first.split_once("handler of ").unwrap();
            let (_, words) = words.split_once(": ").unwrap();
            let row = format!("| {profile} | {case} | {words} |");
            assert!(
                document.contains(&row),
                "docs/faults.md does not have: {row}"
            );
        }
        // One that comes back from its fault goes on, and may do nothing for good then.
        let said = run(profile, machine, "handled", "--timeout=40s").ends_with(3);
        assert!(
            said.stderr.contains("exited with status 3"),
            "{profile}: {}",
            said.stderr
        );
        let said = run(profile, machine, "handled-and-idle", "--timeout=2s").ends_with(124);
        assert!(
            said.stderr.contains("is in main at"),
            "{profile}: {}",
            said.stderr
        );
    }
}

/// It is a loop of nothing that ends the run, not a fault.
#[test]
fn a_firmware_that_handles_its_faults_is_not_disturbed() {
    for on_fault in ["stop", "continue"] {
        let said = run("handled", &["--on-fault", on_fault]).ends_with(3);
        assert_eq!(said.stdout, "handled\n");
        assert_eq!(
            said.stderr,
            "qemu-controller: the firmware exited with status 3\n"
        );
    }
    let said = run("exit-3", &[]).ends_with(3);
    assert_eq!(
        said.stderr,
        "qemu-controller: the firmware exited with status 3\n"
    );
}

/// Watched or not, the same instructions are executed in the same order. Where there are breakpoints
/// in a page, QEMU translates its instructions one by one, so there are more blocks.
#[test]
fn a_deterministic_run_is_the_same_with_and_without() {
    let image = fixture("../rust/release.elf").display().to_string();
    let run = |on_fault: &str| {
        let log = tempfile::NamedTempFile::new().unwrap();
        let path = log.path().display().to_string();
        let call = Call::new(["--deterministic", "--on-fault", on_fault, &image]);
        call.qemu_args(&["-d", "exec,nochain", "-D", &path])
            .ends_with(0);
        let text = std::fs::read_to_string(log.path()).unwrap();
        let blocks = text.lines().filter(|line| line.starts_with("Trace"));
        let pc = |line: &str| line.split('/').nth(1).unwrap().to_owned();
        blocks.map(pc).collect::<Vec<_>>()
    };
    let (watched, alone) = (run("stop"), run("continue"));
    assert!(alone.len() > 1000, "{}", alone.len());
    let mut watched = watched.into_iter();
    let lost = alone
        .iter()
        .position(|pc| !watched.any(|other| other == *pc));
    assert_eq!(lost, None, "of {} blocks", alone.len());
}

/// A raw image of what an ELF file loads, from its lowest address on.
fn raw(elf: &str) -> (tempfile::NamedTempFile, u64) {
    let firmware = Firmware::open(fixture(elf)).unwrap();
    let sections = firmware.sections().iter();
    let mut sections: Vec<_> = sections.filter(|section| section.loaded).collect();
    sections.sort_by_key(|section| section.address);
    let base = sections[0].address;
    let mut bytes = Vec::new();
    for section in sections {
        let mut loaded = vec![0; section.size as usize];
        // Not what begins as zeros.
        if !loaded.is_empty() && firmware.loaded(section.address, &mut loaded) {
            bytes.resize((section.address - base) as usize, 0);
            bytes.extend(loaded);
        }
    }
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&image, bytes).unwrap();
    (image, base)
}

/// Without an ELF file a fault ends the run as well, with addresses instead of names.
#[test]
fn a_raw_image_is_told_by_its_addresses() {
    let stm32: &[&str] = &["--machine=stm32vldiscovery"];
    let riscv32: &[&str] = &["--qemu=qemu-system-riscv32", "--machine=virt"];
    let riscv64: &[&str] = &["--qemu=qemu-system-riscv64", "--machine=virt"];
    for (elf, machine, case, function, caller, words) in [
        (
            "faults.elf",
            stm32,
            "bus",
            "bus",
            "reset_handler",
            "(PRECISERR) at 0x60000010, in code at ",
        ),
        // A thread's stack is not told by QEMU before 8.1.
        (
            "faults.elf",
            stm32,
            "thread",
            "divide",
            "in_worker",
            "a division by zero (DIVBYZERO), in code at ",
        ),
        (
            "../profiles/riscv32.elf",
            riscv32,
            "read",
            "read_nothing",
            "main",
            "(load access fault) at 0x08f00000, in code at ",
        ),
        (
            "../profiles/riscv64.elf",
            riscv64,
            "undefined",
            "undefined",
            "main",
            "(illegal instruction), in code at ",
        ),
    ] {
        let (image, base) = raw(elf);
        let run = |case: &str| {
            let words = ["--timeout=40s", "--raw", &base.to_string()].map(str::to_owned);
            let image = [image.path().display().to_string(), case.to_owned()];
            let machine = machine.iter().map(|word| (*word).to_owned());
            let semihosting = ["--semihosting=full".to_owned()];
            Call::new(machine.chain(semihosting).chain(words).chain(image))
        };
        let said = run(case).ends_with(139).stderr;
        assert!(said.contains(words), "{elf} {case}: {said}");
        assert!(said.lines().count() <= 10, "{elf} {case}: {said}");
        // The addresses are those of the code that the ELF file names.
        let firmware = Firmware::open(fixture(elf)).unwrap();
        for (frame, name) in said
            .lines()
            .filter(|line| line.contains('#'))
            .zip([function, caller])
        {
            let address = frame.split(" 0x").nth(1).unwrap();
            let address = u64::from_str_radix(&address[..8], 16).unwrap();
            let symbol = firmware.symbol_at(address).unwrap().symbol;
            assert_eq!(symbol.name, name, "{elf} {case}: {said}");
        }
        assert_eq!(said.matches('#').count(), 2, "{elf} {case}: {said}");
        // One that comes back from its fault is not disturbed.
        run("handled").ends_with(3);
    }
}
