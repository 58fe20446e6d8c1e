//! The command line, word by word, for each part of a description.
#![cfg(unix)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use qemu_launch::{
    Action, Backend, Blockdev, Device, Display, Drive, Endpoint, Icount, Log, MachineSpec, Monitor,
    Nic, Sandbox, Semihosting, SpecError,
};

fn argv(spec: &MachineSpec) -> Result<String, SpecError> {
    Ok(spec
        .argv(
            Path::new("/usr/bin/qemu-system-arm"),
            Path::new("/run/qemu-1"),
        )?
        .to_string())
}

const START: &str = "/usr/bin/qemu-system-arm -nodefaults -no-user-config -display none ";
const BOARD: &str = "-machine lm3s6965evb -cpu cortex-m3 -m 64K";
const QMP: &str = " -chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control";

/// What a description adds to the default command line without a monitor, the sandbox aside.
#[track_caller]
fn check(change: impl FnOnce(MachineSpec) -> MachineSpec, added: &str) {
    let spec = change(MachineSpec::default().without_qmp().sandbox(Sandbox::Off));
    let line = argv(&spec).expect("nothing to refuse");
    assert_eq!(
        line.strip_prefix(START)
            .and_then(|rest| rest.strip_prefix(BOARD)),
        Some(added),
        "{line}"
    );
}

#[test]
fn the_defaults() {
    assert_eq!(
        argv(&MachineSpec::default()).unwrap(),
        format!("{START}{BOARD}{QMP}")
    );
    check(|spec| spec, "");
}

#[test]
fn sound_goes_nowhere_unless_somebody_says_where() {
    let line = |spec: MachineSpec| argv(&spec.without_qmp()).unwrap();
    let silent = line(MachineSpec::board("vexpress-a9"));
    assert!(
        silent.ends_with(
            "-audiodev none,id=audio -global driver=pl041,property=audiodev,value=audio"
        ),
        "{silent}"
    );
    let own = line(MachineSpec::board("vexpress-a9").extra_args(["-audio", "alsa"]));
    assert!(!own.contains("none,id=audio"), "{own}");
}

#[test]
fn the_board() {
    let line = |spec: MachineSpec| argv(&spec.without_qmp()).unwrap()[START.len()..].to_owned();
    assert_eq!(line(MachineSpec::board("microbit")), "-machine microbit");
    let machine = |board| MachineSpec::default().machine(board);
    assert_eq!(line(machine("microbit")), "-machine microbit");
    assert_eq!(
        line(machine("lm3s6965evb")),
        "-machine lm3s6965evb -cpu cortex-m3 -m 64K"
    );
    assert_eq!(
        line(
            MachineSpec::board("mps2-an385")
                .machine_property("x", "a,b")
                .cpu("cortex-m3")
                .cpu_property("vfp", "off")
        ),
        "-machine mps2-an385,x=a,,b -cpu cortex-m3,vfp=off"
    );
    assert_eq!(
        line(MachineSpec::board("lm3s6965evb").memory("16M").smp(2)),
        "-machine lm3s6965evb -m 16M -smp 2"
    );
}

#[test]
fn what_it_runs() {
    check(|spec| spec.firmware("/fw/a,b.elf"), " -kernel /fw/a,b.elf");
    check(
        |spec| spec.raw_image("/fw/a,b.bin", 0x400),
        " -device loader,file=/fw/a,,b.bin,addr=0x400,force-raw=on",
    );
    check(
        |spec| spec.intel_hex("/fw/a.hex"),
        " -device loader,file=/fw/a.hex",
    );
    check(|spec| spec.bios("/fw/rom.bin"), " -bios /fw/rom.bin");
    check(|spec| spec.bios("none"), " -bios none");
    check(|spec| spec.without_bios(), " -bios none");
    check(
        |spec| {
            spec.semihosting(
                Semihosting::full()
                    .argument("one")
                    .argument("two,three")
                    .chardev("out"),
            )
        },
        " -semihosting-config enable=on,target=native,chardev=out,arg=one,arg=two,,three",
    );
    check(
        |spec| spec.start_stopped(true).no_reboot(),
        " -S -no-reboot",
    );
    check(|spec| spec.incoming(), " -incoming defer");
    check(
        |spec| spec.icount(Icount::shift(6).without_sleep()),
        " -icount shift=6,sleep=off",
    );
    check(
        |spec| spec.icount(Icount::automatic()),
        " -icount shift=auto",
    );
    check(
        |spec| spec.action(Action::new().shutdown_on_reboot().pause_on_shutdown()),
        " -action reboot=shutdown,shutdown=pause",
    );
    check(|spec| spec.action(Action::new()), "");
}

