//! `cargo xtask transcripts`: records conversations with a real QEMU for the tests of `qmp-proto`.
//!
//! The form of the files is that of `qmp_proto::transcript`.

mod recorder;

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use recorder::{DEADLINE, Recorder};
use serde_json::{Value, json};

/// Record the conversations with a real QEMU that the tests of qmp-proto replay
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The QEMU to talk to
    #[arg(long, default_value = "qemu-system-arm")]
    qemu: String,
    /// Where the transcripts go
    #[arg(long, default_value = "qmp-proto/tests/transcripts")]
    folder: PathBuf,
}

/// Holds one conversation with this QEMU, with a folder for files, and returns its transcript.
type Recording = fn(&str, &Path) -> Result<String>;

pub(crate) fn run(args: Args) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let recordings: [(&str, Recording); 7] = [
        ("session", session),
        ("pretty", pretty),
        ("errors", errors),
        ("early", early),
        ("jobs", jobs),
        ("objects", objects),
        ("schema", schema),
    ];
    for (name, record) in recordings {
        let text =
            record(&args.qemu, scratch.path()).with_context(|| format!("recording '{name}'"))?;
        // No path of this machine is worth keeping.
        let text = text.replace(&*scratch.path().to_string_lossy(), "/scratch");
        let path = args.folder.join(name).with_extension("qmp");
        std::fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        println!(
            "{}: {} lines, {} bytes",
            path.display(),
            text.lines().count(),
            text.len()
        );
    }
    Ok(())
}

const PAUSED_BOARD: &[&str] = &["-M", "lm3s6965evb", "-S"];

fn session(qemu: &str, _: &Path) -> Result<String> {
    let about = "A session: negotiation with oob, run state, events, out-of-band commands.";
    let mut qmp = Recorder::start(qemu, about, "", &["-M", "none", "-serial", "null"])?;
    qmp.execute("qmp_capabilities", json!({"enable": ["oob"]}))?;
    for name in [
        "query-version",
        "query-status",
        "stop",
        "query-status",
        "stop",
        "cont",
        "cont",
    ] {
        qmp.execute(name, Value::Null)?;
    }
    for name in [
        "query-chardev",
        "query-jobs",
        "query-block",
        "system_reset",
        "system_powerdown",
        "query-commands",
    ] {
        qmp.execute(name, Value::Null)?;
    }
    qmp.command("exec-oob", "migrate-pause", Value::Null)?;
    qmp.command("exec-oob", "query-status", Value::Null)?;
    qmp.quit()
}

fn pretty(qemu: &str, _: &Path) -> Result<String> {
    let about = "The same over a monitor with pretty=on: a message spans many lines.";
    let mut qmp = Recorder::start(qemu, about, ",pretty=on", PAUSED_BOARD)?;
    qmp.execute("qmp_capabilities", Value::Null)?;
    for name in [
        "query-version",
        "query-status",
        "query-cpus-fast",
        "query-chardev",
        "system_reset",
        "no-such-command",
    ] {
        qmp.execute(name, Value::Null)?;
    }
    qmp.quit()
}

