//! The kill matrix: QEMU killed, crashed, aborted or stopped in each phase of a session. Who waits is told, and nothing is left.
//!
//! What holds a phase is never luck: a QEMU that reads its options from a FIFO does not listen yet, one that loads a FIFO has greeted and answers nothing, one that
//! dumps memory into a FIFO is in the middle of a command, and a relay lets pass what it likes.

use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use qemu_controller::{
    AttachError, CommandError, Ended, Endpoint, Events, Ladder, QemuConfig, Session, StartError, StartPhase,
    Stopped, StoppedBy,
};
use qemu_launch::MachineSpec;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex,
};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::support::{DEADLINE, Fifo, Held, config, image, process_with};

const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::SEGV, Signal::ABORT, Signal::STOP];

/// How long one waits for a QEMU that was stopped and hears nothing.
const SHORT: Duration = Duration::from_millis(300);

/// The same for a session over a relay, which has to come as far as its phase before.
const SHORT_OVER: Duration = Duration::from_secs(1);

/// The same for a start, which has to start a process besides.
const SHORT_START: Duration = Duration::from_secs(3);

/// A deadline that is part of what is tested with SIGSTOP, and out of reach with the others.
fn patience(signal: Signal) -> Duration {
    if signal == Signal::STOP { SHORT } else { DEADLINE }
}

/// The error's, if QEMU was ended by this signal.
fn ended_by(ended: Option<&Ended>, signal: Signal) -> bool {
    matches!(ended, Some(Ended::Exited(exit)) if exit.signal() == Some(signal.as_raw()))
}

/// A command's waiter: told how QEMU ended, or at its deadline that a stopped one did not answer.
fn check_told<T: std::fmt::Debug>(result: Result<T, CommandError>, signal: Signal) {
    let error = result.unwrap_err();
    let told = match signal {
        Signal::STOP => matches!(error, CommandError::Deadline { .. }),
        _ => ended_by(error.ended(), signal),
    };
    assert!(told, "{signal:?}: {error:?}");
}

/// Asks until there is no answer: the first question after a signal may still be answered.
async fn unanswered(session: &Session) -> Result<(), CommandError> {
    loop {
        session.query_status().await?;
    }
}

async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) {
    let ready = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
    assert!(!ready, "it is over before the signal");
}

// --- Before the session is ready: `Session::start` ---------------------------------------------------------------------------------------------------

/// Starts a session that cannot get beyond a phase, sends the signal in it, and looks at the error.
async fn during_start(phase: StartPhase, signal: Signal) {
    let fifo = Fifo::new();
    let marker = format!("kill-{phase:?}-{}-{}", signal.as_raw(), std::process::id());
    let asked = Arc::new(Notify::new());
    let loader = format!("loader,file={fifo},addr=0x20000000,force-raw=on");
    let deadline = if signal == Signal::STOP {
        SHORT_START
    } else {
        DEADLINE
    };
    let config = config("tick").start_deadline(deadline);
    let config = match phase {
        StartPhase::Connecting => config.qmp(Endpoint::PrivateSocket).extra_args([
            "-name",
            &marker,
            "-readconfig",
            &fifo.to_string(),
        ]),
        StartPhase::Greeting => config.extra_args(["-name", &marker, "-readconfig", &fifo.to_string()]),
        _ => config
            .extra_args(["-name", &marker, "-device", &loader])
            .qmp_transcript_to(Tell("qmp_capabilities", Arc::clone(&asked))),
    };
    let starting = tokio::spawn(Session::start(config));
    let qemu = Held::of(process_with(&marker).await);
    let _blocked = match phase {
        StartPhase::Negotiation => {
            asked.notified().await;
            None
        }
        // While nobody writes and this end is open, QEMU waits for the rest of its options.
        _ => Some(fifo.write_end().await),
    };
    qemu.signal(signal).await;
    let error = starting.await.unwrap().unwrap_err();
    let told = match &error {
        StartError::Exited {
            phase: seen, exit, ..
        } => *seen == phase && exit.signal() == Some(signal.as_raw()) && signal != Signal::STOP,
        StartError::Deadline { phase: seen, .. } => *seen == phase && signal == Signal::STOP,
        _ => false,
    };
    assert!(told, "{phase:?}, {signal:?}: {error:?}");
    qemu.reaped().await;
}

