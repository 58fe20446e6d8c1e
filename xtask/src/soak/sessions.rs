//! Many sessions: one after another, at once, and to one monitor again and again.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use qemu_controller::{Address, Endpoint, Session, StoppedBy};
use qemu_launch::Monitor;
use tokio::task::JoinSet;

use super::{
    PATIENCE, config,
    figures::{Belongings, Row},
    progress::Progress,
};

/// Starts and stops; each tenth is dropped in place of stopped, and every second one has a socket
/// for its monitor.
pub(super) async fn cycles(count: u64) -> anyhow::Result<Row> {
    let mut progress = Progress::new("cycles", count);
    let mut row = Row {
        part: "cycles".to_owned(),
        amount: format!("{count} starts"),
        ..Row::default()
    };
    row.before = Belongings::count();
    for number in 0..count {
        let since = Instant::now();
        let session = Session::start(config("tick").qmp(endpoint(number)))
            .await
            .with_context(|| format!("start {number}"))?;
        row.ready.add(since.elapsed());
        if number % 10 == 9 {
            let ended = session.ended();
            drop(session);
            ended.await;
        } else {
            let since = Instant::now();
            check_stop(&session)
                .await
                .with_context(|| format!("stop {number}"))?;
            row.stop.add(since.elapsed());
        }
        progress.set(number + 1);
    }
    row.after = Belongings::settled(&row.before).await;
    Ok(row)
}

/// Fifty at once, again and again.
pub(super) async fn fifty(rounds: u64) -> anyhow::Result<Row> {
    let mut progress = Progress::new("fifty", rounds + 1);
    let mut row = Row {
        part: "fifty".to_owned(),
        amount: format!("{rounds} times 50"),
        ..Row::default()
    };
    // What the allocator keeps for fifty is no leak: the first round is for it.
    for round in 0..=rounds {
        if round == 1 {
            row.before = Belongings::settled(&Belongings::default()).await;
        }
        fifty_once(&mut row)
            .await
            .with_context(|| format!("round {round}"))?;
        progress.set(round + 1);
    }
    row.after = Belongings::settled(&row.before).await;
    Ok(row)
}

async fn fifty_once(row: &mut Row) -> anyhow::Result<()> {
    let mut starting = JoinSet::new();
    for number in 0..50 {
        starting.spawn(async move {
            let since = Instant::now();
            let session = Session::start(config("tick").qmp(endpoint(number))).await?;
            anyhow::Ok((session, since.elapsed()))
        });
    }
    let mut sessions = Vec::new();
    while let Some(started) = starting.join_next().await {
        let (session, time) = started??;
        sessions.push(session);
        row.ready.add(time);
    }
    let mut stopping = JoinSet::new();
    for session in sessions {
        stopping.spawn(async move {
            let asked = Instant::now();
            ensure!(
                session.query_status().await?.running,
                "a guest does not run"
            );
            let (answer, since) = (asked.elapsed(), Instant::now());
            check_stop(&session).await?;
            anyhow::Ok((answer, since.elapsed()))
        });
    }
    while let Some(stopped) = stopping.join_next().await {
        let (answer, stop) = stopped??;
        row.answer.add(answer);
        row.stop.add(stop);
    }
    Ok(())
}

/// Connects to one monitor while its guest resets without end.
pub(super) async fn connects(count: u64) -> anyhow::Result<Row> {
    let mut progress = Progress::new("connects", count);
    let mut row = Row {
        part: "connects".to_owned(),
        amount: format!("{count} connects"),
        ..Row::default()
    };
    row.before = Belongings::count();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("monitor");
    let second = Monitor::Qmp(Endpoint::Socket(path.clone()));
    let owner =
        Session::start(config("reset-request").with_spec(|spec| spec.monitor(second))).await?;
    for number in 0..count {
        let since = Instant::now();
        let guest = Session::attach(Address::Socket(path.clone()), PATIENCE)
            .await
            .with_context(|| format!("connect {number}"))?;
        row.ready.add(since.elapsed());
        let since = Instant::now();
        ensure!(
            guest.query_status().await?.running,
            "the guest does not run"
        );
        row.answer.add(since.elapsed());
        progress.set(number + 1);
    }
    let since = Instant::now();
    check_stop(&owner).await?;
    row.stop.add(since.elapsed());
    drop((owner, folder));
    row.after = Belongings::settled(&row.before).await;
    Ok(row)
}

/// Every second monitor is a socket, the others are inherited.
fn endpoint(number: u64) -> Endpoint {
    if number.is_multiple_of(2) {
        Endpoint::Inherited
    } else {
        Endpoint::PrivateSocket
    }
}

/// By `quit`, with status 0: anything else is a fault.
pub(super) async fn check_stop(session: &Session) -> anyhow::Result<()> {
    let stopped = session.stop().await?;
    let clean = stopped.exit.as_ref().is_some_and(|exit| exit.success());
    ensure!(stopped.by == StoppedBy::Quit && clean, "{stopped}");
    Ok(())
}
