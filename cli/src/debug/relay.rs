//! One debugger's conversation: its packets go to the stub of the machine and the stub's to it, but
//! for the few that concern more than the machine that there is.
//!
//! | packet | what is done |
//! |---|---|
//! | `qRcmd` | `monitor` words are answered here, see [`monitor`](super::monitor) |
//! | `k`, `vKill` | the machine is replaced by another one |
//! | `vRun`, `R` | the same, and the debugger has the other one, at its reset |
//! | the stub's end | the firmware has ended; the debugger may stay, and `run` it again |

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use gdb_remote::packet::{DEFAULT_MAX_PAYLOAD, Decoder, Item, encode};
use qemu_controller::debug::Visitor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::monitor::{self, Word};
use super::slot::{HeldMachine, HeldMachines};
use crate::failure::chain;

/// How long a stub may take to answer what is asked of it here.
const ANSWER: Duration = Duration::from_secs(10);

/// So much of a `monitor` word's text goes into one packet.
const TEXT: usize = 1024;

/// What ends a conversation.
enum End {
    /// One of the two is gone.
    Gone,
    /// The debugger cannot have a machine: why.
    Refused(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Has the debugger talk to the machine until it goes. Whether the machine is still there. An error gives the debugger back where it cannot have a machine, with the
/// reason.
pub(super) async fn converse(
    peer: Visitor,
    machines: &HeldMachines,
) -> Result<bool, (Visitor, String)> {
    let mut conversation = Conversation {
        peer,
        machines,
        stub: None,
        from_peer: Framer::default(),
        from_stub: Framer::default(),
        supported: None,
        points: BTreeSet::new(),
        stays: false,
        ended: false,
        runs: false,
        acks: 0,
        last: Vec::new(),
    };
    match conversation.go_on().await {
        Ok(()) | Err(End::Gone) => Ok(conversation.stub.is_some()),
        Err(End::Refused(why)) => Err((conversation.peer, why)),
    }
}

struct Conversation<'a> {
    peer: Visitor,
    machines: &'a HeldMachines,
    /// Once the debugger has said something that is for one.
    stub: Option<(HeldMachine, UnixStream)>,
    from_peer: Framer,
    from_stub: Framer,
    /// The packet by which the debugger said what it can, for the next machine's stub.
    supported: Option<Vec<u8>>,
    /// The break- and watchpoints that are set, by the packets that set them.
    points: BTreeSet<Vec<u8>>,
    /// It is an `extended-remote` one: it stays when the firmware has ended.
    stays: bool,
    /// The firmware has ended, or was killed, and is not run again yet.
    ended: bool,
    /// The guest was let run, and has not stopped since.
    runs: bool,
    /// So many answers of ours it has not acknowledged, and the last of these.
    acks: usize,
    last: Vec<u8>,
}

impl Conversation<'_> {
    async fn go_on(&mut self) -> Result<(), End> {
        let (mut from_peer, mut from_stub) = ([0; 4096], [0; 4096]);
        loop {
            let stub = async {
                match &mut self.stub {
                    Some((_, stub)) => stub.read(&mut from_stub).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.peer.read(&mut from_peer) => match read? {
                    0 => return Ok(()),
                    length => self.heard(&from_peer[..length]).await?,
                },
                read = stub => match read {
                    Ok(length @ 1..) => self.pass_back(&from_stub[..length]).await?,
                    _ => self.stub_ended().await?,
                },
            }
        }
    }

    /// What the stub says goes to the debugger as it is.
    async fn pass_back(&mut self, bytes: &[u8]) -> Result<(), End> {
        for (_, item) in self.from_stub.push(bytes)? {
            if let Item::Packet(packet) = item {
                self.runs &= !matches!(packet.first(), Some(b'T' | b'S' | b'W' | b'X'));
            }
        }
        self.peer.write_all(bytes).await?;
        // It says nothing more; what the debugger says next is not for it.
        match self.from_stub.exited {
            true => self.stub_ended().await,
            false => Ok(()),
        }
    }

    /// The machine is gone: the firmware has ended, which the stub has said, or QEMU was killed.
    async fn stub_ended(&mut self) -> Result<(), End> {
        let was_running = self.runs;
        let ended_by_itself = self.from_stub.exited;
        if let Some((machine, _)) = &self.stub {
            self.machines.has_ended(machine.number);
        }
        self.forget();
        if was_running {
            self.answer(b"X09", false).await?;
        }
        match self.stays && (was_running || ended_by_itself) {
            true => Ok(()),
            false => Err(End::Gone),
        }
    }

    fn forget_stub(&mut self) {
        self.stub = None;
        self.from_stub = Framer::default();
        self.runs = false;
    }

    /// The debugger has said this.
    async fn heard(&mut self, bytes: &[u8]) -> Result<(), End> {
        for (raw, item) in self.from_peer.push(bytes)? {
            match item {
                Item::Ack if self.acks > 0 => self.acks -= 1,
                Item::Nack if self.acks > 0 => self.peer.write_all(&self.last).await?,
                // Left over from a machine that is gone.
                Item::Ack | Item::Nack | Item::Interrupt if self.ended => {}
                Item::Packet(packet) => self.packet(&packet, &raw).await?,
                _ => self.pass_on(&raw).await?,
            }
        }
        Ok(())
    }

    async fn packet(&mut self, packet: &[u8], raw: &[u8]) -> Result<(), End> {
        if let Some(line) = packet.strip_prefix(b"qRcmd,") {
            let line = unhex(line).unwrap_or_default();
            return self.monitor(&String::from_utf8_lossy(&line), raw).await;
        }
        match packet {
            // Answers of ours and the stub's would have to be told apart without it.
            b"QStartNoAckMode" => return self.answer(b"", true).await,
            b"k" => {
                self.replace();
                // gdb does not wait for it, lldb does.
                self.answer(b"X09", true).await?;
                return Err(End::Gone);
            }
            b"!" => self.stays = true,
            b"qfThreadInfo" if self.ended => return self.answer(b"l", true).await,
            [b'H', ..] if self.ended => return self.answer(b"OK", true).await,
            _ if self.ended && !matches!(packet, [b'?'] | [b'R', ..] | [b'v', b'R', ..]) => {
                return self.answer(b"", true).await;
            }
            _ if packet.starts_with(b"vKill;") => {
                self.replace();
                return self.answer(b"OK", true).await;
            }
            _ if packet.starts_with(b"vRun;") => {
                self.replace();
                self.connect().await?;
                let stopped = self.ask(b"?").await?;
                return self.answer(&stopped, true).await;
            }
            [b'R', ..] => {
                self.replace();
                self.peer.write_all(b"+").await?;
                return self.connect().await;
            }
            [b'c' | b'C' | b's' | b'S', ..] => self.runs = true,
            _ if packet.starts_with(b"vCont;") => self.runs = true,
            _ => {}
        }
        self.pass_on(raw).await?;
        // What the stub of another machine has to know as well.
        match packet {
            [b'Z', point @ ..] => drop(self.points.insert(point.to_vec())),
            [b'z', point @ ..] => drop(self.points.remove(point)),
            [b'D', ..] => self.points.clear(),
            _ if packet.starts_with(b"qSupported") => self.supported = Some(packet.to_vec()),
            _ => {}
        }
        Ok(())
    }

    async fn pass_on(&mut self, raw: &[u8]) -> Result<(), End> {
        self.machine().await?;
        if let Some((_, stub)) = &mut self.stub {
            stub.write_all(raw).await?;
        }
        Ok(())
    }

    /// Another machine is to take the place of the present one.
    fn replace(&mut self) {
        if let Some((machine, _)) = &self.stub {
            self.machines.replace(machine.number);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.points.clear();
        self.forget_stub();
        self.ended = true;
    }

    /// Connects to the stub of the machine that there is, and brings it to where the one before was.
    async fn connect(&mut self) -> Result<(), End> {
        self.forget_stub();
        let connected = loop {
            let machine = self.machines.current().await.map_err(End::Refused)?;
            match UnixStream::connect(&machine.socket).await {
                Ok(stub) => break (machine, stub),
                // It has ended, and the next one is on its way.
                Err(_) => self.machines.has_ended(machine.number),
            }
        };
        self.stub = Some(connected);
        self.ended = false;
        if let Some(supported) = self.supported.clone() {
            self.ask(&supported).await?;
        }
        for point in self.points.clone() {
            self.ask(&[b"Z", &point[..]].concat()).await?;
        }
        Ok(())
    }

    /// Asks the stub something of our own.
    async fn ask(&mut self, packet: &[u8]) -> Result<Vec<u8>, End> {
        let Some((_, stub)) = &mut self.stub else {
            return Err(End::Gone);
        };
        let mut question = Vec::new();
        encode(packet, &mut question);
        let asked = async {
            stub.write_all(&question).await?;
            let mut bytes = [0; 4096];
            loop {
                let length = stub.read(&mut bytes).await?;
                if length == 0 {
                    return Err(End::Gone);
                }
                for (_, item) in self.from_stub.push(&bytes[..length])? {
                    if let Item::Packet(answer) = item {
                        stub.write_all(b"+").await?;
                        return Ok(answer);
                    }
                }
            }
        };
        timeout(ANSWER, asked).await.unwrap_or(Err(End::Gone))
    }

    /// Answers in the stub's place; `to_packet` acknowledges the packet that this answers.
    async fn answer(&mut self, packet: &[u8], to_packet: bool) -> Result<(), End> {
        self.last.clear();
        if to_packet {
            self.peer.write_all(b"+").await?;
        }
        encode(packet, &mut self.last);
        self.acks += 1;
        Ok(self.peer.write_all(&self.last).await?)
    }

    async fn monitor(&mut self, line: &str, raw: &[u8]) -> Result<(), End> {
        let text = match monitor::word(line) {
            Word::PassOn => return self.pass_on(raw).await,
            Word::Say(text) => text,
            Word::Quit => {
                self.answer(b"OK", true).await?;
                self.machines.quit();
                return Err(End::Gone);
            }
            Word::Reset => self.reset().await?,
            Word::Snapshot(verb, name) => {
                let machine = self.machine().await?;
                monitor::snapshot(&machine.session, verb, &name).await
            }
        };
        self.peer.write_all(b"+").await?;
        for part in text.as_bytes().chunks(TEXT) {
            self.answer(format!("O{}", hex(part)).as_bytes(), false)
                .await?;
        }
        self.answer(b"OK", false).await
    }

    /// The machine that the debugger has.
    async fn machine(&mut self) -> Result<HeldMachine, End> {
        if self.stub.is_none() {
            self.connect().await?;
        }
        self.stub
            .as_ref()
            .map(|(machine, _)| machine.clone())
            .ok_or(End::Gone)
    }

    /// Takes the firmware back to its reset; one that was built anew is on another machine.
    async fn reset(&mut self) -> Result<String, End> {
        let machine = self.machine().await?;
        let current = self.machines.current().await.map_err(End::Refused)?;
        if current.number != machine.number {
            self.connect().await?;
            return Ok(
                "the firmware was built anew: this is a new machine, at its reset\n".to_owned(),
            );
        }
        Ok(match machine.session.reset().await {
            Ok(()) => "at the reset\n".to_owned(),
            Err(error) => chain(&error) + "\n",
        })
    }
}

/// Cuts what comes into packets, and keeps each as it came.
struct Framer {
    decoder: Decoder,
    raw: Vec<u8>,
    /// A packet told that the firmware has ended.
    exited: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            decoder: Decoder::new(DEFAULT_MAX_PAYLOAD),
            raw: Vec::new(),
            exited: false,
        }
    }
}

impl Framer {
    /// What these bytes complete. No debugger and no stub has packets beyond the limit.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<(Vec<u8>, Item)>, End> {
        let mut items = Vec::new();
        for &byte in bytes {
            self.raw.push(byte);
            if let Some(item) = self.decoder.push(byte) {
                if let Item::Packet(packet) = &item {
                    self.exited |= matches!(packet.first(), Some(b'W' | b'X'));
                }
                items.push((std::mem::take(&mut self.raw), item));
            }
        }
        match self.raw.len() > 2 * DEFAULT_MAX_PAYLOAD {
            true => Err(End::Gone),
            false => Ok(items),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(digits).ok()?;
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
