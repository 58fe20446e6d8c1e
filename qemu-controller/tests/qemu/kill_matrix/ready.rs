//! When the session is ready: idle, in the middle of a command, of an event flood and of `quit`,
//! and after `quit`.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use qemu_controller::{
    CommandError, Events, QemuConfig, Session, SessionEnd, StopReport, StoppedBy,
};
use rustix::process::Signal;
use serde_json::json;

use super::{SIGNALS, ended_by, patience};
use crate::support::{DEADLINE, Fifo, Held, config};

const SHORT: Duration = Duration::from_millis(300);

/// A command's waiter: told how QEMU ended, or at its deadline that a stopped one did not answer.
fn check_told<T: std::fmt::Debug>(result: Result<T, CommandError>, signal: Signal) {
    let error = result.unwrap_err();
    let told = match signal {
        Signal::STOP => matches!(
            error,
            CommandError::Deadline { .. } | CommandError::NoEvent { .. }
        ),
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

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), CommandError>> + 'a>>;

/// A ready session, and everybody who waits for something other than a command's answer.
struct Scene {
    signal: Signal,
    session: Session,
    qemu: Held,
    events: Events,
    never: Call<'static>,
    ended: tokio::task::JoinHandle<SessionEnd>,
}

impl Scene {
    async fn new(config: QemuConfig, signal: Signal) -> Self {
        let config = config
            .command_deadline(patience(signal, SHORT))
            .stop_policy(patience(signal, SHORT), DEADLINE, DEADLINE);
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
fn check_stopped(stopped: &StopReport, signal: Signal, by: &[StoppedBy]) {
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
    assert!(matches!(session.ended().await, SessionEnd::Exited(_)));
    assert!(matches!(
        session.query_status().await,
        Err(CommandError::Ended { .. })
    ));
    session.stop().await.unwrap();
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
        Box::pin(async {
            session
                .human_monitor_command("info version")
                .await
                .map(drop)
        }),
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
        let mut stops = [
            Box::pin(scene.session.stop()),
            Box::pin(scene.session.stop()),
        ];
        for stop in &mut stops {
            poll_once(stop.as_mut()).await;
        }
        scene.qemu.signal(signal).await;
        // Busy with another command, QEMU never came to `quit`: the signal ended it.
        for stop in stops {
            check_stopped(&stop.await.unwrap(), signal, &[StoppedBy::Itself]);
        }
        assert!(busy.await.is_err());
        assert!(scene.never.await.is_err());
        assert!(matches!(scene.ended.await.unwrap(), SessionEnd::Exited(_)));
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
        let ended = scene.ended.await.unwrap();
        assert!(
            matches!(ended, SessionEnd::Exited(_)),
            "{signal:?}: {ended:?}"
        );
        // And once more, when all is over.
        scene.qemu.signal_if_there(signal);
        check_over(scene.session, scene.qemu, scene.events).await;
    }
}
