//! The client's end of the packet layer: acknowledges what arrives, sends again what was lost.
//!
//! ```text
//!   send ──► outstanding ──'+'──► free        packet, sum right ──► '+', Event::Packet
//!                │  ▲                         packet damaged    ──► '-', at most MAX_RESENDS in a row
//!               '-' └ sent again,             after QStartNoAckMode: neither
//!                     at most MAX_RESENDS
//! ```

use std::collections::VecDeque;

use crate::packet::{DEFAULT_MAX_PAYLOAD, Damage, Decoder, Item, encode};

/// How often one packet is sent again, or asked for again, before the link is given up.
pub const MAX_RESENDS: u8 = 3;

/// How many events wait to be polled before further input is refused: a flood ends the link instead
/// of filling memory.
const MAX_EVENTS: usize = 1024;

/// What has happened on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The last packet sent was acknowledged.
    Acknowledged,
    /// A packet arrived.
    Packet(Vec<u8>),
    /// A notification arrived.
    Notification(Vec<u8>),
    /// The link is given up; nothing further is read or sent.
    Broken(Broken),
}

/// Why a link was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Broken {
    /// The peer asked for the same packet again and again.
    ResendsAsked,
    /// The peer sent damaged packets again and again.
    Damaged(Damage),
    /// The peer sends faster than events are polled.
    Flood,
}

/// Sends and receives packets over bytes that the caller moves.
///
/// Feed [`handle_input`](Self::handle_input), poll [`poll_event`](Self::poll_event) until `None`,
/// then write
/// [`output`](Self::output) and report what was written with
/// [`advance_output`](Self::advance_output). The order matters in one case: acknowledgments are
/// made when bytes are fed, so whatever is sent after that follows them.
#[derive(Debug)]
pub struct Link {
    decoder: Decoder,
    events: VecDeque<Event>,
    output: Vec<u8>,
    written: usize,
    /// The frame sent last, until it is acknowledged.
    outstanding: Option<Vec<u8>>,
    resends: u8,
    damaged_in_a_row: u8,
    acks: bool,
    broken: bool,
    /// How many acknowledgments may still be sent; `None` is without limit.
    ack_budget: Option<u8>,
}

impl Default for Link {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_PAYLOAD)
    }
}

impl Link {
    /// A link that takes payloads of up to `max_payload` bytes, acknowledgments on.
    #[must_use]
    pub fn new(max_payload: usize) -> Self {
        Self {
            decoder: Decoder::new(max_payload),
            events: VecDeque::new(),
            output: Vec::new(),
            written: 0,
            outstanding: None,
            resends: 0,
            damaged_in_a_row: 0,
            acks: true,
            broken: false,
            ack_budget: None,
        }
    }

    /// Sends a lone `+`, as gdb does first: it frees a stub that still waits for an earlier
    /// client's acknowledgment.
    pub fn greet(&mut self) {
        self.output.push(b'+');
    }

    /// Sends a packet. The one before it is no longer sent again.
    pub fn send(&mut self, payload: &[u8]) {
        let mut frame = Vec::with_capacity(payload.len() + 4);
        encode(payload, &mut frame);
        self.output.extend_from_slice(&frame);
        self.resends = 0;
        self.outstanding = self.acks.then_some(frame);
    }

    /// Sends bytes as they are, outside any packet.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// The stub said OK to `QStartNoAckMode`: neither side acknowledges from here on.
    pub fn stop_acknowledging(&mut self) {
        self.acks = false;
        self.outstanding = None;
    }

    /// From here on, acknowledge `count` packets at most and ask for none again.
    ///
    /// For the packet that lets the guest run on: QEMU's stub stops a running guest at any byte
    /// that it did not wait for, and it waits for exactly one acknowledgment.
    pub fn limit_acknowledgments(&mut self, count: u8) {
        self.ack_budget = Some(count);
    }

    /// Takes bytes in, cut anywhere.
    pub fn handle_input(&mut self, mut bytes: &[u8]) {
        while !self.broken {
            bytes = &bytes[self.decoder.push_plain(bytes)..];
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            if let Some(item) = self.decoder.push(byte) {
                self.handle_item(item);
            }
        }
    }

    /// What has happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes to write. Partial writes are normal.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    /// `written` bytes of [`output`](Self::output) are on their way. More than there are counts as
    /// all of them.
    pub fn advance_output(&mut self, written: usize) {
        self.written = self.written.saturating_add(written).min(self.output.len());
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
    }

    /// Whether a packet was sent that is not acknowledged.
    #[must_use]
    pub fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// The framing below: what bytes came that belong to no packet.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn handle_item(&mut self, item: Item) {
        match item {
            Item::Ack => {
                if self.outstanding.take().is_some() {
                    self.event(Event::Acknowledged);
                }
            }
            Item::Nack => self.send_again(),
            Item::Packet(payload) => {
                self.damaged_in_a_row = 0;
                self.acknowledge(b'+');
                self.event(Event::Packet(payload));
            }
            Item::Notification(payload) => self.event(Event::Notification(payload)),
            // The packet that interrupted it is read instead; notifications are never sent again; a
            // stub does not interrupt.
            Item::Damaged(Damage::Interrupted) | Item::DamagedNotification(_) | Item::Interrupt => {
            }
            Item::Damaged(damage) => self.ask_again(damage),
        }
    }

    fn send_again(&mut self) {
        let Some(frame) = &self.outstanding else {
            return;
        };
        if self.resends == MAX_RESENDS {
            self.give_up(Broken::ResendsAsked);
        } else {
            self.resends += 1;
            self.output.extend_from_slice(frame);
        }
    }

    fn ask_again(&mut self, damage: Damage) {
        // A payload over the limit stays so however often it is sent, and without acknowledgments
        // nothing is sent again.
        if self.damaged_in_a_row == MAX_RESENDS || damage == Damage::TooLong || !self.acks {
            self.give_up(Broken::Damaged(damage));
        } else {
            self.damaged_in_a_row += 1;
            if self.ack_budget.is_none() {
                self.acknowledge(b'-');
            }
        }
    }

    fn acknowledge(&mut self, mark: u8) {
        if !self.acks || self.ack_budget == Some(0) {
            return;
        }
        if let Some(left) = &mut self.ack_budget {
            *left -= 1;
        }
        self.output.push(mark);
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.give_up(Broken::Flood);
        }
    }

    fn give_up(&mut self, why: Broken) {
        self.broken = true;
        self.outstanding = None;
        self.events.push_back(Event::Broken(why));
    }
}
