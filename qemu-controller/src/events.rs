//! QEMU's events, as a stream for any number of subscribers.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use qmp_proto::QmpEvent;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

/// All events from the moment of [`Session::events`](crate::Session::events) on, in the order in which QEMU
/// sent them.
///
/// An event that QEMU sent before a command's reply is here before that command's future is ready. A
/// subscriber that falls behind by more than 1,024 events misses the oldest, learns how many ([`Missed`]),
/// and slows nobody. The stream ends with the session.
#[derive(Debug)]
pub struct Events {
    inner: BroadcastStream<QmpEvent>,
}

/// This subscriber was too slow: so many events are gone for it. The stream goes on with the oldest that is
/// still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were missed, the subscriber was too slow")]
pub struct Missed(pub u64);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<QmpEvent>) -> Self {
        Self { inner: BroadcastStream::new(receiver) }
    }

    /// The next event; `None` when the session has ended. May be dropped at any point without losing an
    /// event.
    pub async fn next(&mut self) -> Option<Result<QmpEvent, Missed>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Events {
    type Item = Result<QmpEvent, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.inner).poll_next(cx).map(|event| {
            event.map(|event| event.map_err(|BroadcastStreamRecvError::Lagged(count)| Missed(count)))
        })
    }
}