fn errors(qemu: &str, _: &Path) -> Result<String> {
    let about = "What QEMU says to bad input: errors without id, ids that come back changed.";
    let mut qmp = Recorder::start(qemu, about, "", PAUSED_BOARD)?;
    let answer =
        |message: &Value| message.get("error").is_some() || message.get("return").is_some();
    qmp.execute("query-status", Value::Null)?;
    qmp.execute("qmp_capabilities", json!({"enable": ["flux"]}))?;
    qmp.execute("qmp_capabilities", Value::Null)?;
    qmp.execute("qmp_capabilities", Value::Null)?;
    let bad = [
        "[1]",
        "1 ",
        "{\"execute\": ]}",
        "{\"execute\": 1}",
        "{}",
        "{\"execute\": \"stop\", \"flux\": 1}",
        "{'execute': 'query-name'}",
    ];
    for bad in bad {
        qmp.send(bad)?;
        // One bad input may earn more than one error; what follows in its turn shows where they
        // end.
        qmp.execute("query-name", Value::Null)?;
    }
    for id in [
        "1e2",
        "1.0",
        "\"é\"",
        "18446744073709551616",
        "null",
        "[{\"a\": true}]",
        "\"plain\"",
    ] {
        qmp.send(&format!("{{\"execute\": \"query-name\", \"id\": {id}}}"))?;
        qmp.until(answer)?;
    }
    qmp.text += "# One byte 0xFF was sent here.\n";
    qmp.writer.write_all(b"\xff")?;
    qmp.writer.flush()?;
    qmp.execute("no-such-command", Value::Null)?;
    qmp.execute("query-status", json!({"flux": 1}))?;
    qmp.execute("qom-get", json!({"path": "/machine"}))?;
    qmp.execute("qom-get", json!({"path": "/nowhere", "property": "x"}))?;
    qmp.execute("device_del", json!({"id": "nothing"}))?;
    qmp.execute("human-monitor-command", json!({"command-line": "savevm x"}))?;
    qmp.quit()
}

fn jobs(qemu: &str, scratch: &Path) -> Result<String> {
    let about =
        "Block nodes made over QMP; a snapshot saved, refused, loaded and deleted, as jobs.";
    let mut qmp = Recorder::start(qemu, about, "", &["-M", "lm3s811evb", "-S"])?;
    let file = scratch.join("snapshots.qcow2");
    qmp.execute("qmp_capabilities", Value::Null)?;
    let size = 16 << 20;
    run_job(
        &mut qmp,
        "blockdev-create",
        "file",
        json!({"options": {"driver": "file", "filename": file, "size": 0}}),
    )?;
    qmp.execute(
        "blockdev-add",
        json!({"driver": "file", "filename": file, "node-name": "file0"}),
    )?;
    run_job(
        &mut qmp,
        "blockdev-create",
        "qcow2",
        json!({"options": {"driver": "qcow2", "file": "file0", "size": size}}),
    )?;
    qmp.execute(
        "blockdev-add",
        json!({"driver": "qcow2", "file": "file0", "node-name": "scratch"}),
    )?;
    let state = json!({"tag": "boot", "vmstate": "scratch", "devices": ["scratch"]});
    run_job(&mut qmp, "snapshot-save", "save", state.clone())?;
    run_job(&mut qmp, "snapshot-save", "again", state.clone())?;
    qmp.execute("query-named-block-nodes", Value::Null)?;
    qmp.execute("query-block", Value::Null)?;
    run_job(&mut qmp, "snapshot-load", "load", state)?;
    run_job(
        &mut qmp,
        "snapshot-delete",
        "delete",
        json!({"tag": "boot", "devices": ["scratch"]}),
    )?;
    qmp.execute("blockdev-del", json!({"node-name": "scratch"}))?;
    qmp.quit()
}

/// Runs a job to its end: concluded, looked at, dismissed.
fn run_job(qmp: &mut Recorder, command: &str, id: &str, mut arguments: Value) -> Result<()> {
    arguments["job-id"] = id.into();
    let changed = |status: &'static str| {
        let id = id.to_owned();
        move |message: &Value| message["data"]["id"] == *id && message["data"]["status"] == status
    };
    // The job's end may come before the reply that it has begun.
    qmp.execute(command, arguments)?;
    loop {
        let jobs = qmp.execute("query-jobs", Value::Null)?;
        let jobs = jobs["return"]
            .as_array()
            .context("query-jobs returns a list")?;
        if jobs
            .iter()
            .any(|job| job["id"] == *id && job["status"] == "concluded")
        {
            break;
        }
        qmp.until(changed("concluded"))?;
    }
    qmp.execute("job-dismiss", json!({"id": id}))?;
    Ok(())
}