/// A transcript that tells when a command is written into it.
struct Tell(&'static str, Arc<Notify>);

impl Write for Tell {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if String::from_utf8_lossy(bytes).contains(self.0) {
            self.1.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All four at once: the one that is stopped takes its deadline.
async fn each_signal_during_start(phase: StartPhase) {
    let [kill, crash, abort, stop] = SIGNALS.map(|signal| during_start(phase, signal));
    tokio::join!(kill, crash, abort, stop);
}

#[tokio::test]
async fn before_connect() {
    each_signal_during_start(StartPhase::Connecting).await;
}

#[tokio::test]
async fn before_the_greeting() {
    each_signal_during_start(StartPhase::Greeting).await;
}

#[tokio::test]
async fn before_the_capabilities() {
    each_signal_during_start(StartPhase::Negotiation).await;
}

// --- Before the session is ready: `Session::over` a relay that withholds -----------------------------------------------------------------------------

/// Lets pass all that comes before a phase, and then nothing more.
async fn over_a_relay(phase: StartPhase, signal: Signal) {
    let mut qemu = qemu_launch::spawn_async(MachineSpec::default().firmware(image("tick")))
        .await
        .unwrap();
    let held = Held::of(qemu.pid());
    let stream = qemu.take_qmp().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = BufReader::new(UnixStream::from_std(stream).unwrap());
    let greeting = line(&mut stream).await;

    let (client, mut relay) = duplex(64 * 1024);
    let deadline = if signal == Signal::STOP {
        SHORT_OVER
    } else {
        DEADLINE
    };
    let attaching = tokio::spawn(Session::over(client, deadline));
    if phase != StartPhase::Greeting {
        relay.write_all(greeting.as_bytes()).await.unwrap();
        let asked = command(&mut relay, "qmp_capabilities").await;
        if phase == StartPhase::FirstStatus {
            stream.write_all(&asked).await.unwrap();
            let answer = line(&mut stream).await;
            relay.write_all(answer.as_bytes()).await.unwrap();
            command(&mut relay, "query-status").await;
        }
    }
    held.signal(signal).await;

    if signal == Signal::STOP {
        let error = attaching.await.unwrap().unwrap_err();
        let told = matches!(error, AttachError::Deadline { phase: seen, .. } if seen == phase);
        assert!(told, "{phase:?}: {error:?}");
    } else {
        // QEMU's end comes over the socket as an end or a reset; the relay passes it on.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        drop(relay);
        let error = attaching.await.unwrap().unwrap_err();
        let told =
            matches!(&error, AttachError::Ended { phase: seen, source: Ended::Closed, .. } if *seen == phase);
        assert!(told, "{phase:?}, {signal:?}: {error:?}");
    }
    qemu.end(Ladder::kill()).await.unwrap();
    held.reaped().await;
}

async fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.ends_with('\n'), "QEMU closed its monitor after '{line}'");
    line
}

/// What the session sends next, which is this command.
async fn command(relay: &mut DuplexStream, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let length = relay.read_buf(&mut bytes).await.unwrap();
        assert!(length > 0, "the session closed the stream");
        if let Ok(command) = serde_json::from_slice::<Value>(&bytes) {
            assert_eq!(command["execute"], name);
            return bytes;
        }
    }
}

async fn each_signal_over_a_relay(phase: StartPhase) {
    let [kill, crash, abort, stop] = SIGNALS.map(|signal| over_a_relay(phase, signal));
    tokio::join!(kill, crash, abort, stop);
}

#[tokio::test]
async fn before_a_relay_lets_the_greeting_pass() {
    each_signal_over_a_relay(StartPhase::Greeting).await;
}

#[tokio::test]
async fn before_a_relay_lets_the_capabilities_pass() {
    each_signal_over_a_relay(StartPhase::Negotiation).await;
}

#[tokio::test]
async fn before_a_relay_lets_the_first_status_pass() {
    each_signal_over_a_relay(StartPhase::FirstStatus).await;
}

// --- When the session is ready -----------------------------------------------------------------------------------------------------------------------

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), CommandError>> + 'a>>;

/// A ready session, and everybody who waits for something other than a command's answer.
struct Scene {
    signal: Signal,
    session: Session,
    qemu: Held,
    events: Events,
    never: Call<'static>,
    ended: tokio::task::JoinHandle<Ended>,
}

impl Scene {
    async fn new(config: QemuConfig, signal: Signal) -> Self {
        let config = config.command_deadline(patience(signal)).stop_ladder(
            Ladder::default()
                .after_quit(patience(signal))
                .terminate_within(DEADLINE),
        );
        let session = Session::start(config).await.unwrap();
        let never = session.wait_for_event("an event that never comes", |_| false);
        let waiter = session.clone();
        Self {
            signal,
            qemu: Held::of(session.pid().unwrap()),
            events: session.events(),
            never: Box::pin(async { never.await.map(drop) }),
            ended: tokio::spawn(async move { waiter.ended().await }),
            session,
        }
    }

    /// Has QEMU in the middle of a command that does not end; the future is that command's.
    async fn busy(&self, fifo: &Fifo) -> Call<'static> {
        let (session, file) = (self.session.clone(), fifo.to_string());
        let mut busy: Call<'static> = Box::pin(async move {
            let arguments = json!({ "val": 0, "size": 4, "filename": file });
            session.execute("pmemsave", &arguments).await.map(drop)
        });
        poll_once(busy.as_mut()).await;
        busy
    }

    /// Everybody is told, `stop` ends what is left, and nobody waits for a session that has ended.
    async fn check_end(mut self) {
        let signal = self.signal;
        check_told(unanswered(&self.session).await, signal);
        check_told(self.never.await, signal);
        if signal != Signal::STOP {
            let ended = (&mut self.ended).await.unwrap();
            assert!(ended_by(Some(&ended), signal), "{ended:?}");
        }
        let stopped = self.session.stop().await.unwrap();
        check_stopped(&stopped, signal, &[StoppedBy::Itself]);
        check_over(self.session, self.qemu, self.events).await;
    }
}

