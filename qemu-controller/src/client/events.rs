//! QEMU's events, as a stream for any number of subscribers.
//!
//! Each subscriber has a queue of its own, bounded by bytes. The driver gathers what one read has
//! brought and puts it into all of them; a subscriber takes out all there is in one go, so that
//! both sides seldom meet.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use qmp_proto::QmpEvent;
use tokio::task::coop;

/// Bytes of events that wait for a subscriber before it misses the oldest: 8 MiB, some 40,000
/// events.
pub const EVENT_BACKLOG_BYTES: usize = 8 * 1024 * 1024;

/// Room for so many events is kept when a queue has been emptied.
const KEPT_EVENTS: usize = 256;

/// All events from the moment of [`Session::events`](crate::Session::events) on, in the order in
/// which QEMU sent them.
///
/// An event that QEMU sent before a command's reply is here before that command's future is ready.
/// A subscriber that falls behind by more than [`EVENT_BACKLOG_BYTES`] misses the oldest, learns
/// how many ([`MissedEvents`]), and slows nobody. The stream ends with the session.
pub struct Events {
    queue: Arc<Queue>,
    /// Taken out of the queue and not yet returned.
    taken: VecDeque<QmpEvent>,
}

/// This subscriber was too slow: so many events are gone for it. The stream goes on with the oldest
/// that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were missed, the subscriber was too slow")]
pub struct MissedEvents(pub u64);

/// The driver's side. Dropping it ends the subscribers' streams.
#[derive(Default)]
pub(crate) struct Subscribers {
    queues: Vec<Weak<Queue>>,
    /// Not delivered yet.
    queued: Vec<QmpEvent>,
}

/// What waits for one subscriber.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<QmpEvent>,
    /// What `events` counts towards the bound.
    bytes: usize,
    /// Dropped since the last [`MissedEvents`].
    missed: u64,
    ended: bool,
    subscriber: Option<Waker>,
}

impl Subscribers {
    /// One more, from this moment on.
    pub(crate) fn subscribe(&mut self) -> Events {
        self.queues.retain(|queue| queue.strong_count() > 0);
        let events = Events::new();
        self.queues.push(Arc::downgrade(&events.queue));
        events
    }

    /// Takes an event for everybody, to be [delivered](Self::flush) with others.
    pub(crate) fn queue(&mut self, event: QmpEvent) {
        if !self.queues.is_empty() {
            self.queued.push(event);
        }
    }

    /// Hands everybody what was queued.
    pub(crate) fn flush(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        self.queues.retain(|queue| queue.strong_count() > 0);
        // The last one gets the events themselves: the first clone of an event's data would cost an
        // allocation.
        if let Some((last, others)) = self.queues.split_last() {
            for queue in others.iter().filter_map(Weak::upgrade) {
                queue.push(self.queued.iter().cloned());
            }
            if let Some(last) = last.upgrade() {
                last.push(self.queued.drain(..));
            }
        }
        self.queued.clear();
        self.queued.shrink_to(KEPT_EVENTS);
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            queue.end();
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, events: impl Iterator<Item = QmpEvent>) {
        let subscriber = {
            let mut waiting = self.waiting();
            waiting.push(events);
            waiting.subscriber.take()
        };
        subscriber.into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        let subscriber = {
            let mut waiting = self.waiting();
            waiting.ended = true;
            waiting.subscriber.take()
        };
        subscriber.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    /// The newest event is always kept.
    fn push(&mut self, events: impl Iterator<Item = QmpEvent>) {
        let before = self.events.len();
        self.events.extend(events);
        self.bytes += self.events.range(before..).map(size).sum::<usize>();
        while self.bytes > EVENT_BACKLOG_BYTES
            && self.events.len() > 1
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= size(&oldest);
            self.missed += 1;
        }
    }
}

/// What an event counts towards the bound.
fn size(event: &QmpEvent) -> usize {
    let data = event.data.as_ref().map_or(0, |data| data.as_bytes().len());
    size_of::<QmpEvent>() + event.name.len() + data
}

impl Events {
    fn new() -> Self {
        Self {
            queue: Arc::default(),
            taken: VecDeque::new(),
        }
    }

    /// A stream that is over.
    pub(crate) fn ended() -> Self {
        let events = Self::new();
        events.queue.end();
        events
    }