/// What differs by the target that the program emulates.
#[test]
fn targets() {
    let spec = |program: &str, machine: &str| {
        MachineSpec::new(program, machine)
            .without_qmp()
            .firmware("/fw/a.elf")
            .semihosting(Semihosting::full())
    };
    let line = |spec: MachineSpec, program: &str| {
        let argv = spec.argv(Path::new(program), Path::new("/")).unwrap();
        argv.to_string()[program.len()..]
            .trim_start_matches(" -nodefaults -no-user-config -display none ")
            .to_owned()
    };
    // Its boards take the ROM and ignore the kernel, and its QEMU refuses semihosting.
    assert_eq!(
        line(spec("qemu-system-avr", "uno"), "/q/qemu-system-avr"),
        "-machine uno -bios /fw/a.elf"
    );
    assert_eq!(
        line(spec("qemu-system-x86_64", "q35"), "/q/qemu-system-x86_64"),
        "-machine q35 -kernel /fw/a.elf"
    );
    // A variable may have named a program of any name.
    assert_eq!(
        line(spec("qemu-system-avr", "uno"), "/opt/my-qemu"),
        "-machine uno -bios /fw/a.elf"
    );
    let riscv = spec("qemu-system-riscv32", "virt").without_bios();
    assert_eq!(
        line(riscv, "/q/qemu-system-riscv32"),
        "-machine virt -kernel /fw/a.elf -bios none -semihosting-config enable=on,target=native"
    );
    let no_board = MachineSpec::default().qemu("qemu-system-riscv32");
    let error = no_board.argv(Path::new("/q/qemu-system-riscv32"), Path::new("/"));
    assert_eq!(
        error.unwrap_err().to_string(),
        "qemu-system-riscv32 has to be told its machine: the default, lm3s6965evb, is one of qemu-system-arm"
    );
}

#[test]
fn displays() {
    let line = |display: Display| argv(&MachineSpec::default().without_qmp().display(display));
    let shown = |display: Display| {
        let line = line(display).unwrap();
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words[words.iter().position(|word| word == "-display").unwrap() + 1].clone()
    };
    assert_eq!(shown(Display::None), "none");
    assert_eq!(shown(Display::Raw("gtk,gl=on".into())), "gtk,gl=on");
    assert_eq!(
        shown(Display::Vnc(Endpoint::PrivateSocket)),
        "vnc=unix:/run/qemu-1/vnc.sock"
    );
    assert_eq!(
        shown(Display::Vnc(Endpoint::Socket("/tmp/a,b".into()))),
        "vnc=unix:/tmp/a,,b"
    );
    assert_eq!(
        shown(Display::Vnc(Endpoint::loopback(5901))),
        "vnc=127.0.0.1:1"
    );
    let exposed = Endpoint::Exposed("[::]:5900".parse().unwrap());
    assert_eq!(shown(Display::Vnc(exposed)), "'vnc=[::]:0'");
    for refused in [
        Endpoint::free_port(),
        Endpoint::loopback(80),
        Endpoint::Inherited,
    ] {
        let error = line(Display::Vnc(refused)).unwrap_err().to_string();
        assert_eq!(
            error,
            "a VNC display needs a unix socket, or a TCP port of 5900 or above"
        );
    }
}

