//! Real QEMU takes what the types write.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;

use qemu_launch::{
    Action, Address, Backend, Blockdev, Device, Display, Drive, Endpoint, ExitKind, Icount, Log,
    MachineSpec, Monitor, Nic, Semihosting,
};
use serde_json::json;

use test_support::{PATIENCE, eventually, image, soon};

use crate::support::{machine, start};

#[test]
fn every_kind_of_option_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("card,1.img"), vec![0; 1 << 20]).unwrap();
    fs::write(file("disk,2.img"), vec![0; 1 << 20]).unwrap();
    let spec = machine("tick")
        .machine_property("dump-guest-core", "off")
        .smp(1)
        .start_stopped(true)
        .no_reboot()
        .gdb(Endpoint::free_port())
        .semihosting(Semihosting::full().argument("one,two").chardev("console"))
        .chardev("console", Backend::RingBuffer { size: 4096 })
        .serial(Backend::File {
            path: file("serial,1.log"),
            append: true,
        })
        .serial(Backend::Null)
        .serial(Endpoint::PrivateSocket)
        .monitor(Monitor::Human(Endpoint::PrivateSocket))
        .monitor(Monitor::Qmp(Endpoint::free_port()))
        .drive(
            Drive::raw("none", file("card,1.img"))
                .property("id", "card")
                .discard_writes(),
        )
        .blockdev(Blockdev::raw("node1", file("disk,2.img")).read_only())
        .nic(Nic::user_restricted())
        .icount(Icount::shift(6).without_sleep())
        .action(
            Action::new()
                .pause_on_shutdown()
                .pause_on_panic()
                .pause_on_watchdog(),
        )
        .log(Log::items(["guest_errors", "unimp"]).to_file(file("log,1.txt")))
        .global("cortex-m3-arm-cpu", "pmsav7-dregion", "8");
    let (process, mut qmp) = start(&spec);
    assert!(qmp.run_state() == "prelaunch");
    let blocks = qmp
        .execute("query-named-block-nodes", json!({}))
        .to_string();
    assert!(
        blocks.contains("card,1.img") && blocks.contains("disk,2.img") && blocks.contains("node1"),
        "{blocks}"
    );
    let devices = qmp.execute("query-chardev", json!({}));
    for id in [
        "console", "serial0", "serial1", "serial2", "monitor0", "monitor1", "gdb", "qmp",
    ] {
        assert!(
            devices
                .as_array()
                .unwrap()
                .iter()
                .any(|device| device["label"] == id),
            "{id} in {devices}"
        );
    }
    assert!(file("serial,1.log").exists() && file("log,1.txt").exists());
    let warnings = process.stderr_tail().to_string_lossy();
    assert!(!warnings.contains("deprecated"), "{warnings}");
}

#[test]
fn raw_and_hex_images_run() {
    let folder = tempfile::tempdir().unwrap();
    // Stack at the end of SRAM, reset vector 0x9, SYS_EXIT_EXTENDED is left out: a bkpt without
    // semihosting is a fault inside no handler, so that the lockup's registers tell that this code
    // has run.
    let words: [u32; 2] = [0x2001_0000, 0x0000_0009];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // movs r7, #0x5a; udf #0
    code.extend([0x5a_u8, 0x27, 0x00, 0xde]);
    let raw = folder.path().join("a,b.bin");
    fs::write(&raw, &code).unwrap();
    let hex = folder.path().join("a,b.hex");
    let bytes: String = code.iter().map(|byte| format!("{byte:02X}")).collect();
    let sum = code
        .iter()
        .fold(code.len() as u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg();
    fs::write(
        &hex,
        format!(":{:02X}000000{bytes}{sum:02X}\n:00000001FF\n", code.len()),
    )
    .unwrap();

    for spec in [
        MachineSpec::default().raw_image(&raw, 0),
        MachineSpec::default().intel_hex(&hex),
    ] {
        let process = qemu_launch::spawn(&spec).unwrap();
        let exit = process.wait_blocking(soon()).unwrap();
        let ExitKind::Lockup(dump) = exit.kind() else {
            panic!("{exit:?}")
        };
        assert_eq!(dump.register("R07"), Some(0x5a), "{dump:?}");
    }
    assert!(image("tick").is_file());
}

#[test]
fn a_card_for_the_board() {
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("card.img");
    fs::write(&card, vec![0; 1 << 20]).unwrap();
    let (_process, mut qmp) = start(&machine("tick").drive(Drive::raw("sd", &card)));
    assert!(
        qmp.execute("query-block", json!({}))
            .to_string()
            .contains("card.img")
    );
}

#[test]
fn a_device_of_the_boards_bus() {
    let spec = machine("tick").device(
        Device::new("tmp105")
            .property("address", "0x48")
            .property("id", "heat"),
    );
    let (_process, mut qmp) = start(&spec);
    let heat = json!({ "path": "/machine/peripheral/heat", "property": "type" });
    assert_eq!(qmp.execute("qom-get", heat), "tmp105");
}

/// The firmware's checks know these boards' own CPUs; what they let pass runs.
#[test]
fn boards_with_their_own_cpu_run_their_images() {
    for (board, name) in [("lm3s6965evb", "tick"), ("mps2-an385", "tick-mps2")] {
        let folder = tempfile::tempdir().unwrap();
        let serial = folder.path().join("serial");
        let spec = MachineSpec::board(board)
            .firmware(image(name))
            .serial(Backend::File {
                path: serial.clone(),
                append: false,
            });
        let (process, _qmp) = start(&spec);
        eventually("the guest prints", || {
            fs::metadata(&serial).is_ok_and(|file| file.len() > 0)
        });
        assert!(process.try_wait().is_none(), "{board}");
    }
}

/// What a launcher of virtual machines describes, without extra arguments.
#[test]
fn machines_of_other_architectures() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let pc = MachineSpec::new("qemu-system-x86_64", "q35")
        .memory("64M")
        .drive(Drive::raw("virtio", &disk))
        .nic(Nic::user_restricted().property("model", "virtio-net-pci"))
        .display(Display::Vnc(Endpoint::PrivateSocket))
        // Left out there: QEMU would refuse it.
        .semihosting(Semihosting::full());
    let (process, mut qmp) = start(&pc);
    assert_eq!(qmp.run_state(), "running");
    let Some(Address::Socket(path)) = process.address("vnc") else {
        panic!("no VNC")
    };
    let mut greeting = [0; 8];
    let mut vnc = UnixStream::connect(path).unwrap();
    vnc.set_read_timeout(Some(PATIENCE)).unwrap();
    vnc.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB 003.");

    // `b .` and `rjmp .`: they run for ever.
    let (riscv, avr) = (
        folder.path().join("riscv.bin"),
        folder.path().join("avr.bin"),
    );
    fs::write(&riscv, 0x0000_006f_u32.to_le_bytes()).unwrap();
    fs::write(&avr, 0xcfff_u16.to_le_bytes()).unwrap();
    let boards = [
        MachineSpec::new("qemu-system-riscv32", "virt,aclint=off")
            .without_bios()
            .raw_image(&riscv, 0x8000_0000),
        MachineSpec::new("qemu-system-avr", "uno")
            .unchecked_firmware(&avr)
            .semihosting(Semihosting::console())
            .extra_args(["-nographic"]),
    ];
    for board in boards {
        let (_process, mut qmp) = start(&board);
        assert_eq!(qmp.run_state(), "running");
    }
}
