//! Framing of the GDB remote protocol: bytes to packets and back, a byte at a time, within a limit.
//!
//! A packet is `$payload#xx` where `xx` is the sum of the bytes between modulo 256; a notification
//! begins with `%`. In a payload `}` escapes the next byte (which is sent xor 0x20) and `*n`
//! repeats the byte before it `n - 29` times. Both are undone here, the run first, as gdb does it.
//! Outside packets `+` and `-` acknowledge, 0x03 interrupts.
//!
//! Source: the GDB manual's appendix on the remote protocol, and gdb's own reader
//! (`remote_target::read_frame`).

use memchr::{memchr, memchr3};

/// The largest payload accepted unless a limit is named: 128 KiB, thirty times what QEMU's stub
/// sends (4 KiB).
pub const DEFAULT_MAX_PAYLOAD: usize = 128 * 1024;

/// One thing that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// `+`: the last packet arrived.
    Ack,
    /// `-`: the last packet arrived damaged, send it again.
    Nack,
    /// 0x03, outside a packet: stop the guest. Only a client sends it.
    Interrupt,
    /// A packet whose checksum is right; runs and escapes are undone.
    Packet(Vec<u8>),
    /// A notification whose checksum is right. It is never acknowledged.
    Notification(Vec<u8>),
    /// A packet that cannot be used; ask for it again.
    Damaged(Damage),
    /// A notification that cannot be used; nobody sends it again.
    DamagedNotification(Damage),
}

/// What was wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// The two digits after `#` are not the payload's sum, or are no digits.
    Checksum,
    /// The payload, runs expanded, is larger than the limit. The rest was read and dropped.
    TooLong,
    /// A run with nothing before it, or a count outside 3 to 97.
    Run,
    /// An escape with nothing after it.
    Escape,
    /// A new packet began inside this one; the new one is read.
    Interrupted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Payload,
    FirstDigit,
    SecondDigit(u8),
}

/// Turns bytes into [`Item`]s, however they are cut. Holds one payload at most.
///
/// ```
/// use gdb_remote::packet::{Decoder, Item};
///
/// let mut decoder = Decoder::new(1024);
/// let items: Vec<_> = b"+$0* #7a".iter().filter_map(|byte| decoder.push(*byte)).collect();
/// assert_eq!(items, [Item::Ack, Item::Packet(b"0000".to_vec())]);
/// ```
#[derive(Debug, Clone)]
pub struct Decoder {
    max_payload: usize,
    state: State,
    notification: bool,
    payload: Vec<u8>,
    sum: u8,
    damage: Option<Damage>,
    /// The raw byte that a run would repeat.
    last: Option<u8>,
    in_run: bool,
    in_escape: bool,
    noise: u64,
}

impl Decoder {
    /// A decoder that takes payloads of up to `max_payload` bytes.
    #[must_use]
    pub fn new(max_payload: usize) -> Self {
        Self {
            max_payload,
            state: State::Between,
            notification: false,
            payload: Vec::new(),
            sum: 0,
            damage: None,
            last: None,
            in_run: false,
            in_escape: false,
            noise: 0,
        }
    }

    /// Takes one byte; says what it completed.
    pub fn push(&mut self, byte: u8) -> Option<Item> {
        match self.state {
            State::Between => self.between(byte),
            State::Payload => self.in_payload(byte),
            State::FirstDigit => {
                self.state = State::SecondDigit(byte);
                None
            }
            State::SecondDigit(first) => Some(self.end(first, byte)),
        }
    }

