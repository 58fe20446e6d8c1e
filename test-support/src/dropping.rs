//! Futures that are dropped before they are ready, for both targets that try a session.

use std::future::{Future, poll_fn};
use std::task::Poll;

/// Polls a future so many times as it is woken, then drops it; true if it was ready before.
pub async fn drop_after(polls: usize, future: impl Future) -> bool {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(cx).map(|_| true)
    })
    .await
}
