//! The byte stream to a monitor: a unix socket, a TCP connection, or anything else that reads and writes.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a session can speak QMP over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Transport for T {}

/// One owned stream, whichever kind it is; a virtual call per read and write is nothing beside the system
/// call.
pub(crate) type BoxTransport = Pin<Box<dyn Transport>>;
