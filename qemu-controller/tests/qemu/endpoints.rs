//! QMP over each kind of endpoint.

use std::net::TcpListener;

use qemu_controller::{Endpoint, Session, StoppedBy};

use crate::support::config;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn check(endpoint: Endpoint) {
    let session = Session::start(config("tick").qmp(endpoint)).await.unwrap();
    session.pause().await.unwrap();
    session.resume().await.unwrap();
    session.reset().await.unwrap();
    assert!(session.query_status().await.unwrap().running);
    assert_eq!(session.stop().await.unwrap().by, StoppedBy::Quit);
}

#[tokio::test]
async fn an_inherited_socket_pair() {
    check(Endpoint::Inherited).await;
}

#[tokio::test]
async fn a_socket_in_a_private_folder() {
    check(Endpoint::PrivateSocket).await;
}

#[tokio::test]
async fn a_socket_at_a_path_with_hostile_characters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a,b=c d.sock");
    check(Endpoint::Socket(path)).await;
}

#[tokio::test]
async fn loopback_tcp() {
    check(Endpoint::loopback(free_port())).await;
}