/// `by` is what a signal that ends QEMU leaves for `stop` to do.
fn check_stopped(stopped: &Stopped, signal: Signal, by: &[StoppedBy]) {
    let exit = stopped.exit.as_ref().unwrap();
    if signal == Signal::STOP {
        assert!(
            matches!(stopped.by, StoppedBy::Terminate | StoppedBy::Kill),
            "{stopped:?}"
        );
    } else {
        assert!(by.contains(&stopped.by), "{signal:?}: {stopped:?}");
        assert_eq!(exit.signal(), Some(signal.as_raw()), "{stopped:?}");
    }
}

/// Nobody waits any more, and no process is left.
async fn check_over(session: Session, qemu: Held, mut events: Events) {
    qemu.reaped().await;
    while events.next().await.is_some() {}
    assert!(session.events().next().await.is_none());
    assert!(matches!(session.ended().await, Ended::Exited(_)));
    assert!(matches!(
        session.query_status().await,
        Err(CommandError::Ended { .. })
    ));
    assert_eq!(session.stop().await.unwrap().by, StoppedBy::Itself);
}

#[tokio::test]
async fn idle() {
    for signal in SIGNALS {
        let scene = Scene::new(config("tick"), signal).await;
        scene.qemu.signal(signal).await;
        scene.check_end().await;
    }
}

#[tokio::test]
async fn mid_command() {
    for signal in SIGNALS {
        let fifo = Fifo::new();
        let scene = Scene::new(config("tick"), signal).await;
        let busy = scene.busy(&fifo).await;
        // Eight are with QEMU, the one that it is busy with included; the others wait for a place.
        let mut waiting = verbs(&scene.session);
        waiting.extend(verbs(&scene.session));
        for call in &mut waiting {
            poll_once(call.as_mut()).await;
        }
        scene.qemu.signal(signal).await;
        check_told(busy.await, signal);
        for call in waiting {
            check_told(call.await, signal);
        }
        scene.check_end().await;
    }
}

fn verbs(session: &Session) -> Vec<Call<'_>> {
    vec![
        Box::pin(async { session.query_status().await.map(drop) }),
        Box::pin(async { session.query_cpus().await.map(drop) }),
        Box::pin(session.pause()),
        Box::pin(session.resume()),
        Box::pin(session.reset()),
        Box::pin(session.powerdown()),
        Box::pin(async { session.human_monitor_command("info version").await.map(drop) }),
        Box::pin(async { session.execute("query-version", &()).await.map(drop) }),
    ]
}

#[tokio::test]
async fn mid_event_flood() {
    for signal in SIGNALS {
        let mut scene = Scene::new(config("reset-request").wait_for_gdb(true), signal).await;
        let asking = scene.session.clone();
        // With a deadline of its own: what is slow in a flood is not what is tested here.
        asking.with_deadline(DEADLINE).resume().await.unwrap();
        for _ in 0..1000 {
            let _ = scene.events.next().await.unwrap();
        }
        scene.qemu.signal(signal).await;
        scene.check_end().await;
    }
}

#[tokio::test]
async fn mid_quit() {
    for signal in SIGNALS {
        let fifo = Fifo::new();
        let scene = Scene::new(config("tick"), signal).await;
        let busy = scene.busy(&fifo).await;
        let mut stops = [Box::pin(scene.session.stop()), Box::pin(scene.session.stop())];
        for stop in &mut stops {
            poll_once(stop.as_mut()).await;
        }
        scene.qemu.signal(signal).await;
        // Busy with another command, QEMU never came to `quit`: the signal ended it, within the time for that.
        for stop in stops {
            check_stopped(&stop.await.unwrap(), signal, &[StoppedBy::Quit]);
        }
        assert!(busy.await.is_err());
        assert!(scene.never.await.is_err());
        assert!(matches!(scene.ended.await.unwrap(), Ended::Exited(_)));
        check_over(scene.session, scene.qemu, scene.events).await;
    }
}

#[tokio::test]
async fn after_quit() {
    for signal in SIGNALS {
        let scene = Scene::new(config("tick"), signal).await;
        // Its answer may be lost with QEMU.
        let _ = scene.session.execute("quit", &()).await;
        scene.qemu.signal_if_there(signal);
        let told = unanswered(&scene.session).await.unwrap_err();
        let by_deadline = matches!(told, CommandError::Deadline { .. });
        assert!(
            told.ended().is_some() || by_deadline && signal == Signal::STOP,
            "{told:?}"
        );
        assert!(scene.never.await.is_err());
        // On its way out or stopped there: how far it had come is the only thing that is left open.
        let stopped = scene.session.stop().await.unwrap();
        let exit = stopped.exit.unwrap();
        assert!(
            exit.success() || exit.signal().is_some(),
            "{signal:?}: {exit:?} {:?}",
            stopped.by
        );
        assert!(matches!(scene.ended.await.unwrap(), Ended::Exited(_)));
        // And once more, when all is over.
        scene.qemu.signal_if_there(signal);
        check_over(scene.session, scene.qemu, scene.events).await;
    }
}
