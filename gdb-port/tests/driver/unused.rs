//! A port that nobody listens on, now and later.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// The port is this socket's, which does not listen. A listener that was closed would not do: a
/// child that another test is about to start has a copy of it for a moment, and then the port may
/// be somebody else's.
pub(crate) fn unused() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = socket.local_addr().unwrap();
    (socket, endpoint)
}
