//! A session that is attached, as its configuration says: deadlines and transcript.

use std::time::Duration;

use qemu_controller::{Address, AttachConfig, CommandError, Session, StartError};
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::UnixListener;

use crate::peer::{GREETING, Peer};

#[tokio::test(start_paused = true)]
async fn an_attached_session_as_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.qmp");
    let config = AttachConfig::default()
        .command_deadline(Duration::from_secs(77))
        .qmp_transcript(&file);
    let (mut peer, session) = Peer::over(config);
    let (session, ()) = tokio::join!(session, peer.handshake());
    let session = session.unwrap();
    let since = tokio::time::Instant::now();
    let error = session.execute("never-answered", &()).await.unwrap_err();
    assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    assert_eq!(since.elapsed().as_secs(), 77);
    session.detach().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let said: Vec<_> = qmp_proto::transcript::lines(&text)
        .map(|line| line.unwrap().text.to_owned())
        .collect();
    assert_eq!(said[0], GREETING);
    assert!(said.last().unwrap().contains("never-answered"), "{text}");

    // It takes its time, and no more.
    let (_peer, session) = Peer::over(AttachConfig::default().deadline(Duration::from_secs(33)));
    let since = tokio::time::Instant::now();
    assert!(matches!(session.await, Err(StartError::Deadline { .. })));
    assert_eq!(since.elapsed().as_secs(), 33);

    let config =
        AttachConfig::default().qmp_transcript(folder.path().join("none").join("session.qmp"));
    let (_peer, session) = Peer::over(config);
    assert!(matches!(session.await, Err(StartError::Log { .. })));
}

/// QEMU's main loop can wait for a second connection while its monitor's thread has the first.
#[tokio::test]
async fn a_qemu_that_hangs_in_accept_is_freed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let qemu = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let (near, mut far) = duplex(64 * 1024);
        tokio::spawn(async move { copy_bidirectional(&mut first, &mut far).await });
        let mut peer = Peer::on(near);
        peer.say(GREETING).await;
        assert_eq!(peer.hear().await.name, "qmp_capabilities");
        listener.accept().await.unwrap();
        peer.answer().await;
        peer.serve().await;
        listener
    };
    let qemu = tokio::spawn(qemu);
    let session = Session::attach(Address::Socket(path), Duration::from_secs(60))
        .await
        .unwrap();
    assert!(session.query_status().await.unwrap().running);
    session.detach().unwrap();
    let listener = qemu.await.unwrap();
    let third = tokio::time::timeout(Duration::from_millis(1), listener.accept());
    assert!(third.await.is_err(), "it was connected to a third time");
}
