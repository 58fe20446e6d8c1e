//! A program that was held up past a deadline, by whatever, while QEMU answered in time. Over a
//! real socket: only there do both come at one moment.

use std::future::poll_fn;
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use qemu_controller::{CommandError, Session, SessionEnd, WaitPhase};
use serde_json::{Value, json};

use crate::peer::GREETING;

/// Ample: time is not paused here.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is held up for longer.
const SHORT: Duration = Duration::from_millis(20);

/// Answers every command at once, until the stream ends: `x-tell` with an event alone, and `quit`
/// with the end.
fn answer_all(stream: UnixStream) {
    (&stream).write_all(GREETING.as_bytes()).unwrap();
    let mut heard =
        serde_json::Deserializer::from_reader(BufReader::new(stream.try_clone().unwrap()))
            .into_iter::<Value>();
    while let Some(Ok(command)) = heard.next() {
        let answer = match command["execute"].as_str() {
            Some("quit") => return,
            Some("x-tell") => {
                json!({ "event": "TOLD", "timestamp": { "seconds": 0, "microseconds": 0 } })
            }
            _ => json!({ "return": { "status": "running", "running": true }, "id": command["id"] }),
        };
        (&stream).write_all(answer.to_string().as_bytes()).unwrap();
    }
}

/// A session, and a second look at its socket.
async fn begin() -> (Session, UnixStream, std::thread::JoinHandle<()>) {
    let (client, server) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || answer_all(server));
    client.set_nonblocking(true).unwrap();
    let look = client.try_clone().unwrap();
    let session =
        Session::attach_stream(tokio::net::UnixStream::from_std(client).unwrap(), DEADLINE)
            .await
            .unwrap();
    (session, look, server)
}

/// Polls a future once, and then does nothing else until the deadline is over and there is
/// something to read.
async fn held_up<T>(look: &UnixStream, asked: impl Future<Output = T>) -> T {
    let sent = Instant::now();
    let mut asked = pin!(asked);
    assert!(poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await);
    while sent.elapsed() < 2 * SHORT
        || rustix::net::recv(look, &mut [0; 1], rustix::net::RecvFlags::PEEK).is_err()
    {}
    asked.await
}

#[tokio::test]
async fn an_answer_that_has_come_counts() {
    let (session, look, server) = begin().await;
    for _ in 0..20 {
        assert!(
            held_up(&look, session.with_deadline(SHORT).query_status())
                .await
                .unwrap()
                .running
        );
    }
    drop((session, look));
    server.join().unwrap();
}

/// As where a debugger stops the program.
async fn nothing_runs() {
    let since = Instant::now();
    tokio::task::yield_now().await;
    while since.elapsed() < Duration::from_millis(1200) {}
}

#[tokio::test]
async fn a_deadline_that_only_this_program_missed_is_told_as_such() {
    let (client, server) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    (&server).write_all(GREETING.as_bytes()).unwrap();
    let stream = tokio::net::UnixStream::from_std(client).unwrap();
    let (error, ()) = tokio::join!(Session::attach_stream(stream, SHORT), nothing_runs());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("this program itself was held up"), "{error}");

    let (session, look, server) = begin().await;
    let hasty = session.with_deadline(SHORT);
    // It is answered by an event alone.
    let (error, ()) = tokio::join!(hasty.execute("x-tell", &()), nothing_runs());
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            CommandError::Deadline {
                phase: WaitPhase::HeldUp,
                ..
            }
        ),
        "{error}"
    );
    drop((session, hasty, look));
    server.join().unwrap();
}

#[tokio::test]
async fn an_event_that_has_come_counts() {
    let (session, look, server) = begin().await;
    // Each takes one of the eight places for good.
    for _ in 0..7 {
        let hasty = session.with_deadline(SHORT);
        let told = hasty.wait_for_event("TOLD", |event| event.name == "TOLD");
        let mut asked = Box::pin(session.execute("x-tell", &()));
        assert!(poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await);
        assert_eq!(held_up(&look, told).await.unwrap().name, "TOLD");
    }
    drop((session, look));
    server.join().unwrap();
}

#[tokio::test]
async fn an_end_that_has_come_counts() {
    for _ in 0..20 {
        let (session, look, server) = begin().await;
        let hasty = session.with_deadline(SHORT);
        let error = held_up(&look, hasty.execute("quit", &()))
            .await
            .unwrap_err();
        assert!(matches!(error.ended(), Some(SessionEnd::Closed)), "{error}");
        server.join().unwrap();
    }
}
