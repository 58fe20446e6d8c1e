//! Snapshots on real QEMU: what was saved comes back whole, and what goes wrong costs nothing that
//! was there.

mod boards;
mod devices;
mod disks;
mod dropped;
mod faults;
mod files;
mod killed;
mod no_space;
mod record;
mod stopped;
mod verbs;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use qemu_controller::{AfterLoad, Session, SnapshotError};
use serde_json::{Value, json};

use crate::support::{counter, counts};

/// Memory that the guest writes: where from, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ram {
    pub(crate) from: u64,
    pub(crate) bytes: u64,
}

/// A hash of the guest's memory, by way of a file.
async fn hash(session: &Session, ram: Ram) -> u64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = json!({ "val": ram.from, "size": ram.bytes, "filename": file.path() });
    session.execute("pmemsave", &arguments).await.unwrap();
    let mut hasher = DefaultHasher::new();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len() as u64, ram.bytes);
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A word of the guest's memory or of a peripheral.
async fn word(session: &Session, address: u64) -> u32 {
    let text = session
        .human_monitor_command(&format!("xp /1wx {address:#x}"))
        .await
        .unwrap();
    u32::from_str_radix(text.split("0x").last().unwrap().trim(), 16).unwrap()
}

/// All that can be seen of a machine that is stopped: RAM, core registers, and words of
/// peripherals that reading does not change.
#[derive(Debug, PartialEq)]
pub(crate) struct Fingerprint {
    ram: u64,
    registers: String,
    words: Vec<u32>,
}

impl Fingerprint {
    pub(crate) async fn of(session: &Session, ram: Ram, peripherals: &[u64]) -> Self {
        let registers = session
            .human_monitor_command("info registers")
            .await
            .unwrap();
        let mut words = Vec::new();
        for &address in peripherals {
            words.push(word(session, address).await);
        }
        Self {
            ram: hash(session, ram).await,
            registers,
            words,
        }
    }
}

/// Nothing of a transaction is left: no job, and the SD card is where it was.
pub(crate) async fn check_put_back(session: &Session) {
    let jobs: Value = session
        .execute("query-jobs", &())
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(jobs, json!([]));
    assert!(card_is_in(session).await);
}

/// Whether the SD card of `lm3s6965evb` is in its place.
async fn card_is_in(session: &Session) -> bool {
    let path = "/machine/unattached";
    let objects: Value = session
        .execute("qom-list", &json!({ "path": path }))
        .await
        .unwrap()
        .parse()
        .unwrap();
    let mut cards = objects.as_array().unwrap().iter().filter(|object| {
        ["child<sd-card>", "child<sd-card-spi>"].contains(&object["type"].as_str().unwrap())
    });
    let path = format!("{path}/{}", cards.next().unwrap()["name"].as_str().unwrap());
    let asked = json!({ "path": path, "property": "realized" });
    session
        .execute("qom-get", &asked)
        .await
        .unwrap()
        .parse()
        .unwrap()
}

/// An empty disk of 64 KiB in a format of QEMU's, made by a QEMU of its own.
async fn disk(folder: &Path, format: &str) -> PathBuf {
    let path = folder.join(format!("disk.{format}"));
    std::fs::write(&path, []).unwrap();
    let session = Session::start(crate::support::config("wfi")).await.unwrap();
    let file = json!({ "driver": "file", "filename": path, "node-name": "file" });
    session.execute("blockdev-add", &file).await.unwrap();
    let options = json!({ "driver": format, "file": "file", "size": 65536 });
    let done = session.wait_for_event("the disk", |event| {
        event
            .data
            .as_ref()
            .is_some_and(|data| data.as_str().contains("concluded"))
    });
    session
        .execute(
            "blockdev-create",
            &json!({ "job-id": "make", "options": options }),
        )
        .await
        .unwrap();
    done.await.unwrap();
    session.stop().await.unwrap();
    path
}

/// Saves over the snapshot `first`. Where that fails, the guest goes on, all is put back, and the
/// earlier snapshot is loaded: its counter is this. False where the save does not fail.
async fn overwriting_fails(session: &Session, counter_then: u32) -> bool {
    match session.save_snapshot("first").overwrite().await {
        Err(SnapshotError::Job {
            command: "snapshot-save",
            error,
        }) => assert!(!error.is_empty()),
        Err(other) => panic!("{other:?}"),
        Ok(_) => return false,
    }
    assert!(counts(session).await, "the guest goes on");
    check_put_back(session).await;
    let load = session.load_snapshot("first").then(AfterLoad::Paused);
    load.await.unwrap();
    assert_eq!(
        counter(session).await,
        counter_then,
        "the earlier snapshot is still there"
    );
    true
}
