//! What the tests share: images, machines, and the one line of QMP that some of them need.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qemu_launch::{MachineSpec, Process};

/// A bound for what takes milliseconds: reached only where something hangs.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// One of the images that are built beside their source.
pub(crate) fn image(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware");
    folder.join(name).join(format!("{name}.elf"))
}

/// The default machine with one of the images.
pub(crate) fn machine(name: &str) -> MachineSpec {
    MachineSpec::default().firmware(image(name))
}

/// Starts it, and waits for the monitor's greeting.
pub(crate) fn start(spec: &MachineSpec) -> (Process, Qmp) {
    let mut process = qemu_launch::spawn(spec).expect("QEMU starts");
    let qmp = Qmp::new(process.take_qmp().expect("the monitor is inherited"));
    (process, qmp)
}

/// As much of QMP as these tests need: one command, one reply, events passed over.
pub(crate) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut qmp = Self(BufReader::new(stream));
        assert!(qmp.line().contains("\"QMP\""), "a greeting comes first");
        assert_eq!(qmp.execute("qmp_capabilities"), "{\"return\": {}}");
        qmp
    }

    pub(crate) fn execute(&mut self, command: &str) -> String {
        self.execute_raw(&format!("{{\"execute\": \"{command}\"}}"))
    }

    pub(crate) fn execute_raw(&mut self, command: &str) -> String {
        writeln!(self.0.get_mut(), "{command}").unwrap();
        loop {
            let line = self.line();
            if !line.contains("\"event\"") {
                return line;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}