    /// Takes what `bytes` begin with and what stands for itself in a payload; says how many bytes.
    ///
    /// The same as [`push`](Self::push) of each, which completes nothing then. Memory comes as
    /// thousands of digits, and this takes them at once.
    pub fn push_plain(&mut self, bytes: &[u8]) -> usize {
        if self.state != State::Payload || self.in_run || self.in_escape || self.damage.is_some() {
            return 0;
        }
        let room = self.max_payload - self.payload.len();
        let bytes = &bytes[..bytes.len().min(room)];
        let bytes = &bytes[..memchr3(b'#', b'*', b'}', bytes).unwrap_or(bytes.len())];
        let plain = &bytes[..memchr(b'$', bytes).unwrap_or(bytes.len())];
        self.sum = plain
            .iter()
            .fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
        self.payload.extend_from_slice(plain);
        self.last = plain.last().copied().or(self.last);
        plain.len()
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_inside_packet(&self) -> bool {
        self.state != State::Between
    }

    /// How many bytes came that belong to nothing.
    #[must_use]
    pub fn noise(&self) -> u64 {
        self.noise
    }

    fn between(&mut self, byte: u8) -> Option<Item> {
        match byte {
            b'$' | b'%' => {
                self.begin(byte);
                None
            }
            b'+' => Some(Item::Ack),
            b'-' => Some(Item::Nack),
            0x03 => Some(Item::Interrupt),
            _ => {
                self.noise = self.noise.saturating_add(1);
                None
            }
        }
    }

    fn begin(&mut self, mark: u8) {
        self.state = State::Payload;
        self.notification = mark == b'%';
        self.payload.clear();
        self.sum = 0;
        self.damage = None;
        self.last = None;
        self.in_run = false;
        self.in_escape = false;
    }

    fn in_payload(&mut self, byte: u8) -> Option<Item> {
        match byte {
            b'#' => {
                if self.in_run {
                    self.mark(Damage::Run);
                }
                if self.in_escape {
                    self.mark(Damage::Escape);
                }
                self.state = State::FirstDigit;
                return None;
            }
            // A packet inside a packet: the sender gave the old one up. `%` is an ordinary byte in
            // here.
            b'$' => {
                let old = self.damaged(Damage::Interrupted);
                self.begin(byte);
                return Some(old);
            }
            _ => self.sum = self.sum.wrapping_add(byte),
        }
        if self.in_run {
            self.in_run = false;
            self.expand(byte);
        } else if byte == b'*' {
            self.in_run = true;
        } else {
            self.last = Some(byte);
            self.unescape(byte);
        }
        None
    }

    /// `count` is the character after `*`.
    fn expand(&mut self, count: u8) {
        match (self.last, count) {
            (Some(byte), 32..=126) => {
                for _ in 0..count - 29 {
                    self.unescape(byte);
                }
            }
            _ => self.mark(Damage::Run),
        }
    }

    fn unescape(&mut self, byte: u8) {
        if self.in_escape {
            self.in_escape = false;
            self.store(byte ^ 0x20);
        } else if byte == b'}' {
            self.in_escape = true;
        } else {
            self.store(byte);
        }
    }

    fn store(&mut self, byte: u8) {
        if self.damage.is_some() {
            return;
        }
        if self.payload.len() == self.max_payload {
            self.mark(Damage::TooLong);
        } else {
            self.payload.push(byte);
        }
    }

    fn mark(&mut self, damage: Damage) {
        if self.damage.is_none() {
            self.damage = Some(damage);
            self.payload = Vec::new();
        }
    }

    fn end(&mut self, first: u8, second: u8) -> Item {
        self.state = State::Between;
        // A wrong sum explains whatever else looks wrong, so it is reported first.
        if hex_digit(first)
            .zip(hex_digit(second))
            .map(|(high, low)| high << 4 | low)
            != Some(self.sum)
        {
            return self.damaged(Damage::Checksum);
        }
        match self.damage {
            Some(damage) => self.damaged(damage),
            None if self.notification => Item::Notification(std::mem::take(&mut self.payload)),
            None => Item::Packet(std::mem::take(&mut self.payload)),
        }
    }

    fn damaged(&self, damage: Damage) -> Item {
        if self.notification {
            Item::DamagedNotification(damage)
        } else {
            Item::Damaged(damage)
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_PAYLOAD)
    }
}

/// Appends `payload` as a packet, its special bytes escaped and without runs: a client sends none.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    let mut sum = 0_u8;
    let mut put = |byte: u8, out: &mut Vec<u8>| {
        sum = sum.wrapping_add(byte);
        out.push(byte);
    };
    for &byte in payload {
        if matches!(byte, b'#' | b'$' | b'}' | b'*') {
            put(b'}', out);
            put(byte ^ 0x20, out);
        } else {
            put(byte, out);
        }
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend([
        b'#',
        DIGITS[usize::from(sum >> 4)],
        DIGITS[usize::from(sum & 15)],
    ]);
}

/// The value of each digit, 255 for what is none: memory comes as thousands of digits.
pub(crate) const HEX_VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        values[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

fn hex_digit(byte: u8) -> Option<u8> {
    let value = HEX_VALUES[usize::from(byte)];
    (value < 16).then_some(value)
}
