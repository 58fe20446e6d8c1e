//! A session that is attached, as its configuration says: deadlines and transcript.

use std::time::Duration;

use qemu_controller::{AttachConfig, AttachError, CommandError};

use crate::peer::{GREETING, Peer};

#[tokio::test(start_paused = true)]
async fn an_attached_session_as_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.qmp");
    let config = AttachConfig::default().command_deadline(Duration::from_secs(77)).qmp_transcript(&file);
    let (mut peer, session) = Peer::over(config);
    let (session, ()) = tokio::join!(session, peer.handshake());
    let session = session.unwrap();
    let since = tokio::time::Instant::now();
    let error = session.execute("never-answered", &()).await.unwrap_err();
    assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    assert_eq!(since.elapsed().as_secs(), 77);
    session.detach().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let said: Vec<_> =
        qmp_proto::transcript::lines(&text).map(|line| line.unwrap().text.to_owned()).collect();
    assert_eq!(said[0], GREETING);
    assert!(said.last().unwrap().contains("never-answered"), "{text}");

    // It takes its time, and no more.
    let (_peer, session) = Peer::over(AttachConfig::default().deadline(Duration::from_secs(33)));
    let since = tokio::time::Instant::now();
    assert!(matches!(session.await, Err(AttachError::Deadline { .. })));
    assert_eq!(since.elapsed().as_secs(), 33);

    let config = AttachConfig::default().qmp_transcript(folder.path().join("none").join("session.qmp"));
    let (_peer, session) = Peer::over(config);
    assert!(matches!(session.await, Err(AttachError::Transcript(_))));
}
