//! QMP over each kind of endpoint.

use std::net::SocketAddr;

use qemu_controller::qemu_launch::Monitor;
use qemu_controller::{Address, Endpoint, Session, StartError, StoppedBy};

use crate::support::{DEADLINE, config, reserved_port};

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
    let (_held, port) = reserved_port();
    check(Endpoint::loopback(port)).await;
}

/// Another QEMU has the port, and nobody is connected to it: it must not be taken for ours.
#[tokio::test]
async fn a_port_that_another_qemu_has() {
    let (_held, port) = reserved_port();
    let stranger = Session::start(
        config("tick").with_spec(|spec| spec.monitor(Monitor::Qmp(Endpoint::loopback(port)))),
    )
    .await
    .unwrap();
    let error = Session::start(config("tick").qmp(Endpoint::loopback(port)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StartError::Exited { exit, .. } if exit.code() == Some(1)),
        "{error}"
    );
    assert!(
        error.to_string().contains("Address already in use"),
        "{error}"
    );
    assert!(stranger.query_status().await.unwrap().running);
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
    assert!(
        Session::attach(address, DEADLINE)
            .await
            .unwrap()
            .query_status()
            .await
            .unwrap()
            .running
    );
}