/// No command of the host where a stranger can reach a monitor or the guest may not run one.
#[test]
#[cfg(target_os = "linux")]
fn the_sandbox_where_nothing_is_said_of_it() {
    let spec = || MachineSpec::default().without_qmp();
    let sandbox = |spec: MachineSpec| {
        let line = argv(&spec).unwrap();
        line.split_once(" -sandbox ")
            .map(|(_, value)| value.to_owned())
    };
    let no_spawn = Some("on,spawn=deny".to_owned());
    let everybody = Endpoint::Exposed("0.0.0.0:1234".parse().unwrap());
    for listening in [
        spec().gdb(Endpoint::loopback(1234)),
        spec().gdb(everybody),
        spec().qmp(Endpoint::free_port()),
        spec().monitor(Monitor::Human(Endpoint::free_port())),
        spec().semihosting(Semihosting::console()),
    ] {
        assert_eq!(sandbox(listening.clone()), no_spawn);
        assert_eq!(sandbox(listening.clone().sandbox(Sandbox::Off)), None);
        let by_hand = listening.extra_args(["-sandbox", "off"]);
        assert_eq!(sandbox(by_hand), Some("off".to_owned()));
    }
    let by_hand = spec().extra_args(["-gdb", "tcp:127.0.0.1:1234"]);
    assert!(argv(&by_hand).unwrap().contains(" -sandbox on,spawn=deny "));
    for silent in [
        spec().gdb(Endpoint::Inherited).qmp(Endpoint::PrivateSocket),
        spec().semihosting(Semihosting::full()),
        spec().semihosting(Semihosting::off()),
    ] {
        assert_eq!(sandbox(silent), None);
    }
}

#[test]
fn a_command_of_the_standard_library_has_the_same_words() {
    let argv = MachineSpec::default()
        .argv(Path::new("/q"), Path::new("/"))
        .unwrap();
    let command = std::process::Command::from(&argv);
    assert_eq!(command.get_program(), argv.program());
    assert!(command.get_args().eq(argv.args()));
}

#[test]
fn relative_paths_are_made_absolute() {
    let line = argv(&MachineSpec::default().firmware("-kernel.elf")).unwrap();
    let here = std::env::current_dir().unwrap();
    assert!(
        line.contains(&format!("-kernel {}/-kernel.elf", here.display())),
        "{line}"
    );
}

#[test]
fn endpoints() {
    check(
        |spec| spec.qmp(Endpoint::PrivateSocket),
        " -chardev socket,id=qmp,path=/run/qemu-1/qmp.sock,server=on,wait=off -mon chardev=qmp,mode=control",
    );
    check(
        |spec| spec.qmp(Endpoint::Socket("/tmp/a,b".into())),
        " -chardev socket,id=qmp,path=/tmp/a,,b,server=on,wait=off -mon chardev=qmp,mode=control",
    );
    check(
        |spec| spec.gdb(Endpoint::loopback(1234)),
        " -chardev socket,id=gdb,host=127.0.0.1,port=1234,server=on,wait=off,nodelay=on -gdb chardev:gdb",
    );
    check(
        |spec| spec.gdb(Endpoint::free_port()),
        " -chardev socket,id=gdb,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on -gdb chardev:gdb",
    );
    let everybody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1234));
    check(
        |spec| spec.gdb(Endpoint::Exposed(everybody)),
        " -chardev socket,id=gdb,host=0.0.0.0,port=1234,server=on,wait=off,nodelay=on -gdb chardev:gdb",
    );
    check(
        |spec| spec.gdb(Endpoint::Exposed("[::1]:1234".parse().unwrap())),
        " -chardev socket,id=gdb,host=::1,port=1234,server=on,wait=off,nodelay=on -gdb chardev:gdb",
    );
    check(|spec| spec.gdb(Endpoint::loopback(1)).without_gdb(), "");
}

#[test]
fn inherited_channels_are_numbered_in_order() {
    let spec = MachineSpec::default()
        .chardev("extra", Endpoint::Inherited)
        .serial(Endpoint::Inherited)
        .serial(Backend::Null)
        .serial(Endpoint::Inherited)
        .monitor(Monitor::Qmp(Endpoint::Inherited))
        .monitor(Monitor::Human(Endpoint::Inherited))
        .gdb(Endpoint::Inherited);
    let expected = [
        "-chardev socket,id=qmp,fd=3 -chardev socket,id=gdb,fd=4",
        "-chardev socket,id=serial0,fd=5 -chardev null,id=serial1 -chardev socket,id=serial2,fd=6",
        "-chardev socket,id=monitor0,fd=7 -chardev socket,id=monitor1,fd=8 -chardev socket,id=extra,fd=9",
        "-mon chardev=qmp,mode=control -mon chardev=monitor0,mode=control -mon chardev=monitor1,mode=readline",
        "-gdb chardev:gdb -serial chardev:serial0 -serial chardev:serial1 -serial chardev:serial2",
    ];
    assert_eq!(
        argv(&spec).unwrap(),
        format!("{START}{BOARD} {}", expected.join(" "))
    );
}

