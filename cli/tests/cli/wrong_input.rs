//! What cannot work is refused with what was wrong, where, and what to do; nothing is printed as if
//! by the firmware.

use std::net::TcpListener;
use std::path::Path;

use crate::support::{Call, Said, image};

/// Sees that it fails with all these words, at the first try and without a QEMU left.
fn refused(call: Call, words: &[&str]) {
    let Said { stdout, stderr } = call.ends_with(125);
    assert_eq!(stdout, "", "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

#[test]
fn firmware_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let run = |path: &Path| Call::new([path]);
    refused(run(&folder.path().join("missing.elf")), &["missing.elf"]);
    refused(run(folder.path()), &["is a folder"]);
    refused(run(&write("empty.elf", b"")), &["empty.elf is empty"]);
    refused(
        run(&write("main.c", b"int main(void) {}\n")),
        &["main.c is a text file", "an ELF file was wanted"],
    );
    refused(
        run(&write("image.bin", b"\0\0\x01\x20")),
        &["image.bin", "neither an ELF nor an Intel HEX", "--raw"],
    );
    refused(
        run(&write("damaged.elf", b"\x7fELF\x01\x01")),
        &["damaged.elf", "cut off or damaged"],
    );
    // This program itself.
    refused(
        run(&std::env::current_exe().unwrap()),
        &["--qemu", "64 bit", "qemu-system-arm runs"],
    );
    refused(
        run(&write(
            "damaged.hex",
            b":0400000001020304F2\n:0400000001020304F3\n",
        )),
        &["line 2", "checksum"],
    );
    refused(
        run(&write("half.hex", b":0400000001020304F2\n")),
        &["half.hex is cut off"],
    );
    refused(
        Call::new(
            ["--raw", "0"]
                .map(Path::new)
                .into_iter()
                .chain([folder.path()]),
        ),
        &["is a folder"],
    );
}

/// An address for a raw image does not make the CPU begin there. One that ran, and left its code, is
/// not said to have never run.
#[test]
fn a_raw_image_at_which_no_core_begins_is_said_to_be() {
    let image = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&image, [0x14, 0, 0, 0].repeat(64)).unwrap();
    for (qemu, cpu, timeout, status, words) in [
        ("arm", "cortex-a15", "1s", 124, ", where no code is"),
        (
            "aarch64",
            "cortex-a53",
            "20s",
            139,
            "instruction 00000000 at 0x0",
        ),
    ] {
        let qemu = format!("--qemu=qemu-system-{qemu}");
        let cpu = format!("--cpu={cpu}");
        let timeout = format!("--timeout={timeout}");
        let words_of = [&qemu, &cpu, &timeout, "--machine=virt", "--raw=0x50000000"];
        let call = Call::new(words_of.map(Path::new).into_iter().chain([image.path()]));
        let Said { stderr, .. } = call.ends_with(status);
        let begins = "the image was loaded at 0x50000000, which does not make the CPU begin there";
        for words in [begins, words] {
            assert!(stderr.contains(words), "{qemu}: {stderr}");
        }
    }
    // mov r0, #0x50000000; bx r0
    let code = [0xe3a0_0205_u32, 0xe12f_ff10].map(u32::to_le_bytes);
    std::fs::write(&image, code.concat()).unwrap();
    let words = [
        "--machine=virt",
        "--cpu=cortex-a15",
        "--raw=0",
        "--timeout=20s",
    ];
    let call = Call::new(words.map(Path::new).into_iter().chain([image.path()]));
    let Said { stderr, .. } = call.ends_with(139);
    assert!(stderr.contains("at 0x50000000, in code at"), "{stderr}");
    assert!(!stderr.contains("may never have run"), "{stderr}");
}

#[test]
fn a_call_names_what_only_run_can_do_and_a_file_is_no_bundle() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // As 32-bit Arm's zImage begins.
    let magic = 0x016f_2818_u32.to_le_bytes();
    let kernel = [&[0; 0x24], &magic[..], &[0; 64]].concat();
    for (verb, contents, words) in [
        (
            "serve",
            &kernel[..],
            "is a Linux kernel's image; an ELF file was wanted (`qemu-controller run --unchecked` does that, the calls do not)",
        ),
        (
            "serve",
            b":00000001FF\n",
            "an ELF file was wanted (`qemu-controller run` does that, the calls do not)",
        ),
        (
            "serve",
            &[0, 0, 1, 0x20],
            "an ELF file was wanted (`qemu-controller run --raw` does that, the calls do not)",
        ),
        (
            "serve",
            b"text",
            "(is it the source instead of the build's result?)",
        ),
        (
            "open",
            &kernel,
            "is no bundle that can be opened: it is a file, and a bundle is a folder",
        ),
    ] {
        std::fs::write(&file, contents).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_qemu-controller"))
            .arg(verb)
            .arg(file.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(words),
            "{stderr}"
        );
    }
}

