//! Descriptions that are refused: what contradicts itself, what `extra_args` may not say, and what
//! QEMU would not take.
#![cfg(unix)]

use std::path::Path;

use qemu_launch::{Backend, Device, Drive, Endpoint, Icount, Log, MachineSpec, Nic, SpecError};

fn argv(spec: &MachineSpec) -> Result<String, SpecError> {
    Ok(spec
        .argv(
            Path::new("/usr/bin/qemu-system-arm"),
            Path::new("/run/qemu-1"),
        )?
        .to_string())
}

/// The error's text.
#[track_caller]
fn refused(spec: MachineSpec) -> String {
    argv(&spec).expect_err("it is refused").to_string()
}

#[test]
fn contradictions_name_both() {
    let spec = MachineSpec::default;
    assert_eq!(
        refused(spec().firmware("/a.elf").firmware("/b.elf")),
        "two firmwares: /a.elf and /b.elf"
    );
    assert_eq!(
        refused(
            spec()
                .qmp(Endpoint::loopback(4444))
                .gdb(Endpoint::loopback(4444))
        ),
        "qmp and gdb would share TCP port 4444"
    );
    assert_eq!(
        refused(
            spec()
                .gdb(Endpoint::Socket("/tmp/s".into()))
                .serial(Endpoint::Socket("/tmp/s".into()))
        ),
        "gdb and serial0 would share /tmp/s"
    );
    assert_eq!(
        refused(
            spec()
                .serial(Endpoint::Inherited)
                .chardev("serial0", Backend::Null)
        ),
        "serial0 and serial0 would share the id serial0"
    );
    assert_eq!(
        refused(spec().incoming().chardev("incoming", Backend::Null)),
        "incoming and incoming would share the id incoming"
    );
    let file = || Backend::File {
        path: "/tmp/log".into(),
        append: true,
    };
    assert_eq!(
        refused(spec().serial(file()).serial(file())),
        "serial0 and serial1 would share /tmp/log"
    );
    assert_eq!(
        refused(spec().drive(Drive::raw("sd", "/a").property("file", "/b"))),
        r#"the drive property file is set twice, to "/a" and to "/b""#
    );
    // Keys that QEMU gives to what stands first.
    assert_eq!(
        refused(spec().machine_property("type", "microbit")),
        r#"the machine property type is set twice, to "lm3s6965evb" and to "microbit""#
    );
    assert_eq!(
        refused(spec().device(Device::new("tmp105").property("driver", "loader"))),
        r#"the device property driver is set twice, to "tmp105" and to "loader""#
    );
    assert_eq!(
        refused(spec().nic(Nic::user().property("type", "tap"))),
        r#"the nic property type is set twice, to "user" and to "tap""#
    );
    assert_eq!(
        refused(spec().nic(Nic::user_restricted().property("restrict", "off"))),
        r#"the nic property restrict is set twice, to "on" and to "off""#
    );
    assert_eq!(
        refused(spec().cpu_property("vfp", "on").cpu_property("vfp", "off")),
        r#"the cpu property vfp is set twice, to "on" and to "off""#
    );
    let forwards = Nic::user()
        .property("hostfwd", "a")
        .property("hostfwd", "b");
    argv(&spec().nic(forwards)).expect("a list");
    assert_eq!(
        refused(
            spec()
                .serial(file())
                .log(Log::items(["int"]).to_file("/tmp/log"))
        ),
        "serial0 and log would share /tmp/log"
    );
}

#[test]
fn places_that_only_look_alike_are_two() {
    let spec = MachineSpec::default;
    argv(&spec().qmp(Endpoint::free_port()).gdb(Endpoint::free_port())).expect("free ports differ");
    let on = |address: &str| Endpoint::Exposed(address.parse().unwrap());
    for other in ["127.0.0.2:4444", "[::1]:4444"] {
        argv(&spec().qmp(Endpoint::loopback(4444)).gdb(on(other))).expect(other);
    }
    for same in ["127.0.0.1:4444", "0.0.0.0:4444"] {
        assert_eq!(
            refused(spec().qmp(Endpoint::loopback(4444)).gdb(on(same))),
            "qmp and gdb would share TCP port 4444"
        );
    }
    use std::os::unix::ffi::OsStrExt;
    let file = |name: &[u8]| Backend::File {
        path: Path::new("/tmp").join(std::ffi::OsStr::from_bytes(name)),
        append: false,
    };
    argv(&spec().serial(file(b"a\xfe")).serial(file(b"a\xff")))
        .expect("neither is UTF-8, and they differ");
}

