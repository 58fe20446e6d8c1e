//! Saving and restoring the machine's state, beside the bare sequence of commands, and beside a
//! fresh start.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use qemu_controller::Session;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::Bench;
use crate::machine::{self, Blocking, Machine};
use crate::peers::{BARE, SESSION, config, runtime, session};
use crate::report::{Limit, Report};
use crate::stats::{Contender, milliseconds, take_turns};

const FRESH: &str = "qemu-controller, fresh start to ready";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let firmware = bench.firmware.as_path();
    let runtime_ours = runtime()?;
    let ours = runtime_ours.block_on(session(firmware))?;
    let mut bare = Bare::start(firmware)?;
    // The image is made by the first save and kept, on both sides.
    runtime_ours.block_on(async { ours.save_snapshot("first").await })?;
    let mut number = 0;
    let contenders = vec![
        Contender::new(SESSION, || {
            runtime_ours.block_on(async {
                let since = Instant::now();
                ours.save_snapshot("round").await?;
                let (saved, since) = (milliseconds(since), Instant::now());
                ours.load_snapshot("round").await?;
                let loaded = milliseconds(since);
                ours.delete_snapshot("round").await?;
                Ok(vec![saved, loaded])
            })
        }),
        Contender::new(BARE, || {
            number += 1;
            bare.round(&format!("round{number}"))
        }),
        Contender::new(FRESH, || {
            let runtime = runtime()?;
            let since = Instant::now();
            let session = runtime.block_on(Session::start(config(firmware, true)))?;
            let ready = milliseconds(since);
            runtime.block_on(session.stop())?;
            Ok(vec![f64::NAN, ready])
        }),
    ];
    let measured = take_turns(bench.rounds(8, 40), contenders)?;
    report.rows("snapshots", &[("save", "ms"), ("restore", "ms")], &measured);
    let pair = (SESSION, BARE);
    report.ratio(
        "save, against the bare sequence of commands",
        &measured,
        pair,
        0,
        Limit::AtMost(1.1),
    );
    report.ratio(
        "restore, against the bare sequence of commands",
        &measured,
        pair,
        1,
        Limit::AtMost(1.1),
    );
    let what = "restore, how many times faster than a fresh start";
    report.ratio(what, &measured, (FRESH, SESSION), 1, Limit::AtLeast(5.0));
    Ok(())
}

/// The least that a client has to send: no look at what there is, no care for what goes wrong but
/// an error.
pub struct Bare {
    client: Blocking<UnixStream>,
    /// The board's SD card, without which QEMU can save and restore it.
    card: String,
    _machine: Machine,
    _image: NamedTempFile,
}

impl Bare {
    pub fn start(firmware: &Path) -> Result<Self> {
        let (machine, stream) = machine::over_pair(firmware, true)?;
        let mut client = Blocking::ready(stream)?;
        let list = r#"{"execute":"qom-list","arguments":{"path":"/machine/unattached"}}"#;
        let objects: Value = serde_json::from_str(client.ask(list)?)?;
        let mut objects = objects["return"].as_array().into_iter().flatten();
        let card = objects.find(|object| {
            object["type"]
                .as_str()
                .is_some_and(|kind| kind.starts_with("child<sd-card"))
        });
        let card = card
            .and_then(|card| card["name"].as_str())
            .context("the board has no SD card")?;
        let card = format!("/machine/unattached/{card}");
        let image = NamedTempFile::new()?;
        let file = format!(
            r#"{{"driver":"file","node-name":"file","filename":{:?}}}"#,
            image.path()
        );
        client.ask(&format!(
            r#"{{"execute":"blockdev-add","arguments":{file}}}"#
        ))?;
        let options = r#"{"driver":"qcow2","file":"file","size":0}"#;
        let arguments = format!(r#"{{"job-id":"create","options":{options}}}"#);
        client.job(
            &format!(r#"{{"execute":"blockdev-create","arguments":{arguments}}}"#),
            "create",
        )?;
        client.ask(r#"{"execute":"blockdev-del","arguments":{"node-name":"file"}}"#)?;
        // As the session has it: not flushed to the disk at each save and load, which costs more
        // than all else.
        let file = format!(r#"{{"driver":"file","filename":{:?}}}"#, image.path());
        let node = format!(
            r#"{{"driver":"qcow2","node-name":"image","cache":{{"no-flush":true}},"file":{file}}}"#
        );
        client.ask(&format!(
            r#"{{"execute":"blockdev-add","arguments":{node}}}"#
        ))?;
        Ok(Self {
            client,
            card,
            _machine: machine,
            _image: image,
        })
    }

    pub fn save(&mut self, tag: &str) -> Result<()> {
        self.card(false)?;
        self.snapshot("save", tag)?;
        self.card(true)
    }

    pub fn load(&mut self, tag: &str) -> Result<()> {
        self.snapshot("load", tag)
    }

    /// A GDB stub, which stops the guest.
    pub fn stub(&mut self, path: &Path) -> Result<UnixStream> {
        let line = format!("gdbserver unix:{},server=on,wait=off", path.display());
        let arguments = format!(r#"{{"command-line":{line:?}}}"#);
        self.client.ask(&format!(
            r#"{{"execute":"human-monitor-command","arguments":{arguments}}}"#
        ))?;
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(machine::PATIENCE))?;
        Ok(stream)
    }

    fn round(&mut self, tag: &str) -> Result<Vec<f64>> {
        let since = Instant::now();
        self.save(tag)?;
        let (saved, since) = (milliseconds(since), Instant::now());
        self.load(tag)?;
        let loaded = milliseconds(since);
        let arguments = format!(r#"{{"job-id":"delete","tag":"{tag}","devices":["image"]}}"#);
        self.client.job(
            &format!(r#"{{"execute":"snapshot-delete","arguments":{arguments}}}"#),
            "delete",
        )?;
        Ok(vec![saved, loaded])
    }

    fn card(&mut self, realized: bool) -> Result<()> {
        let card = &self.card;
        let arguments = format!(r#"{{"path":"{card}","property":"realized","value":{realized}}}"#);
        self.client
            .ask(&format!(
                r#"{{"execute":"qom-set","arguments":{arguments}}}"#
            ))
            .map(drop)
    }

    fn snapshot(&mut self, what: &str, tag: &str) -> Result<()> {
        let arguments =
            format!(r#"{{"job-id":"{what}","tag":"{tag}","vmstate":"image","devices":["image"]}}"#);
        self.client.job(
            &format!(r#"{{"execute":"snapshot-{what}","arguments":{arguments}}}"#),
            what,
        )
    }
}