#[test]
fn symbols_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no ELF file\n").unwrap();
    let of_another_cpu = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_another_cpu = of_another_cpu.join("../firmware-info/fixtures/same/mips.elf");
    let hex = folder.path().join("firmware.hex");
    std::fs::write(&hex, ":00000001FF\n").unwrap();
    for (symbols, why) in [
        (&*folder.path().join("missing.elf"), "there is no file"),
        (folder.path(), "is a folder"),
        (Path::new("/dev/zero"), "is a device, pipe or socket"),
        (&text, "is a text file"),
        (&hex, "(name the ELF file that it was made of)"),
        (&of_another_cpu, "is for another CPU: MIPS"),
    ] {
        let words = [Path::new("--symbols"), symbols, &image("tick")];
        let name = symbols.to_str().unwrap();
        refused(Call::new(words), &["--symbols: ", name, why]);
    }
}

#[test]
fn a_machine_that_cannot_be() {
    refused(
        Call::image("tick", ["--machine", "no-such-board"]),
        &[
            "qemu-system-arm knows no machine 'no-such-board'",
            "-machine help",
        ],
    );
    refused(
        Call::image("tick", ["--cpu", "no-such-cpu"]),
        &["no-such-cpu"],
    );
    refused(
        Call::image("tick", ["--memory", "much"]),
        &["\"much\" is no amount of memory"],
    );
    refused(
        Call::image("tick", []).qemu_args(&["-no-such-option"]),
        &["-no-such-option"],
    );
    refused(
        Call::image("tick", []).qemu_args(&["-gdb", "tcp::1234"]),
        &["-gdb"],
    );
}

#[test]
fn a_qemu_that_is_not_there() {
    refused(
        Call::image("tick", ["--qemu", "/no/such/qemu-system-arm"]),
        &["/no/such/qemu-system-arm"],
    );
    let nowhere = tempfile::tempdir().unwrap();
    let bare = Call::image("tick", [])
        .env("PATH", nowhere.path())
        .env("QEMU_SYSTEM_ARM", "");
    refused(bare, &["qemu-system-arm was not found", "install it"]);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let option = format!("--gdb={address}");
    let said = Call::image("tick", [option.as_str()]).ends_with(125).stderr;
    let owner = format!("(process {}): ", std::process::id());
    let in_use = format!("qemu-controller: {address} is in use by ");
    assert!(said.starts_with(&in_use) && said.contains(&owner), "{said}");
    assert!(
        said.contains("--gdb=free") && said.lines().count() == 1,
        "{said}"
    );
}

/// A multiboot kernel's modules have arguments behind their names, which QEMU takes apart.
#[test]
fn modules_of_a_multiboot_kernel_are_no_one_file() {
    let kind = test_support::ElfKind {
        machine: 3,
        flags: 0,
        big_endian: false,
    };
    // Without arguments for itself, and a jump to itself.
    let words = [0x1bad_b002_u32, 0, 0x1bad_b002_u32.wrapping_neg(), 0xfeeb];
    let code = words.map(u32::to_le_bytes).concat();
    let folder = tempfile::tempdir().unwrap();
    let [kernel, module] = ["kernel.elf", "module"].map(|name| folder.path().join(name));
    std::fs::write(
        &kernel,
        test_support::elf(kind, 0x10_000c, &[(0x10_0000, &code)]),
    )
    .unwrap();
    std::fs::write(&module, "module").unwrap();
    let modules = format!("{0} verbose,{0}", module.display());
    let words = ["--qemu", "qemu-system-x86_64", "--machine", "pc"];
    let words = words
        .into_iter()
        .chain(["--timeout", "1s", "--initrd", &modules]);
    Call::new(words.chain(kernel.to_str())).ends_with(124);
}

