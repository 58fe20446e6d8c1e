//! Moves bytes between the guest's rings and the ports, while the guest runs.
//!
//! ```text
//!   the block ─▶ what is unread of each up channel ─▶ port
//!      │            └ and in the same exchange its read offset
//!      └──────▶ what fits into each down channel  ◀─ port
//! ```
//!
//! Two exchanges with QEMU for each round, over its test protocol: neither stops the guest. A round
//! has the session's turn, so that no load puts other memory under it half-way.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use qmp_proto::commands::{HumanMonitorCommand, RunState};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::channel::Channels;
use super::control_block::{Counts, HEADER_BYTES, ID, Layout, Ring, counts};
use super::ram::MemoryMap;
use super::{RttChannel, RttMode, RttStatus};
use crate::client::qtest::{Qtest, Write};
use crate::client::{Shared, command};
use crate::error::CommandError;
use crate::serial::SERIAL_BUFFER_BYTES;

/// The pauses between two rounds that moved nothing grow from this …
const FIRST_PAUSE: Duration = Duration::from_micros(200);

/// … to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(4);

/// The pause while the guest is stopped: somebody may still write to a channel, or the memory.
const STOPPED_PAUSE: Duration = Duration::from_millis(50);

/// The pause between two looks for a block that is not there yet, or somewhere else.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// So much of a channel is read in one round.
const MOST_AT_ONCE: u32 = 32 * 1024;

/// So much may be unread in a port, where nothing is to be dropped.
const MOST_UNREAD: usize = SERIAL_BUFFER_BYTES / 2;

/// Of a guest that damages it in ever new ways no more is said.
const MOST_PROBLEMS: usize = 64;

/// So much RAM is searched in one round.
const SEARCHED_AT_ONCE: u64 = 256 * 1024;

/// A name is shorter, or cut.
const MOST_NAME: u64 = 64;

/// How long QEMU may take to say where its memory is.
const MAP_DEADLINE: Duration = Duration::from_secs(5);

/// Where the block is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    At(u64),
    /// In all of the RAM, from here on next.
    Anywhere(u64),
}

/// What a round has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// It moved bytes.
    Moved,
    /// There was nothing to move.
    Idle,
    /// There is no block.
    NoBlock,
    /// Somebody else has the session's turn.
    Busy,
}

pub(super) struct Pump {
    pub(super) shared: Arc<Shared>,
    pub(super) qtest: Qtest,
    pub(super) layout: Layout,
    pub(super) place: Place,
    /// Channels that are to wait for us when they are full.
    pub(super) blocking: Vec<u32>,
    /// Nothing is read for a port that has much unread.
    pub(super) lossless: bool,
    pub(super) channels: Channels,
    pub(super) status: watch::Sender<RttStatus>,
    map: MemoryMap,
    block: Option<Block>,
    /// The read offset of each up channel as it was left.
    left: BTreeMap<u32, u32>,
    /// What was said of it.
    problems: Vec<String>,
}

/// The block that was found.
#[derive(Clone, Copy)]
struct Block {
    at: u64,
    counts: Counts,
}

