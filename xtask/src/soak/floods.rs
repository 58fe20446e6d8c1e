//! Floods of events, of a serial port and of stderr: the session answers, and memory stays flat.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use qemu_controller::{EVENT_BACKLOG_BYTES, MissedEvents, QemuConfig, Session};
use qemu_launch::Log;

use super::{
    config,
    figures::{Belongings, Row, resident},
    progress::Progress,
    sessions::check_stop,
};

/// How much QEMU's own memory may grow between a quarter of the flood and its end.
const QEMU_GROWTH_KIB: u64 = 8 * 1024;

/// How much this process may grow meanwhile: what waits for a reader that never reads, which is
/// bounded, and what the allocator needs for it.
const GROWTH_KIB: u64 = 2 * EVENT_BACKLOG_BYTES as u64 / 1024;

/// A guest that resets without end. One reader sees every event or learns how many it missed;
/// another never reads.
pub(super) async fn events(time: Duration) -> anyhow::Result<Row> {
    let count = Arc::new(AtomicU64::new(0));
    flood(
        "events",
        "events",
        time,
        config("reset-request"),
        |session| {
            let (mut quick, never) = (session.events(), session.events());
            let counted = Arc::clone(&count);
            tokio::spawn(async move {
                while let Some(event) = quick.next().await {
                    counted.fetch_add(
                        event.map_or_else(|MissedEvents(missed)| missed, |_| 1),
                        Ordering::Relaxed,
                    );
                }
                drop(never);
            });
            let count = Arc::clone(&count);
            Ok(Box::new(move || count.load(Ordering::Relaxed)))
        },
    )
    .await
}

/// A guest that prints without end, and nobody reads it meanwhile.
pub(super) async fn serial(time: Duration) -> anyhow::Result<Row> {
    flood("serial", "bytes", time, config("uart-flood"), |session| {
        let serial = session.serial(0).context("no serial port")?.clone();
        Ok(Box::new(move || {
            serial.take().len() as u64 + serial.dropped()
        }))
    })
    .await
}

/// A QEMU that logs each block of instructions.
pub(super) async fn stderr(time: Duration) -> anyhow::Result<Row> {
    let config = config("tick").with_spec(|spec| spec.log(Log::items(["exec", "nochain"])));
    flood("stderr", "bytes dropped", time, config, |session| {
        let process = session.process().context("no process")?;
        Ok(Box::new(move || process.stderr_tail().dropped()))
    })
    .await
}

/// How much has come in all.
type Total = Box<dyn FnOnce() -> u64>;

async fn flood(
    part: &'static str,
    unit: &str,
    time: Duration,
    config: QemuConfig,
    watch: impl FnOnce(&Session) -> anyhow::Result<Total>,
) -> anyhow::Result<Row> {
    let mut progress = Progress::new(part, time.as_secs());
    let mut row = Row {
        part: part.to_owned(),
        before: Belongings::count(),
        ..Row::default()
    };
    let since = Instant::now();
    let session = Session::start(config).await?;
    row.ready.add(since.elapsed());
    let total = watch(&session)?;
    let pid = session.pid().context("no process")?;
    let (begin, mut early) = (Instant::now(), None);
    while begin.elapsed() < time {
        let since = Instant::now();
        ensure!(
            session.query_status().await?.running,
            "the guest does not run"
        );
        row.answer.add(since.elapsed());
        if early.is_none() && begin.elapsed() > time / 4 {
            early = Some((resident(std::process::id()), resident(pid)));
        }
        progress.set(begin.elapsed().as_secs());
    }
    let (ours, qemus) = early.context("not one answer after a quarter of the time")?;
    let (ours_now, qemus_now) = (resident(std::process::id()), resident(pid));
    let total = total();
    row.amount = format!("{} s, {total} {unit}", time.as_secs());
    if total < 1000 {
        row.faults
            .push(format!("that was no flood: {total} {unit}"));
    }
    if qemus_now > qemus + QEMU_GROWTH_KIB {
        row.faults
            .push(format!("QEMU grew from {qemus} to {qemus_now} KiB"));
    }
    if ours_now > ours + GROWTH_KIB {
        row.faults.push(format!(
            "this process grew from {ours} to {ours_now} KiB during the flood"
        ));
    }
    let since = Instant::now();
    check_stop(&session).await?;
    row.stop.add(since.elapsed());
    drop(session);
    row.after = Belongings::settled(&row.before).await;
    Ok(row)
}