#[test]
fn words_that_make_no_sense() {
    refused(Call::new::<&str>([]), &["<FIRMWARE>", "Usage"]);
    refused(
        Call::image("tick", ["--timeout", "10"]),
        &["--timeout", "time unit"],
    );
    refused(Call::image("tick", ["--gdb=192.0.2.1:1234"]), &["loopback"]);
    refused(
        Call::image("tick", ["--initrd", "no/such"]),
        &["there is no file no/such"],
    );
    refused(
        Call::image("tick", ["--expect-regex", "("]),
        &["--expect-regex", "unclosed group"],
    );
}

#[test]
fn a_configuration_file_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("qemu-controller.toml"),
        "timeout = \"1s\"\nmashine = \"x\"\n",
    )
    .unwrap();
    let call = Call::image("tick", []).folder(folder.path());
    refused(
        call,
        &[
            "qemu-controller.toml",
            "line 2",
            "unknown field `mashine`",
            "`machine`",
        ],
    );
    refused(
        Call::image("tick", ["--config", "no/such.toml"]),
        &["no/such.toml"],
    );
}

#[test]
fn a_configuration_file_from_above_is_heeded() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    let text = "machine = \"no-such-board\"\ntimeout = \"5s\"\nlog = \"firmware.log\"\n";
    std::fs::write(folder.path().join("qemu-controller.toml"), text).unwrap();
    refused(Call::image("tick", []).folder(&inner), &["no-such-board"]);
    // The command line counts more.
    let call = Call::new([
        Path::new("--machine"),
        Path::new("lm3s6965evb"),
        &image("wfi"),
    ])
    .folder(&inner);
    let said = call.ends_with(124);
    assert_eq!(said.stdout, "boot\n");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("firmware.log")).unwrap(),
        "boot\n"
    );
}

#[test]
fn an_option_of_qemu_s_that_has_one_here() {
    for (words, option) in [
        (&["-s"][..], "--gdb"),
        (&["-S"], "--gdb"),
        (&["-machine", "x"], "--machine"),
    ] {
        let call = Call::image("tick", []).qemu_args(words);
        refused(
            call,
            &[words[0], &format!("{option} is what sets that here")],
        );
    }
    // A harmless repetition.
    Call::image("semihosting-exit", [])
        .qemu_args(&["-nographic"])
        .ends_with(7);
}

#[test]
fn a_configuration_file_says_what_it_decides_and_is_not_taken_from_strangers() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("firmware.log");
    let path = folder.path().join("qemu-controller.toml");
    std::fs::write(&path, "log = \"firmware.log\"\n").unwrap();
    let run = || Call::image("semihosting-exit", []).folder(folder.path());
    let said = run().ends_with(7).stderr;
    assert!(
        said.contains(&format!("{} sets log\n", path.display())),
        "{said}"
    );
    assert!(log.exists());

    std::fs::remove_file(&log).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let said = run().ends_with(7).stderr;
    let ignored = format!(
        "{} is not read: somebody else can write its folder",
        path.display()
    );
    assert!(said.contains(&ignored) && !log.exists(), "{said}");
}

/// An ELF file with these segments, each an address and its bytes, and a symbol at 0x40.
fn elf(segments: &[(u32, &[u8])], symbol: &[u8]) -> Vec<u8> {
    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
    let strings = [b"\0", symbol, b"\0.text\0.symtab\0.strtab\0"].concat();
    // Where the sections' names begin.
    let text = u32::try_from(symbol.len()).unwrap() + 2;
    let symbols = [vec![0; 16], words(&[1, 0x41, 2, 0x0001_0012])].concat();
    let count = u32::try_from(segments.len()).unwrap();
    let mut offset = 52 + 32 * count;
    let (mut headers, mut bodies) = (Vec::new(), Vec::new());
    for (address, bytes) in segments {
        let length = u32::try_from(bytes.len()).unwrap();
        headers.extend(words(&[
            1, offset, *address, *address, length, length, 5, 4,
        ]));
        bodies.extend_from_slice(bytes);
        offset += length;
    }
    let (at_symbols, at_strings) = (offset, offset + 32);
    let length = u32::try_from(strings.len()).unwrap();
    let at_sections = at_strings + length;
    let sections = [
        vec![0; 40],
        words(&[text, 1, 6, 0x40, 52 + 32 * count, 4, 0, 0, 4, 0]),
        words(&[text + 6, 2, 0, 0, at_symbols, 32, 3, 1, 4, 16]),
        words(&[text + 14, 3, 0, 0, at_strings, length, 0, 0, 1, 0]),
    ];
    let start = [
        b"\x7fELF\x01\x01\x01".to_vec(),
        vec![0; 9],
        words(&[
            0x0028_0002,
            1,
            0x41,
            52,
            at_sections,
            0x0500_0200,
            0x0020_0034,
        ]),
        words(&[0x0028_0000 | count, 0x0003_0004]),
    ];
    [
        start.concat(),
        headers,
        bodies,
        symbols,
        strings,
        sections.concat(),
    ]
    .concat()
}

