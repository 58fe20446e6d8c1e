//! A channel as a port: what the pump reads goes into the port's buffer, what is written to the
//! port waits in a socket until the pump takes it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::control_block::MAX_CHANNELS;
use crate::serial::{Log, Logs, PortName, Serial};

/// So much of what was written waits for room in the guest.
const MOST_WAITING: usize = 4096;

/// The channels that somebody has asked for, or that the guest has.
#[derive(Clone)]
pub(crate) struct Channels(Arc<Mutex<State>>);

struct State {
    open: BTreeMap<u32, Channel>,
    logs: BTreeMap<u32, Log>,
    runtime: Handle,
    deadline: Duration,
    ended: bool,
}

struct Channel {
    serial: Serial,
    /// The other end of the port's socket; gone once the session has ended.
    socket: Option<UnixStream>,
    /// Written to the port, and not to the guest yet.
    waiting: Vec<u8>,
}

impl Channels {
    /// Takes the logs of its channels.
    pub(crate) fn new(logs: &mut Logs, deadline: Duration) -> Self {
        let its_logs = (0..MAX_CHANNELS).filter_map(|number| {
            let log = logs.take(PortName::Rtt(number))?;
            Some((number, log))
        });
        let logs = its_logs.collect();
        Self(Arc::new(Mutex::new(State {
            open: BTreeMap::new(),
            logs,
            runtime: Handle::current(),
            deadline,
            ended: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port of a channel, which is made for the first who asks.
    pub(super) fn serial(&self, number: u32) -> io::Result<Serial> {
        self.state()
            .channel(number)
            .map(|channel| channel.serial.clone())
    }

    /// Those that somebody has asked for, or that the guest has.
    pub(super) fn open(&self) -> Vec<Serial> {
        let state = self.state();
        state
            .open
            .values()
            .map(|channel| channel.serial.clone())
            .collect()
    }

    /// How much of what the guest has sent nobody has read yet.
    pub(super) fn unread(&self, number: u32) -> usize {
        let state = self.state();
        let channel = state.open.get(&number);
        channel.map_or(0, |channel| channel.serial.unread())
    }

    /// Adds what the guest has sent.
    pub(super) fn push(&self, number: u32, bytes: &[u8]) -> io::Result<()> {
        // Not under the lock: a port's log may be slow.
        self.serial(number)?.push(bytes);
        Ok(())
    }

    /// What was written to a channel and waits for the guest, up to so many bytes.
    pub(super) fn waiting(&self, number: u32, most: usize) -> Vec<u8> {
        let mut state = self.state();
        let Some(channel) = state.open.get_mut(&number) else {
            return Vec::new();
        };
        channel.read_socket();
        let length = channel.waiting.len().min(most);
        channel.waiting[..length].to_vec()
    }

    /// So many of them, the guest has now.
    pub(super) fn taken(&self, number: u32, count: usize) {
        if let Some(channel) = self.state().open.get_mut(&number) {
            channel.waiting.drain(..count);
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        for channel in state.open.values_mut() {
            channel.socket = None;
        }
    }
}

impl State {
    fn channel(&mut self, number: u32) -> io::Result<&mut Channel> {
        if !self.open.contains_key(&number) {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let log = self.logs.remove(&number);
            let _runtime = self.runtime.enter();
            let serial = Serial::drain(vec![theirs], log, self.deadline)?;
            let channel = Channel {
                serial,
                socket: (!self.ended).then_some(ours),
                waiting: Vec::new(),
            };
            self.open.insert(number, channel);
        }
        let channel = self.open.get_mut(&number);
        channel.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Channel {
    fn read_socket(&mut self) {
        let room = MOST_WAITING.saturating_sub(self.waiting.len());
        let (Some(socket), 1..) = (&self.socket, room) else {
            return;
        };
        let mut chunk = [0; MOST_WAITING];
        let mut socket = socket;
        // An error is the end of a port that nobody can write to any more.
        if let Ok(length) = socket.read(&mut chunk[..room]) {
            self.waiting.extend_from_slice(&chunk[..length]);
        }
    }
}
