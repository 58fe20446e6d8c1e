//! Large guests of others, to their prompt, typed at, saved, restored and ended, by the library and
//! by the program: U-Boot, OpenSBI with U-Boot; in the long form (QEMU_CONTROLLER_LONG) also Debian's
//! Linux with a first process of our own.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use qemu_controller::{QemuConfig, Session, Verdict};

use super::file;

/// A kernel is some seconds at its decompression, on a busy machine.
const BOOTED: Duration = Duration::from_secs(120);

/// The same for a call of `ctl`, which waits no longer.
const ASKED: &str = "--deadline-ms=60000";

/// A guest, and what it says.
struct Guest {
    name: &'static str,
    qemu: &'static str,
    cpu: Option<&'static str>,
    begins: Begins,
    /// What it says first, what it says when a key keeps it from going on by itself, and its prompt.
    banner: &'static str,
    interrupt: Option<&'static str>,
    prompt: &'static str,
    /// What is typed, and a part of the answer that the line itself has not.
    asked: [&'static str; 2],
    /// Ends the machine.
    off: &'static str,
}

/// What the machine begins with.
enum Begins {
    Bios(PathBuf),
    /// An ELF file that QEMU's own OpenSBI starts.
    Above(PathBuf),
    Linux {
        kernel: PathBuf,
        initrd: PathBuf,
        append: &'static str,
    },
}

impl Guest {
    fn config(&self) -> QemuConfig {
        let mut config = QemuConfig::default()
            .qemu(self.qemu)
            .machine("virt")
            .memory("256M")
            .start_deadline(BOOTED)
            .command_deadline(BOOTED);
        if let Some(cpu) = self.cpu {
            config = config.cpu(cpu);
        }
        match &self.begins {
            Begins::Bios(path) => config.with_spec(|spec| spec.bios(path)),
            Begins::Above(path) => config.firmware(path),
            Begins::Linux {
                kernel,
                initrd,
                append,
            } => config
                .with_spec(|spec| spec.unchecked_firmware(kernel))
                .extra_args(["-append", append, "-initrd"])
                .extra_args([initrd]),
        }
    }

    /// The same for `qemu-controller run`.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["--qemu", self.qemu, "--machine=virt", "--memory=256M"]
            .map(OsString::from)
            .to_vec();
        let cpu = self.cpu.into_iter();
        words.extend(cpu.flat_map(|cpu| ["--cpu".into(), cpu.into()]));
        match &self.begins {
            Begins::Bios(path) => words.extend(["--bios".into(), path.into()]),
            Begins::Above(path) => words.push(path.into()),
            Begins::Linux {
                kernel,
                initrd,
                append,
            } => words.extend([
                kernel.into(),
                "--append".into(),
                append.into(),
                "--initrd".into(),
                initrd.into(),
            ]),
        }
        words
    }
}

fn u_boot(name: &'static str, qemu: &'static str, of: &str) -> Guest {
    let file = |name| file(&format!("/usr/lib/u-boot/{of}/{name}"), "u-boot-qemu");
    let is_above = of.ends_with("smode");
    Guest {
        name,
        qemu,
        cpu: match qemu {
            "qemu-system-arm" => Some("cortex-a15"),
            "qemu-system-aarch64" => Some("cortex-a53"),
            _ => None,
        },
        begins: match is_above {
            true => Begins::Above(file("uboot.elf")),
            false => Begins::Bios(file("u-boot.bin")),
        },
        banner: if is_above { "OpenSBI v" } else { "U-Boot 20" },
        interrupt: Some("stop autoboot"),
        prompt: "=> ",
        asked: ["echo $arch-$board", "qemu-"],
        off: "poweroff",
    }
}