/// A vector table, all of whose vectors are 0x40, and a loop there.
fn endless_loop() -> Vec<u8> {
    let mut code: Vec<u8> = 0x2000_8000_u32.to_le_bytes().to_vec();
    code.extend([0x41, 0, 0, 0].repeat(15));
    code.extend([0xfe, 0xe7]);
    code
}

#[test]
fn a_check_can_be_overruled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blank.elf");
    // Vectors of zero: the core would lock up.
    std::fs::write(&path, elf(&[(0, &[0; 256])], b"blank")).unwrap();
    refused(Call::new([&path]), &["load it with --unchecked"]);
    Call::new([Path::new("--unchecked"), &path]).ends_with(134);
}

#[test]
fn a_symbol_cannot_forge_a_line_or_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("escape.elf");
    let symbol = b"x\x1b]0;owned\x07\nqemu-controller: all tests passed";
    std::fs::write(&path, elf(&[(0, &endless_loop())], symbol)).unwrap();
    let words = [Path::new("--timeout"), Path::new("1s"), &path];
    let said = Call::new(words).ends_with(124).stderr;
    // The lines of the report below are indented.
    let mut further = said.lines().skip(1);
    assert!(further.all(|line| line.starts_with("    ")), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{7}']), "{said}");
    let escaped = r"in x\u{1b}]0;owned\u{7}\nqemu-controller: all tests passed";
    assert!(said.contains(escaped), "{said}");
}

#[test]
fn a_refusal_of_several_lines_is_shown_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overlap.elf");
    let code = endless_loop();
    std::fs::write(&path, elf(&[(0, &code), (0x40, &code[..16])], b"loop")).unwrap();
    let said = Call::new([&path]).ends_with(125).stderr;
    for words in [
        "ROM regions are overlapping",
        "\n      ",
        "segment 0 (",
        "segment 1 (",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn the_firmware_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let firmware = folder.path().join("hello.elf");
    std::fs::copy(image("tick"), &firmware).unwrap();
    let other = folder.path().join("other");
    std::os::unix::fs::symlink(&firmware, &other).unwrap();
    for option in ["--log", "--json"] {
        for path in [&firmware, &other] {
            let option = format!("{option}={}", path.display());
            let words = [option.as_ref(), firmware.as_os_str()];
            refused(Call::new(words), &["it is the firmware"]);
        }
    }
    assert_eq!(
        std::fs::read(&firmware).unwrap(),
        std::fs::read(image("tick")).unwrap()
    );
}

#[test]
fn no_escape_sequence_of_an_argument_reaches_the_terminal() {
    for words in [
        ["--timeout", "\u{1b}]0;x\u{7}", "firmware.elf"],
        ["--bogus\u{1b}[31m\u{9b}2J", "--timeout=1s", "firmware.elf"],
    ] {
        let Said { stderr, .. } = Call::new(words).ends_with(125);
        assert!(stderr.contains("error: "), "{stderr}");
        let is_plain = |character: char| character == '\n' || !character.is_control();
        assert!(stderr.chars().all(is_plain), "{stderr:?}");
    }
}

#[test]
fn the_sandbox_is_taken_off_by_name_alone() {
    refused(
        Call::image("tick", []).qemu_args(&["-sandbox", "off"]),
        &["-sandbox is not passed on", "--semihosting"],
    );
}

/// The home folder is where the search ends, also by a name that is a symbolic link.
#[test]
fn no_file_above_the_home_folder_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home/project");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(
        folder.path().join("qemu-controller.toml"),
        "machine = \"nope\"\n",
    )
    .unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("home"), &link).unwrap();
    let call = |home_folder: &Path| {
        Call::image("semihosting-exit", [])
            .folder(&home)
            .env("HOME", home_folder)
    };
    refused(call(Path::new("/")), &["knows no machine 'nope'"]);
    call(&link).ends_with(7);
}