    /// The next event; `None` when the session has ended. May be dropped at any point without
    /// losing an event.
    pub async fn next(&mut self) -> Option<Result<QmpEvent, MissedEvents>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Events {
    type Item = Result<QmpEvent, MissedEvents>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { queue, taken } = &mut *self;
        if let Some(event) = taken.pop_front() {
            return Poll::Ready(Some(Ok(event)));
        }
        // In a flood there is always something: the other tasks get their turn.
        let budget = ready!(coop::poll_proceed(cx));
        let mut waiting = queue.waiting();
        if waiting.missed > 0 {
            budget.made_progress();
            return Poll::Ready(Some(Err(MissedEvents(mem::take(&mut waiting.missed)))));
        }
        if taken.capacity() > KEPT_EVENTS {
            *taken = VecDeque::new();
        }
        mem::swap(taken, &mut waiting.events);
        waiting.bytes = 0;
        match taken.pop_front() {
            Some(event) => {
                budget.made_progress();
                Poll::Ready(Some(Ok(event)))
            }
            None if waiting.ended => Poll::Ready(None),
            None => {
                waiting.subscriber = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.queue.waiting();
        f.debug_struct("Events")
            .field("unread", &(self.taken.len() + waiting.events.len()))
            .field("missed", &waiting.missed)
            .field("ended", &waiting.ended)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use qmp_proto::RawJson;

    use super::*;

    fn event(number: usize, data: &str) -> QmpEvent {
        QmpEvent::new(number.to_string(), Some(RawJson::from_value(data).unwrap()))
    }

    fn send(subscribers: &mut Subscribers, event: QmpEvent) {
        subscribers.queue(event);
        subscribers.flush();
    }

    /// Everything that is there now.
    fn read(events: &mut Events) -> Vec<Option<Result<QmpEvent, MissedEvents>>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut seen = Vec::new();
        while let Poll::Ready(next) = Pin::new(&mut *events).poll_next(&mut context) {
            let is_over = next.is_none();
            seen.push(next);
            if is_over {
                break;
            }
        }
        seen
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_and_what_is_gone_is_counted() {
        let mut subscribers = Subscribers::default();
        let mut slow = subscribers.subscribe();
        let data = "x".repeat(100_000);
        for number in 0..200 {
            send(&mut subscribers, event(number, &data));
        }
        let seen = read(&mut slow);
        let Some(Err(MissedEvents(missed))) = seen[0] else {
            panic!("it was slow")
        };
        let kept = seen.len() - 1;
        assert_eq!(missed as usize + kept, 200);
        assert!(
            (EVENT_BACKLOG_BYTES - 110_000..=EVENT_BACKLOG_BYTES).contains(&(kept * 100_000)),
            "{kept}"
        );
        for (at, seen) in seen[1..].iter().enumerate() {
            let seen = seen.as_ref().unwrap().as_ref().unwrap();
            assert_eq!(seen.name, (missed as usize + at).to_string());
        }
        // It has caught up, and misses nothing more; one event that is larger than all of the
        // backlog is kept.
        send(
            &mut subscribers,
            event(200, &"x".repeat(EVENT_BACKLOG_BYTES)),
        );
        assert!(matches!(read(&mut slow)[..], [Some(Ok(_))]));
    }

    #[test]
    fn what_one_read_brought_is_bounded_too_and_goes_to_everybody() {
        let mut subscribers = Subscribers::default();
        let (mut first, mut second) = (subscribers.subscribe(), subscribers.subscribe());
        let data = "x".repeat(EVENT_BACKLOG_BYTES / 4);
        (0..8).for_each(|number| subscribers.queue(event(number, &data)));
        assert!(read(&mut first).is_empty(), "not before they are handed on");
        subscribers.flush();
        for events in [&mut first, &mut second] {
            let seen = read(events);
            assert!(
                matches!(
                    seen[..],
                    [
                        Some(Err(MissedEvents(5))),
                        Some(Ok(_)),
                        Some(Ok(_)),
                        Some(Ok(_))
                    ]
                ),
                "{seen:?}"
            );
            assert_eq!(seen[3].as_ref().unwrap().as_ref().unwrap().name, "7");
        }
    }

    #[test]
    fn what_had_been_taken_comes_before_what_was_missed() {
        let mut subscribers = Subscribers::default();
        let mut events = subscribers.subscribe();
        (0..3).for_each(|number| send(&mut subscribers, event(number, "")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut events).poll_next(&mut context).is_ready());
        let data = "x".repeat(EVENT_BACKLOG_BYTES / 2);
        (3..6).for_each(|number| send(&mut subscribers, event(number, &data)));
        drop(subscribers);
        let seen = read(&mut events);
        let names: Vec<_> = seen
            .iter()
            .map(|seen| match seen {
                Some(Ok(event)) => event.name.to_string(),
                Some(Err(MissedEvents(count))) => format!("missed {count}"),
                None => "end".to_owned(),
            })
            .collect();
        assert_eq!(names, ["1", "2", "missed 2", "5", "end"]);
    }

    #[test]
    fn memory_of_a_burst_is_given_back_and_of_subscribers_that_have_left() {
        let mut subscribers = Subscribers::default();
        let mut events = subscribers.subscribe();
        (0..10_000).for_each(|number| send(&mut subscribers, event(number, "")));
        assert_eq!(read(&mut events).len(), 10_000);
        let room = events.taken.capacity() + events.queue.waiting().events.capacity();
        assert!(room <= 2 * KEPT_EVENTS, "{room}");
        for _ in 0..10 {
            drop(subscribers.subscribe());
        }
        assert!(subscribers.queues.len() <= 2);
    }
}
