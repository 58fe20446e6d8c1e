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

#[test]
fn words_that_make_no_sense() {
    refused(Call::new::<&str>([]), &["<FIRMWARE>", "Usage"]);
    refused(
        Call::image("tick", ["--timeout", "10"]),
        &["--timeout", "time unit"],
    );
    refused(Call::image("tick", ["--gdb=192.0.2.1:1234"]), &["loopback"]);
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