#[test]
fn serial_backends() {
    let file = |append| Backend::File {
        path: "/tmp/a,b.log".into(),
        append,
    };
    check(
        |spec| spec.serial(file(false)),
        " -chardev file,id=serial0,path=/tmp/a,,b.log -serial chardev:serial0",
    );
    check(
        |spec| spec.serial(file(true)),
        " -chardev file,id=serial0,path=/tmp/a,,b.log,append=on -serial chardev:serial0",
    );
    check(
        |spec| spec.chardev("log", Backend::RingBuffer { size: 4096 }),
        " -chardev ringbuf,id=log,size=4096",
    );
}

#[test]
fn storage_devices_and_network() {
    check(
        |spec| spec.drive(Drive::raw("sd", "/img/a,b.img").discard_writes()),
        " -drive if=sd,format=raw,file=/img/a,,b.img,snapshot=on",
    );
    check(
        |spec| spec.drive(Drive::qcow2("none", "/img/a.qcow2").property("id", "d0")),
        " -drive if=none,format=qcow2,file=/img/a.qcow2,id=d0",
    );
    check(
        |spec| spec.blockdev(Blockdev::qcow2("n0", "/img/a,b.qcow2").read_only()),
        " -blockdev driver=qcow2,node-name=n0,file.driver=file,file.filename=/img/a,,b.qcow2,read-only=on",
    );
    check(
        |spec| spec.blockdev(Blockdev::raw("n0", "/img/a")),
        " -blockdev driver=raw,node-name=n0,file.driver=file,file.filename=/img/a",
    );
    check(
        |spec| spec.device(Device::new("tmp105").property("address", "0x48")),
        " -device tmp105,address=0x48",
    );
    check(
        |spec| spec.nic(Nic::user_restricted()).nic(Nic::new("none")),
        " -nic user,restrict=on -nic none",
    );
    check(
        |spec| spec.nic(Nic::user().property("hostfwd", "tcp:127.0.0.1:0-:22")),
        " -nic user,hostfwd=tcp:127.0.0.1:0-:22",
    );
}

#[test]
fn logs_globals_and_the_rest() {
    check(
        |spec| spec.log(Log::items(["guest_errors", "unimp"]).to_file("/tmp/a,b.log")),
        " -d guest_errors,unimp -D /tmp/a,b.log",
    );
    check(
        |spec| spec.global("cfi.pflash01", "x", "a,b=c"),
        " -global driver=cfi.pflash01,property=x,value=a,,b=c",
    );
    check(
        |spec| spec.sandbox(Sandbox::Strict),
        " -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    check(|spec| spec.extra_args(["-name", "a b"]), " -name 'a b'");
}

#[test]
fn the_line_can_be_pasted_into_a_shell() {
    let words = [
        "plain",
        "",
        "two words",
        "it's",
        "$HOME `id` \"x\"",
        "a\nb\t\\'c",
        "caf\u{e9}",
        "-d*?[a]~!#&|;<>(){}",
    ];
    let spec = MachineSpec::default().extra_args(words.map(|word| ["-name", word]).concat());
    let argv = spec.argv(Path::new("printf"), Path::new("/")).unwrap();
    // bash, because it knows $'…'; the program's place is taken by a printf that ends each word
    // with a NUL.
    let line = argv.to_string().replacen("printf", "printf '%s\\0'", 1);
    let output = std::process::Command::new("bash")
        .args(["-c", &line])
        .output()
        .unwrap();
    let read_back: Vec<&[u8]> = output.stdout.split(|&b| b == 0).collect();
    let expected: Vec<&[u8]> = argv
        .args()
        .iter()
        .map(|arg| arg.as_encoded_bytes())
        .chain([&b""[..]])
        .collect();
    assert_eq!(read_back, expected, "{line}");
}
