//! A launcher of virtual machines that prints the command line of each: an x86-64 machine with
//! disk, network and VNC, and a RISC-V board with bare firmware. Nothing is started.
//!
//! `cargo run -p qemu-launch --example vm_launcher [run]`; with `run` the first one is started by
//! `std::process::Command`, which needs `qemu-system-x86_64` and the disk.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use qemu_launch::{Backend, Display, Drive, Endpoint, MachineSpec, Nic, Sandbox};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("/run/vm-1");
    let pc = x86_64(Path::new("/var/lib/vm-1/disk.qcow2"), folder)
        .argv(Path::new("/usr/bin/qemu-system-x86_64"), folder)?;
    println!("{pc}");
    println!(
        "{}",
        riscv(Path::new("firmware.elf")).argv(Path::new("/usr/bin/qemu-system-riscv32"), folder)?
    );
    if std::env::args().nth(1).as_deref() == Some("run") {
        let status = Command::from(&pc).status()?;
        println!("{status}");
    }
    Ok(())
}

fn x86_64(disk: &Path, folder: &Path) -> MachineSpec {
    MachineSpec::new("qemu-system-x86_64", "q35")
        .memory("2G")
        .smp(2)
        .drive(Drive::qcow2("virtio", disk))
        .nic(Nic::user().property("model", "virtio-net-pci"))
        .qmp(Endpoint::Socket(folder.join("qmp.sock")))
        .serial(Backend::File {
            path: folder.join("console.log"),
            append: true,
        })
        .display(Display::Vnc(Endpoint::Socket(folder.join("vnc.sock"))))
        .sandbox(Sandbox::Strict)
}

fn riscv(firmware: &Path) -> MachineSpec {
    MachineSpec::new("qemu-system-riscv32", "virt")
        .without_bios()
        .without_qmp()
        .firmware(firmware)
        .serial(Endpoint::PrivateSocket)
}