#[test]
fn extra_args_can_not_repeat_or_contradict() {
    let rows: [(&[&str], &str); 12] = [
        (
            &["-qmp", "stdio"],
            r#"the extra argument "-qmp" sets the QMP monitor again, which "-mon" has set"#,
        ),
        (
            &["--qmp", "stdio"],
            r#"the extra argument "--qmp" sets the QMP monitor again, which "-mon" has set"#,
        ),
        (
            &["-monitor", "stdio"],
            r#"the extra argument "-monitor" sets the QMP monitor again, which "-mon" has set"#,
        ),
        (
            &["-M", "microbit"],
            r#"the extra argument "-M" sets the board again, which "-machine" has set"#,
        ),
        (
            &["-cpu", "cortex-m4"],
            r#"the extra argument "-cpu" sets the CPU again, which "-cpu" has set"#,
        ),
        (
            &["-kernel", "/b"],
            r#"the extra argument "-kernel" sets the firmware again, which "-kernel" has set"#,
        ),
        (
            &["-vnc", ":1"],
            r#"the extra argument "-vnc" sets the display again, which "-display" has set"#,
        ),
        (
            &["-icount", "1", "-icount", "2"],
            r#"the extra argument "-icount" sets the clock again, which "-icount" has set"#,
        ),
        (
            &["-daemonize"],
            r#"the extra argument "-daemonize" is refused: the process would leave the one that supervises it"#,
        ),
        (
            &["-s"],
            r#"the extra argument "-s" is refused: it listens on every interface; set the GDB stub's endpoint instead"#,
        ),
        (
            &["-name vm"],
            r#"the extra argument "-name vm" is one word with a space; give the option and its value as two"#,
        ),
        (
            &["disk.img"],
            r#"the extra argument "disk.img" is no option: one word each, beginning with a dash"#,
        ),
    ];
    for (extra, expected) in rows {
        assert_eq!(
            refused(MachineSpec::default().firmware("/a.elf").extra_args(extra)),
            expected
        );
    }
}

/// Many scripts have such words by habit.
#[test]
fn extra_args_that_only_repeat_are_left_out() {
    let plain = argv(&MachineSpec::default()).unwrap();
    let harmless: [&[&str]; 8] = [
        &["-nographic"],
        &["-display", "none"],
        &["-nodefaults", "--no-user-config"],
        &["-monitor", "none"],
        &["-cpu", "cortex-m3"],
        &["-M", "lm3s6965evb"],
        &["-m", "64K"],
        &["-nographic", "-nographic"],
    ];
    for extra in harmless {
        let line = argv(&MachineSpec::default().extra_args(extra));
        assert_eq!(line.unwrap(), plain, "{extra:?}");
    }
    let twice = MachineSpec::default().extra_args(["-icount", "1", "-icount", "1", "-S"]);
    assert!(argv(&twice).unwrap().ends_with(" -icount 1 -S"));
}

#[test]
fn extra_args_whose_values_look_like_options_are_values() {
    let line =
        argv(&MachineSpec::default().extra_args(["-name", "-qmp", "-S", "-name", "-daemonize"]))
            .unwrap();
    assert!(line.ends_with(" -name -qmp -S -name -daemonize"), "{line}");
}

