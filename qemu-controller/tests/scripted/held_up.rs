//! A program that was held up past a deadline, by whatever, while QEMU answered in time. Over a real socket:
//! only there do both come at one moment.

use std::future::poll_fn;
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::task::Poll;
use std::time::{Duration, Instant};

use qemu_controller::Session;
use serde_json::{Value, json};

use crate::peer::{DEADLINE, GREETING};

/// Answers every command at once, until the stream ends.
fn answer_all(stream: UnixStream) {
    (&stream).write_all(GREETING.as_bytes()).unwrap();
    let mut heard = serde_json::Deserializer::from_reader(BufReader::new(stream.try_clone().unwrap()))
        .into_iter::<Value>();
    while let Some(Ok(command)) = heard.next() {
        let answer = json!({ "return": { "status": "running", "running": true }, "id": command["id"] });
        (&stream).write_all(answer.to_string().as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_has_come_counts() {
    let (client, server) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || answer_all(server));
    client.set_nonblocking(true).unwrap();
    let look = client.try_clone().unwrap();
    let session = Session::over(tokio::net::UnixStream::from_std(client).unwrap(), DEADLINE).await.unwrap();

    let deadline = Duration::from_millis(20);
    for _ in 0..20 {
        let hasty = session.with_deadline(deadline);
        let sent = Instant::now();
        let mut asked = Box::pin(hasty.query_status());
        assert!(poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await);
        // The thread does nothing else until the answer is there and the deadline is over.
        while sent.elapsed() < 2 * deadline
            || rustix::net::recv(&look, &mut [0; 1], rustix::net::RecvFlags::PEEK).is_err()
        {}
        assert!(asked.await.unwrap().running);
    }
    drop((session, look));
    server.join().unwrap();
}
