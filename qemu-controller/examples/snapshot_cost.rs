//! What a snapshot costs, beside the bare QMP sequence of the same QEMU and beside a new start; all
//! interleaved, so that a busy machine is busy for each. The figures that count are the ratios.
//!
//! ```console
//! $ cargo run --release -p qemu-controller --example snapshot_cost -- [ROUNDS]
//! ```

use std::error::Error;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use qemu_controller::{QemuConfig, Session};
use qmp_proto::commands::{QomList, QueryJobs};
use qmp_proto::{Blocking, QmpEvent};
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
    qmp: Blocking<UnixStream>,
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
        drop(command);
        let mut bare = Self {
            qemu,
            qmp: Blocking::connect(ours)?,
            card: String::new(),
            jobs: 0,
        };
        let objects = bare.qmp.command(&QomList::new("/machine/unattached"))?;
        let mut cards = objects
            .iter()
            .filter(|object| object.kind.starts_with("child<sd-card"));
        let card = cards.next_back().ok_or("no card")?;
        bare.card = format!("/machine/unattached/{}", card.name);
        let image = tempfile::NamedTempFile::new()?;
        let file = json!({ "driver": "file", "filename": image.path(), "node-name": "file" });
        bare.qmp.execute("blockdev-add", &file)?;
        bare.job(
            "blockdev-create",
            json!({ "options": { "driver": "qcow2", "file": "file", "size": 0 } }),
        )?;
        bare.qmp
            .execute("blockdev-del", &json!({ "node-name": "file" }))?;
        // As the session has it: a file that is a node of its own would be flushed to the disk at
        // each save.
        let file = json!({ "driver": "file", "filename": image.path() });
        let cache = json!({ "no-flush": true });
        bare.qmp.execute(
            "blockdev-add",
            &json!({ "driver": "qcow2", "file": file, "node-name": "vm", "cache": cache }),
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
        let arguments = json!({ "path": self.card, "property": "realized", "value": value });
        self.qmp.execute("qom-set", &arguments)?;
        Ok(())
    }

    fn job(&mut self, command: &str, mut arguments: Value) -> Result<()> {
        self.jobs += 1;
        let id = format!("job-{}", self.jobs);
        arguments["job-id"] = json!(id);
        self.qmp.execute(command, &arguments)?;
        while !is_conclusion(&self.qmp.next_event()?, &id)? {}
        let jobs = self.qmp.command(&QueryJobs)?;
        self.qmp.execute("job-dismiss", &json!({ "id": id }))?;
        match jobs.into_iter().find_map(|job| job.error) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

fn is_conclusion(event: &QmpEvent, id: &str) -> Result<bool> {
    let Some(data) = &event.data else {
        return Ok(false);
    };
    let data: Value = data.parse()?;
    Ok(data["id"] == id && data["status"] == "concluded")
}