/// Whatever stands before it: an option that is not known may be a flag.
#[test]
fn nothing_hides_what_is_never_passed_on() {
    let rows: [(&[&str], &str); 18] = [
        (&["-perfmap", "-s"], "-s"),
        (&["-jitdump", "-daemonize"], "-daemonize"),
        (&["-async-teardown", "-s"], "-s"),
        (&["-of-the-future", "-s"], "-s"),
        (&["-of-the-future", "--daemonize"], "--daemonize"),
        (&["-of-the-future", "x", "-s"], "-s"),
        (&["-of-the-future", "-name", "-name", "-s"], "-s"),
        (&["-name", "vm", "-s"], "-s"),
        (&["-gdb", "tcp::1234"], "-gdb"),
        (&["-gdb", "tcp:0.0.0.0:1234"], "-gdb"),
        (&["--gdb", "tcp:192.0.2.1:1234,server=on"], "--gdb"),
        (&["-gdb", "tcp:[::]:1234"], "-gdb"),
        (&["-gdb", "tcp:1234"], "-gdb"),
        (&["-gdb", "mon:tcp::1234,server=on"], "-gdb"),
        (&["-gdb", "tcp:127.0.0.1:1234,host=0.0.0.0"], "-gdb"),
        (&["-gdb", "telnet:example.org:1234"], "-gdb"),
        (&["-gdb", "udp:127.0.0.1:1@:1234"], "-gdb"),
        (&["-run-with", "daemonize=on"], "-run-with"),
    ];
    for (extra, refused) in rows {
        match argv(&MachineSpec::default().extra_args(extra)) {
            Err(SpecError::Refused { option, .. }) => assert_eq!(option, refused, "{extra:?}"),
            other => panic!("{extra:?}: {other:?}"),
        }
    }
    let harmless: [&[&str]; 7] = [
        &["-of-the-future", "s", "-name", "daemonize"],
        &["-gdb", "tcp:127.0.0.1:1234"],
        &["-gdb", "tcp:localhost:1234"],
        &["-gdb", "tcp:[::1]:1234"],
        &["-gdb", "unix:/tmp/gdb,server=on"],
        &["-of-the-future", "x", "-name", "vm"],
        &["-run-with", "chroot=/srv"],
    ];
    for extra in harmless {
        argv(&MachineSpec::default().extra_args(extra))
            .unwrap_or_else(|error| panic!("{extra:?}: {error}"));
    }
}

#[test]
fn variables_that_the_system_would_not_take() {
    let spec = MachineSpec::default;
    for name in ["", "A=B", "=", "A\0B"] {
        assert!(
            refused(spec().env(name, "x")).contains("is no name of an environment variable"),
            "{name:?}"
        );
        assert!(
            refused(spec().inherit_env(name)).contains("is no name of an environment variable"),
            "{name:?}"
        );
    }
    assert_eq!(
        refused(spec().env("A", "b\0c")),
        r#"the environment variable's value "b\0c" contains a NUL"#
    );
    argv(&spec().env("A", "").env("B", "a=b").inherit_env("HOME")).expect("nothing to refuse");
}

#[test]
fn values_that_qemu_would_not_take() {
    let spec = MachineSpec::default;
    for memory in [
        "",
        "K",
        "64KB",
        "-1",
        "+1",
        "0",
        "1 K",
        "1,slots=2",
        "0x10",
        "64KK",
    ] {
        assert!(
            refused(spec().memory(memory)).contains("is no amount of memory"),
            "{memory}"
        );
    }
    for memory in ["64K", "1", "512M", "1g"] {
        argv(&spec().memory(memory)).expect(memory);
    }
    assert_eq!(
        refused(spec().icount(Icount::shift(11))),
        "an icount shift of 11 is outside 0 to 10"
    );
    assert_eq!(
        refused(spec().chardev("r", Backend::RingBuffer { size: 100 })),
        "the ring buffer r has 100 bytes, which is no power of two"
    );
    assert_eq!(
        refused(spec().log(Log::default())),
        "a log needs at least one item, such as guest_errors"
    );
    assert!(
        refused(spec().log(Log::items(["int"]).to_file("/tmp/%d")))
            .contains("has a % in its absolute path")
    );
    assert!(
        refused(MachineSpec::board("virt").cpu_property("a", "b")).contains("needs a CPU model")
    );
    let long = format!("/tmp/{}", "x".repeat(120));
    assert_eq!(
        refused(spec().qmp(Endpoint::Socket(long.clone().into()))),
        format!("the socket path {long} has 125 bytes, and 107 is the most that the system takes")
    );
}
