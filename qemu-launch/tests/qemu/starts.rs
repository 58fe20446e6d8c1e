//! Starts that QEMU refuses, and what can be known of a start that it does not.

use std::net::TcpListener;
use std::time::Instant;

use qemu_launch::discover::FindError;
use qemu_launch::firmware::FirmwareError;
use qemu_launch::{Address, Device, Endpoint, ExitKind, MachineSpec, SpawnError, SpecError};
use serde_json::json;

use test_support::procfs::{command_line, entries};
use test_support::{eventually, image, soon, write_program};

use crate::support::{machine, start};

/// QEMU's own line, where it refuses to start.
fn refusal(spec: &MachineSpec) -> String {
    let start = Instant::now();
    let process = qemu_launch::spawn(spec).unwrap();
    let exit = process.wait_blocking(soon()).unwrap();
    let ExitKind::OptionError { line } = exit.kind() else {
        panic!("{exit:?}")
    };
    assert_eq!(exit.code(), Some(1));
    assert!(exit.stderr().to_string_lossy().contains(line.as_str()));
    println!("{:>4} ms: {line}", start.elapsed().as_millis());
    line.clone()
}

#[test]
fn bad_options_come_with_the_line_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let rows = [
        (
            machine("tick").machine("nosuch"),
            "unsupported machine type",
        ),
        (
            machine("tick").cpu("nosuch"),
            "unable to find CPU model 'nosuch'",
        ),
        (
            machine("tick").extra_args(["-nosuch"]),
            "-nosuch: invalid option",
        ),
        (machine("tick").smp(4), "Invalid SMP CPUs 4"),
        (
            machine("tick").machine_property("nosuch", "1"),
            "nosuch' not found",
        ),
        (
            machine("tick").device(Device::new("nosuch")),
            "'nosuch' is not a valid device model name",
        ),
        (
            machine("tick").gdb(Endpoint::loopback(port)),
            "Address already in use",
        ),
        (
            machine("tick").qmp(Endpoint::Socket("/nonexistent/qmp".into())),
            "No such file or directory",
        ),
    ];
    for (spec, expected) in rows {
        let line = refusal(&spec);
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn what_is_refused_before_there_is_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let absent = MachineSpec::default().firmware(folder.path().join("absent.elf"));
    let error = qemu_launch::spawn(&absent).unwrap_err();
    assert!(
        matches!(
            error,
            SpawnError::Firmware(FirmwareError::Unreadable { .. })
        ),
        "{error:?}"
    );

    let taken = folder.path().join("a-file-of-mine");
    std::fs::write(&taken, "precious").unwrap();
    let error =
        qemu_launch::spawn(&machine("tick").qmp(Endpoint::Socket(taken.clone()))).unwrap_err();
    assert!(
        matches!(error, SpawnError::Spec(SpecError::SocketPathTaken { .. })),
        "{error:?}"
    );
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "precious");

    let error =
        qemu_launch::spawn(&machine("tick").qemu("/nonexistent/qemu-system-arm")).unwrap_err();
    let SpawnError::Find(FindError::Missing {
        program, install, ..
    }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(program.to_str(), Some("/nonexistent/qemu-system-arm"));
    if std::fs::read_to_string("/etc/os-release").is_ok_and(|text| text.contains("ID=debian")) {
        assert_eq!(
            install.as_deref(),
            Some("apt-get install -y qemu-system-arm")
        );
    }
}

#[test]
fn a_file_that_is_no_program_for_this_machine_is_named_by_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("qemu-system-arm");
    write_program(&script, "#!/nonexistent/interpreter\n", 0o755);
    let error = qemu_launch::spawn(&machine("tick").qemu(&script)).unwrap_err();
    let SpawnError::Exec { argv, source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(argv.program(), script);
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn the_command_line_is_the_one_that_runs() {
    let (process, _qmp) = start(&machine("tick"));
    let running = command_line(process.pid());
    let argv = process.argv();
    let program = argv.program().as_os_str().as_encoded_bytes();
    let said: Vec<&[u8]> = std::iter::once(program)
        .chain(argv.args().iter().map(|arg| arg.as_encoded_bytes()))
        .collect();
    assert_eq!(running, said);
    assert!(argv.to_string().contains("/tick.elf"));
}

#[test]
fn hostile_paths_reach_qemu_unharmed() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] = [
        b"-kernel",
        b"a,b=c,,d.elf",
        b"new\nline",
        b"quo'te\"s $(id) `id`",
        b"not-utf8-\xff\xfe",
        b"json:{}",
    ];
    for name in names {
        let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::copy(image("tick"), &path).unwrap();
        let serial = folder
            .path()
            .join([b"out,logfile=pwn-", name].concat().as_slice().to_os());
        let spec = MachineSpec::default()
            .firmware(&path)
            .serial(qemu_launch::Backend::File {
                path: serial.clone(),
                append: false,
            });
        let (process, _qmp) = start(&spec);
        eventually("the guest prints", || {
            std::fs::metadata(&serial).is_ok_and(|file| file.len() > 0)
        });
        drop(process);
        std::fs::remove_file(serial).unwrap();
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(entries(folder.path()), 0, "no second file");
}

trait ToOs {
    fn to_os(&self) -> &std::ffi::OsStr;
}

impl ToOs for [u8] {
    fn to_os(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(self)
    }
}

#[test]
fn addresses_are_told() {
    let spec = machine("tick")
        .gdb(Endpoint::free_port())
        .serial(Endpoint::PrivateSocket);
    let (process, mut qmp) = start(&spec);
    assert!(matches!(
        process.qmp_address(),
        Some(Address::Inherited { .. })
    ));
    assert_eq!(
        process.gdb_address(),
        Some(&Address::Tcp("127.0.0.1:0".parse().unwrap()))
    );
    let Some(Address::Socket(path)) = process.serial_address(0) else {
        panic!("no socket")
    };
    assert!(
        qmp.execute("query-chardev", json!({}))
            .to_string()
            .contains("tcp:127.0.0.1:")
    );
    std::os::unix::net::UnixStream::connect(path).expect("QEMU listens by now");
    let folder = path.parent().unwrap().to_owned();
    assert!(folder.is_dir());
    let handle = process.handle();
    drop(process);
    handle.wait_blocking(soon()).unwrap();
    assert!(!folder.exists(), "the private folder goes with the process");
}

#[test]
fn the_gdb_stub_answers_on_an_inherited_socket() {
    use std::io::{Read, Write};
    let (mut process, mut qmp) =
        start(&machine("tick").gdb(Endpoint::Inherited).start_stopped(true));
    let mut stub = process.take_gdb().unwrap();
    stub.set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    stub.write_all(b"$?#3f").unwrap();
    let mut answer: Vec<u8> = Vec::new();
    let mut buffer = [0; 64];
    while !answer.windows(2).any(|pair| pair == b"$T" || pair == b"$S") {
        let read = stub.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the stub hung up after {answer:?}");
        answer.extend(&buffer[..read]);
    }
    assert!(qmp.run_state() == "prelaunch");
}