fn linux(
    name: &'static str,
    qemu: &'static str,
    cpu: Option<&'static str>,
    architecture: &str,
    folder: &Path,
) -> Guest {
    let initrd = folder.join(architecture);
    let init = std::fs::read(format!("tests/foreign/guests/init-{architecture}")).unwrap();
    std::fs::write(&initrd, archive(&init)).unwrap();
    Guest {
        name,
        qemu,
        cpu,
        begins: Begins::Linux {
            kernel: kernel(architecture),
            initrd,
            append: match architecture {
                "riscv64" => "console=ttyS0",
                _ => "console=ttyAMA0",
            },
        },
        banner: "Linux version 6",
        interrupt: None,
        prompt: "tiny# ",
        asked: ["hello", "you said hello"],
        off: "off",
    }
}

/// Debian's kernel for an architecture, by how its name ends.
fn kernel(architecture: &str) -> PathBuf {
    let folder = std::env::var_os("QEMU_CONTROLLER_GUESTS").unwrap_or_else(|| {
        panic!("`QEMU_CONTROLLER_LONG=1 cargo xtask test foreign` fetches the kernels")
    });
    let end = match architecture {
        "armhf" => "-armmp",
        "arm64" => "-arm64",
        _ => "-riscv64",
    };
    let boot = Path::new(&folder).join("boot");
    let files = boot.read_dir().unwrap().map(|file| file.unwrap().path());
    let mut kernels = files.filter(|path| path.to_string_lossy().ends_with(end));
    let found = kernels.next();
    found.unwrap_or_else(|| panic!("no kernel for {architecture} in {}", boot.display()))
}

/// A cpio archive (newc) with a console and the first process.
fn archive(init: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut add = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        let inode = archive.len() as u32 + 1;
        let (size, length) = (data.len() as u32, name.len() as u32 + 1);
        let words = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0,
        ];
        archive.extend(b"070701");
        for word in words {
            archive.extend(format!("{word:08X}").into_bytes());
        }
        for bytes in [&[name.as_bytes(), b"\0"].concat(), data] {
            archive.extend(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    };
    add("dev", 0o40755, (0, 0), b"");
    add("dev/console", 0o20600, (5, 1), b"");
    add("init", 0o100_755, (0, 0), init);
    add("TRAILER!!!", 0, (0, 0), b"");
    archive
}

/// The first file systems of the kernels are written into `folder`.
fn guests(folder: &Path) -> Vec<Guest> {
    let (arm, aarch64, riscv64) = (
        "qemu-system-arm",
        "qemu-system-aarch64",
        "qemu-system-riscv64",
    );
    let mut guests = vec![
        u_boot("U-Boot, 32-bit Arm", arm, "qemu_arm"),
        u_boot("U-Boot, AArch64", aarch64, "qemu_arm64"),
        u_boot("U-Boot, RISC-V", riscv64, "qemu-riscv64"),
        u_boot("OpenSBI and U-Boot", riscv64, "qemu-riscv64_smode"),
    ];
    if std::env::var_os("QEMU_CONTROLLER_LONG").is_some() {
        let linux = |name, qemu, cpu, architecture| linux(name, qemu, cpu, architecture, folder);
        guests.extend([
            linux("Linux, armhf", arm, Some("cortex-a15"), "armhf"),
            linux("Linux, arm64", aarch64, Some("cortex-a53"), "arm64"),
            linux("Linux, riscv64", riscv64, None, "riscv64"),
        ]);
    }
    guests
}

async fn ask(session: &Session, guest: &Guest) {
    let serial = session.serial(0).unwrap();
    let [question, answer] = guest.asked;
    serial.write_line(question).await.unwrap();
    for expected in [answer, guest.prompt] {
        let said = serial.expect_within(expected, BOOTED).await;
        said.unwrap_or_else(|error| panic!("{}: {error}", guest.name));
    }
}