fn objects(qemu: &str, scratch: &Path) -> Result<String> {
    let about = "Objects, memory and commands for people.";
    let mut qmp = Recorder::start(
        qemu,
        about,
        "",
        &[PAUSED_BOARD, &["-drive", "if=sd,id=card"]].concat(),
    )?;
    qmp.execute("qmp_capabilities", Value::Null)?;
    qmp.execute("query-cpus-fast", Value::Null)?;
    qmp.execute("query-block", Value::Null)?;
    qmp.execute("qom-list", json!({"path": "/machine"}))?;
    qmp.execute("qom-get", json!({"path": "/machine", "property": "type"}))?;
    qmp.execute("qom-get", json!({"path": "/machine", "property": "usb"}))?;
    qmp.execute(
        "qom-set",
        json!({"path": "/machine", "property": "usb", "value": false}),
    )?;
    qmp.execute(
        "pmemsave",
        json!({"val": 0x2000_0000, "size": 16, "filename": scratch.join("memory")}),
    )?;
    qmp.execute("screendump", json!({"filename": scratch.join("screen")}))?;
    for line in [
        "info registers",
        "info status",
        "no such command",
        "print \"\\t\\\"quoted\\\"\"",
    ] {
        qmp.execute("human-monitor-command", json!({"command-line": line}))?;
    }
    qmp.quit()
}

fn schema(qemu: &str, _: &Path) -> Result<String> {
    let mut qmp = Recorder::start(qemu, "The whole schema, in one line.", "", &["-M", "none"])?;
    qmp.execute("qmp_capabilities", Value::Null)?;
    qmp.execute("query-qmp-schema", Value::Null)?;
    qmp.quit()
}

/// An event ahead of the greeting: it happened between two clients of a socket that QEMU listens
/// on. That is a race, so it is tried until it is won.
fn early(qemu: &str, scratch: &Path) -> Result<String> {
    let socket = scratch.join("qmp.sock");
    let option = format!("unix:{},server=on,wait=off", socket.display());
    let about = "An event of the time between two clients comes before the greeting of the second.";
    let mut first = Recorder::start(qemu, about, "", &["-M", "none", "-qmp", &option])?;
    let header: String = first
        .text
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    first.execute("qmp_capabilities", Value::Null)?;
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    // The first monitor keeps events coming.
    let noise = thread::spawn(move || -> Result<Recorder> {
        while !is_done.load(Ordering::Relaxed) {
            first.execute("stop", Value::Null)?;
            first.execute("cont", Value::Null)?;
            first.text.clear();
        }
        Ok(first)
    });
    let start = Instant::now();
    let won = loop {
        if let Some(text) = connect_once(&socket)? {
            break Ok(text);
        }
        if start.elapsed() > DEADLINE * 6 {
            break Err(anyhow::anyhow!(
                "no event came before a greeting within {:?}",
                start.elapsed()
            ));
        }
    };
    done.store(true, Ordering::Relaxed);
    match noise.join() {
        Ok(recorder) => recorder?.quit()?,
        Err(_) => bail!("the thread that makes events panicked"),
    };
    Ok(header + &won?)
}

/// Connects, negotiates and leaves. What was said, if an event came first.
fn connect_once(socket: &Path) -> Result<Option<String>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut text = String::new();
    let mut early = false;
    let mut sent = false;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "QEMU closed its monitor");
        writeln!(text, "< {}", line.trim_end_matches("\r\n"))?;
        let message: Value = serde_json::from_str(&line)?;
        early |= !sent && message.get("event").is_some();
        if message.get("QMP").is_some() {
            let command = "{\"execute\":\"qmp_capabilities\",\"id\":\"0000002a-1\"}";
            writeln!(text, "> {command}")?;
            (&stream).write_all(command.as_bytes())?;
            sent = true;
        }
        if message["id"] == "0000002a-1" {
            return Ok(early.then_some(text));
        }
    }
}