impl Pump {
    pub(super) fn new(
        shared: Arc<Shared>,
        qtest: Qtest,
        layout: Layout,
        place: Place,
        channels: Channels,
    ) -> Self {
        Self {
            shared,
            qtest,
            layout,
            place,
            blocking: Vec::new(),
            lossless: false,
            channels,
            status: watch::Sender::default(),
            map: MemoryMap::default(),
            block: None,
            left: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Asks QEMU where the guest's memory is.
    pub(super) async fn read_map(&mut self) -> Result<(), CommandError> {
        let command = HumanMonitorCommand::new("info mtree -f");
        let text = command::command(&self.shared, MAP_DEADLINE, &command).await?;
        self.map = MemoryMap::parse(&text);
        Ok(())
    }

    /// One round.
    pub(super) async fn round(&mut self) -> io::Result<Round> {
        // A load, a save or a reset is under way, or a command that takes as long as this.
        let Ok(_turn) = Arc::clone(&self.shared.turn).try_lock_owned() else {
            return Ok(Round::Busy);
        };
        if self.block.is_none() && !self.find().await? {
            return Ok(Round::NoBlock);
        }
        let Some(block) = self.block else {
            return Ok(Round::NoBlock);
        };
        let (at, known) = (block.at, block.counts);
        let bytes = self.read(at, self.layout.block_bytes(known)).await?;
        if counts(self.layout, &bytes) != Some(known) {
            self.lose(format!("the control block at {at:#x} is gone, or damaged"));
            return Ok(Round::NoBlock);
        }
        let ring = |number| Ring::of(self.layout, &bytes, at, number);
        let rings: Vec<Ring> = (0..known.up + known.down).map_while(ring).collect();
        let (up, down) = rings.split_at(rings.len().min(known.up as usize));
        let moved = self.move_up(up).await? | self.move_down(down).await?;
        Ok(if moved { Round::Moved } else { Round::Idle })
    }

    /// Looks for the block; true if it is there.
    async fn find(&mut self) -> io::Result<bool> {
        let at = match self.place {
            Place::At(at) => at,
            Place::Anywhere(from) => match self.search(from).await? {
                Some(at) => at,
                None => return Ok(false),
            },
        };
        if !self.map.is_ram(at, HEADER_BYTES) {
            self.problem(format!(
                "{at:#x}, where the control block is to be, is not in the guest's RAM"
            ));
            return Ok(false);
        }
        let header = self.read(at, HEADER_BYTES).await?;
        let Some(found) = counts(self.layout, &header) else {
            if header.starts_with(ID) {
                self.problem(format!(
                    "the control block at {at:#x} has an impossible number of channels"
                ));
            }
            return Ok(false);
        };
        if !self.map.is_ram(at, self.layout.block_bytes(found)) {
            self.problem(format!(
                "the control block at {at:#x} is longer than the guest's RAM"
            ));
            return Ok(false);
        }
        let bytes = self.read(at, self.layout.block_bytes(found)).await?;
        let mut channels = Vec::new();
        for number in 0..found.up + found.down {
            if let Some(ring) = Ring::of(self.layout, &bytes, at, number) {
                let is_up = number < found.up;
                channels.push(RttChannel {
                    number: if is_up { number } else { number - found.up },
                    is_up,
                    name: self.name(ring.name).await?,
                    size: ring.size,
                    mode: RttMode::of(ring.flags),
                    full: 0,
                });
            }
        }
        for channel in channels.iter().filter(|channel| channel.size > 0) {
            self.channels.serial(channel.number)?;
        }
        self.block = Some(Block { at, counts: found });
        self.problems.clear();
        self.status.send_modify(|status| {
            status.address = Some(at);
            status.found += 1;
            status.channels = channels;
        });
        Ok(true)
    }

    /// Searches the next piece of the RAM.
    async fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let next = self.map.ram().iter().find(|range| range.end > from);
        let Some(range) = next.cloned() else {
            self.place = Place::Anywhere(0);
            return Ok(None);
        };
        let begin = range.start.max(from);
        let length = (range.end - begin).min(SEARCHED_AT_ONCE);
        let bytes = self.read(begin, length).await?;
        let found = memchr::memmem::find(&bytes, ID);
        let after = match found {
            Some(at) => begin + at as u64 + 1,
            // One may lie across the end of the piece.
            None if begin + length < range.end => begin + length - (ID.len() as u64 - 1),
            None => range.end,
        };
        self.place = Place::Anywhere(after);
        let found = found.map(|at| begin + at as u64);
        Ok(found.filter(|_| length >= HEADER_BYTES))
    }

    /// The text at a pointer, up to its end; none where there is no memory.
    async fn name(&self, at: u64) -> io::Result<Option<String>> {
        let length = self.map.readable(at, MOST_NAME);
        if at == 0 || length == 0 {
            return Ok(None);
        }
        let bytes = self.read(at, length).await?;
        let end = bytes.iter().position(|byte| *byte == 0);
        let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
        Ok((!text.is_empty()).then_some(text))
    }

    /// Reads what the guest has sent, and tells it so.
    async fn move_up(&mut self, rings: &[Ring]) -> io::Result<bool> {
        let (mut reads, mut writes, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for (number, ring) in (0_u32..).zip(rings) {
            if !self.is_usable(number, true, ring) {
                continue;
            }
            let mode = RttMode::of(ring.flags);
            if self.blocking.contains(&number) && mode != RttMode::Block {
                let flags = ring.flags & !RttMode::MASK | RttMode::BLOCK;
                writes.push(Write::Word(ring.at + self.layout.flags_at(), flags));
            }
            if self.lossless && self.channels.unread(number) > MOST_UNREAD {
                continue;
            }
            let pieces = ring.unread_within(MOST_AT_ONCE);
            let count: u32 = pieces.iter().map(|(_, length)| length).sum();
            let read = (ring.read + count) % ring.size;
            let before = self.left.insert(number, read);
            self.note(number, ring, before.is_some_and(|left| left != ring.read));
            if count > 0 {
                let pieces = pieces.iter().filter(|(_, length)| *length > 0);
                let first = reads.len();
                reads.extend(pieces.map(|(at, length)| (*at, u64::from(*length))));
                let at = ring.at + self.layout.read_offset_at();
                writes.push(Write::Word(at, read));
                moved.push((number, first..reads.len()));
            }
        }
        if writes.is_empty() {
            return Ok(false);
        }
        let answers = self.exchange(&reads, &writes).await?;
        for (number, pieces) in &moved {
            for bytes in &answers[pieces.clone()] {
                self.channels.push(*number, bytes)?;
            }
        }
        Ok(!moved.is_empty())
    }

    /// Sends what was written to the ports, as far as it fits.
    async fn move_down(&mut self, rings: &[Ring]) -> io::Result<bool> {
        let (mut writes, mut moved) = (Vec::new(), Vec::new());
        for (number, ring) in (0_u32..).zip(rings) {
            if !self.is_usable(number, false, ring) {
                continue;
            }
            let bytes = self.channels.waiting(number, ring.free() as usize);
            if bytes.is_empty() {
                continue;
            }
            let (pieces, after) = ring.room(bytes.len() as u32);
            let (first, second) = bytes.split_at(pieces[0].1 as usize);
            for ((at, _), bytes) in pieces.into_iter().zip([first, second]) {
                if !bytes.is_empty() {
                    writes.push(Write::Bytes(at, bytes.to_vec()));
                }
            }
            writes.push(Write::Word(ring.at + self.layout.write_offset_at(), after));
            moved.push((number, bytes.len()));
        }
        if writes.is_empty() {
            return Ok(false);
        }
        self.exchange(&[], &writes).await?;
        for (number, count) in moved {
            self.channels.taken(number, count);
        }
        Ok(true)
    }

    /// A channel that the firmware has set up, and that is whole; damage is said.
    fn is_usable(&mut self, number: u32, is_up: bool, ring: &Ring) -> bool {
        if ring.is_unused() {
            return false;
        }
        let checked = ring.check(|at, length| self.map.is_ram(at, length));
        if let Err(damage) = &checked {
            let direction = if is_up { "up" } else { "down" };
            self.problem(format!("{direction} channel {number}: {damage}"));
        }
        checked.is_ok()
    }

    /// Counts what may have been lost.
    fn note(&self, number: u32, ring: &Ring, restarted: bool) {
        let skips = ring.is_full() && RttMode::of(ring.flags) != RttMode::Block;
        if !restarted && !skips {
            return;
        }
        self.status.send_modify(|status| {
            status.restarts += u64::from(restarted);
            let mut ups = status.channels.iter_mut().filter(|channel| channel.is_up);
            if let Some(channel) = ups.find(|channel| channel.number == number) {
                channel.full += u64::from(skips);
            }
        });
    }

    /// The block is not there any more.
    fn lose(&mut self, problem: String) {
        self.block = None;
        self.left.clear();
        self.status.send_modify(|status| status.address = None);
        self.problem(problem);
    }

    /// Says what is wrong, once for each block: two channels may be damaged round after round.
    fn problem(&mut self, problem: String) {
        if self.problems.contains(&problem) || self.problems.len() == MOST_PROBLEMS {
            return;
        }
        warn!(%problem, "RTT");
        self.problems.push(problem.clone());
        self.status
            .send_modify(|status| status.problem = Some(problem));
    }

    async fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = self.exchange(&[(at, length)], &[]).await?;
        Ok(bytes.pop().unwrap_or_default())
    }

    async fn exchange(&self, reads: &[(u64, u64)], writes: &[Write]) -> io::Result<Vec<Vec<u8>>> {
        let runtime = &self.shared.runtime;
        self.qtest.exchange(runtime, reads, writes).await
    }
}

/// Moves bytes until the session ends.
pub(super) async fn run(
    pump: Arc<tokio::sync::Mutex<Pump>>,
    shared: Arc<Shared>,
    channels: Channels,
) {
    let _ending = Ending(channels);
    let pumping = async {
        let mut pause = FIRST_PAUSE;
        let mut run_state = shared.run_state();
        loop {
            let round = match pump.lock().await.round().await {
                Ok(round) => round,
                // QEMU has ended, or the session says why not.
                Err(error) => {
                    debug!(%error, "RTT is not read any more");
                    return std::future::pending().await;
                }
            };
            pause = match round {
                Round::Moved | Round::Busy => FIRST_PAUSE,
                Round::Idle => (pause * 2).min(LONGEST_PAUSE),
                Round::NoBlock => LOOK_PAUSE,
            };
            let stopped = *run_state.borrow_and_update() != RunState::Running;
            match round {
                Round::Moved => tokio::task::yield_now().await,
                // Its memory may be written by others all the same.
                Round::Idle | Round::NoBlock if stopped => {
                    let _ = timeout(STOPPED_PAUSE, run_state.changed()).await;
                }
                _ => sleep(pause).await,
            }
        }
    };
    tokio::select! {
        () = pumping => {}
        _ = shared.end() => {}
    }
}

/// The ports end with the session, or with its runtime.
struct Ending(Channels);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}
