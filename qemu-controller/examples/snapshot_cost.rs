//! What a snapshot costs, beside the bare QMP sequence of the same QEMU and beside a new start; all
//! interleaved, so that a busy machine is busy for each. The figures that count are the ratios.
//!
//! ```console
//! $ cargo run --release -p qemu-controller --example snapshot_cost -- [ROUNDS]
//! ```

use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use qemu_controller::{QemuConfig, Session};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(200), |rounds| rounds.parse())?;
    let firmware = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xtask/firmware/wfi/wfi.elf");
    let config = QemuConfig::default().firmware(&firmware);
    let session = Session::start(config.clone()).await?;
    let mut bare = Bare::start(&firmware)?;
    session.save_snapshot("kept").await?;
    bare.save("kept")?;

    let mut took: [Vec<Duration>; 6] = Default::default();
    for round in 0..rounds {
        let name = format!("round-{round}");
        took[0].push(since(session.save_snapshot(&name)).await?);
        took[1].push(timed(|| bare.save(&name))?);
        took[2].push(since(session.load_snapshot(&name)).await?);
        took[3].push(timed(|| {
            bare.job(
                "snapshot-load",
                json!({ "tag": name, "vmstate": "vm", "devices": ["vm"] }),
            )
        })?);
        session.delete_snapshot(&name).await?;
        bare.job("snapshot-delete", json!({ "tag": name, "devices": ["vm"] }))?;
        let start = Instant::now();
        let other = Session::start(config.clone()).await?;
        took[4].push(start.elapsed());
        other.stop().await?;
        took[5].push(since(session.load_snapshot("kept")).await?);
    }
    let [save, bare_save, load, bare_load, start, restore] = took.map(median);
    println!("medians of {rounds} rounds");
    println!(
        "save     {save:>9.1?}, bare {bare_save:>9.1?}: ratio {:.2}",
        ratio(save, bare_save)
    );
    println!(
        "load     {load:>9.1?}, bare {bare_load:>9.1?}: ratio {:.2}",
        ratio(load, bare_load)
    );
    println!(
        "start    {start:>9.1?}, a restore {restore:>9.1?}: {:.1} times faster",
        ratio(start, restore)
    );
    session.stop().await?;
    Ok(())
}

async fn since<T, E>(
    verb: impl IntoFuture<Output = std::result::Result<T, E>>,
) -> std::result::Result<Duration, E> {
    let start = Instant::now();
    verb.await?;
    Ok(start.elapsed())
}

fn timed(verb: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    verb()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// QMP by hand, one command after the other, as a script would: the SD card out, the job,
/// `query-jobs`, `job-dismiss`, the card in.
struct Bare {
    qemu: Child,
    write: UnixStream,
    read: BufReader<UnixStream>,
    card: String,
    jobs: u32,
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Bare {
    fn start(firmware: &Path) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let program =
            std::env::var_os("QEMU_SYSTEM_ARM").unwrap_or_else(|| "qemu-system-arm".into());
        let mut command = Command::new(program);
        command.args("-machine lm3s6965evb -nodefaults -no-user-config -display none".split(' '));
        command
            .args("-chardev socket,id=qmp,fd=3 -mon chardev=qmp,mode=control -kernel".split(' '))
            .arg(firmware);
        command.fd_mappings(vec![FdMapping {
            parent_fd: OwnedFd::from(theirs),
            child_fd: 3,
        }])?;
        let qemu = command.spawn()?;
        let read = BufReader::new(UnixStream::from(ours.as_fd().try_clone_to_owned()?));
        let mut bare = Self {
            qemu,
            write: ours,
            read,
            card: String::new(),
            jobs: 0,
        };
        bare.line()?;
        bare.ask("qmp_capabilities", json!({}))?;
        let objects = bare.ask("qom-list", json!({ "path": "/machine/unattached" }))?;
        let objects = objects.as_array().ok_or("no objects")?.iter();
        let mut card = objects.filter(|object| {
            object["type"]
                .as_str()
                .is_some_and(|kind| kind.starts_with("child<sd-card"))
        });
        bare.card = format!(
            "/machine/unattached/{}",
            card.next_back().ok_or("no card")?["name"]
                .as_str()
                .unwrap_or_default()
        );
        let image = tempfile::NamedTempFile::new()?;
        let file = json!({ "driver": "file", "filename": image.path(), "node-name": "file" });
        bare.ask("blockdev-add", file)?;
        bare.job(
            "blockdev-create",
            json!({ "options": { "driver": "qcow2", "file": "file", "size": 0 } }),
        )?;
        bare.ask("blockdev-del", json!({ "node-name": "file" }))?;
        // As the session has it: a file that is a node of its own would be flushed to the disk at
        // each save.
        let file = json!({ "driver": "file", "filename": image.path() });
        let cache = json!({ "no-flush": true });
        bare.ask(
            "blockdev-add",
            json!({ "driver": "qcow2", "file": file, "node-name": "vm", "cache": cache }),
        )?;
        Ok(bare)
    }

    fn save(&mut self, tag: &str) -> Result<()> {
        self.card_realized(false)?;
        self.job(
            "snapshot-save",
            json!({ "tag": tag, "vmstate": "vm", "devices": ["vm"] }),
        )?;
        self.card_realized(true)
    }

    fn card_realized(&mut self, value: bool) -> Result<()> {
        self.ask(
            "qom-set",
            json!({ "path": self.card, "property": "realized", "value": value }),
        )
        .map(drop)
    }

    fn job(&mut self, command: &str, mut arguments: Value) -> Result<()> {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        arguments["job-id"] = json!(id);
        let mut concluded = false;
        self.send(command, &arguments)?;
        let mut answered = false;
        while !(concluded && answered) {
            let message = self.line()?;
            concluded |= message["data"]["id"] == id && message["data"]["status"] == "concluded";
            answered |= message.get("return").is_some();
        }
        let jobs = self.ask("query-jobs", json!({}))?;
        let error = jobs
            .as_array()
            .and_then(|jobs| jobs.iter().find_map(|job| job.get("error")))
            .cloned();
        self.ask("job-dismiss", json!({ "id": id }))?;
        error.map_or(Ok(()), |error| Err(error.to_string().into()))
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.send(command, &arguments)?;
        loop {
            let mut message = self.line()?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if message.get("error").is_some() {
                return Err(message.to_string().into());
            }
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        Ok(self.write.write_all(line.as_bytes())?)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.read.read_line(&mut line)? == 0 {
            return Err("QEMU has ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}
