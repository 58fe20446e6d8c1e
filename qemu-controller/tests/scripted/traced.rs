//! What a session traces: each command with name, id and time, each event, and the end.

use serde_json::json;

use crate::peer::connected;
use test_support::Collected;

#[tokio::test(start_paused = true)]
async fn each_command_each_event_and_the_end() {
    let (collected, _guard) = Collected::begin();
    let (session, mut peer) = connected().await;
    let asked = tokio::spawn({
        let session = session.clone();
        async move { session.execute("query-version", &()).await }
    });
    let command = peer.hear().await;
    let id = command.id.as_str().unwrap();
    let sent = collected.line_with(&["query-version", "sent"]);
    assert_eq!(
        sent,
        format!("DEBUG qemu{{}}:command{{name=\"query-version\" id={id}}}: sent")
    );
    peer.answer().await;
    asked.await.unwrap().unwrap();
    let answered = collected.line_with(&["query-version", id, "answered", "ok=true", "took="]);
    assert!(answered.starts_with("DEBUG qemu{}:command{"), "{answered}");

    let late = session.execute("never-answered", &()).await;
    assert!(late.is_err());
    collected.line_with(&["never-answered", "not answered", "took=5s"]);

    let mut events = session.events();
    peer.event("SOMETHING", json!({})).await;
    events.next().await.unwrap().unwrap();
    assert_eq!(
        collected.line_with(&["SOMETHING"]),
        "DEBUG qemu{}: event event=SOMETHING"
    );

    peer.close(None);
    session.ended().await;
    drop(session);
    assert_eq!(
        collected.line_with(&["session ended"]),
        "INFO qemu{}: session ended ended=the connection to QEMU's monitor was closed"
    );
}