#[tokio::test]
async fn guests_of_others_come_to_their_prompt_and_back_to_it() {
    let folder = tempfile::tempdir().unwrap();
    for guest in guests(folder.path()) {
        let session = Session::start(guest.config()).await.unwrap();
        let serial = session.serial(0).unwrap();
        for text in [Some(guest.banner), guest.interrupt].into_iter().flatten() {
            let said = serial.expect_within(text, BOOTED).await;
            said.unwrap_or_else(|error| panic!("{}: {error}", guest.name));
        }
        if guest.interrupt.is_some() {
            serial.write_line("").await.unwrap();
        }
        serial.expect_within(guest.prompt, BOOTED).await.unwrap();
        ask(&session, &guest).await;
        let lost = session.save_snapshot("at-the-prompt").await.unwrap();
        assert!(lost.is_empty(), "{}: {lost:?}", guest.name);
        ask(&session, &guest).await;
        for _ in 0..2 {
            session.load_snapshot("at-the-prompt").await.unwrap();
            ask(&session, &guest).await;
        }
        serial.write_line(guest.off).await.unwrap();
        let verdict = session.run_to_end(BOOTED).await;
        let is_over = matches!(verdict, Verdict::ShutDown | Verdict::Exited { status: 0 });
        assert!(is_over, "{}: {verdict}", guest.name);
    }
}

fn program(words: impl IntoIterator<Item = impl Into<OsString>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qemu-controller"));
    command.args(words.into_iter().map(Into::into));
    command
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the guest until what `words` say, with this typed.
fn run(guest: &Guest, words: &[&str], typed: &str) -> Output {
    let held_back = guest.interrupt.unwrap_or(guest.prompt);
    let mut command = program(["run", "--timeout=2m", "--send-after", held_back]);
    command.args(words).args(guest.words());
    let mut typing = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut typing, typed.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut typing).unwrap();
    let output = command.stdin(typing).output().unwrap();
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    assert!(
        output.status.success(),
        "{}: {}: {said}\n{printed}",
        guest.name,
        output.status
    );
    output
}

/// A machine that `open` holds for `ctl`; it ends with it.
struct Opened {
    child: Child,
    session: String,
}

impl Opened {
    fn open(bundle: &Path, number: usize) -> Self {
        let session = format!("guests-{}-{number}", std::process::id());
        let mut open = program(["open", "--session", &session]);
        let mut child = open.arg(bundle).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut lines = String::new();
        while !lines.contains("steer it with") {
            let read = said.read_line(&mut lines).unwrap();
            assert!(read > 0, "{lines}");
        }
        // What follows is nobody's, and must not fill the pipe.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Self { child, session }
    }

    fn ctl(&self, words: &[&str]) -> String {
        let output = program(["ctl", "--session", &self.session])
            .args(words)
            .output();
        let output = output.unwrap();
        let said = text(&output.stdout);
        assert!(
            output.status.success(),
            "{words:?}: {said}{}",
            text(&output.stderr)
        );
        said
    }

    fn ask(&self, [question, answer]: [&str; 2], prompt: &str) {
        self.ctl(&["send", &format!("{question}\n")]);
        for expected in [answer, prompt] {
            self.ctl(&["expect", expected, ASKED]);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn guests_of_others_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    for (number, guest) in guests(folder.path()).iter().enumerate() {
        let [question, answer] = guest.asked;
        let empty = if guest.interrupt.is_some() { "\n" } else { "" };
        let typed = format!("{empty}{question}\n{}\n", guest.off);
        let printed = text(&run(guest, &[], &typed).stdout);
        for expected in [guest.banner, guest.prompt, answer] {
            assert!(printed.contains(expected), "{}: {printed}", guest.name);
        }

        let bundles = folder.path().join(format!("bundles-{number}"));
        let kept = format!("--bundle-dir={}", bundles.display());
        let words = [&kept, "--bundle=always", "--expect", guest.prompt];
        run(guest, &words, empty);
        let bundle = bundles.read_dir().unwrap().next().unwrap().unwrap().path();
        let opened = Opened::open(&bundle, number);
        opened.ctl(&["resume"]);
        opened.ask(guest.asked, guest.prompt);
        opened.ctl(&["save-snapshot", "here"]);
        opened.ask(guest.asked, guest.prompt);
        opened.ctl(&["load-snapshot", "here"]);
        opened.ask(guest.asked, guest.prompt);
        opened.ctl(&["send", &format!("{}\n", guest.off)]);
        let until = std::time::Instant::now() + BOOTED;
        while !opened.ctl(&["status"]).contains("main is ended") {
            assert!(std::time::Instant::now() < until, "{} goes on", guest.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
