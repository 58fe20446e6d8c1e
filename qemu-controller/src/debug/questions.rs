//! What is asked of a guest that is stopped. Questions of which none depends on the answer to
//! another go to QEMU together: each that waits for the one before costs a wake-up of both sides.

use std::collections::BTreeSet;
use std::ops::Range;

use gdb_remote::client::{Client, MAX_MEMORY, PointKind, Reply, RequestError, SendError};
use gdb_remote::reply::ThreadId;
use gdb_remote::target::{Register, Target};
use tokio::time::timeout;

use super::error::DebugError;
use super::stub::Point;
use super::{Debugger, Registers, registers};
use crate::guest::examine::{self, Examiner};
use crate::guest::memory::MemoryError;

/// How many packets of memory are asked for at once: what is behind a hole in the memory, such as a
/// device, is not read in passing, but for so many of them.
const PIECES: usize = 8;

/// The names of one register in the descriptions of all architectures.
pub(super) const PC: [&str; 3] = ["pc", "rip", "eip"];
pub(super) const SP: [&str; 3] = ["sp", "rsp", "esp"];

/// A request with one answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question<'a> {
    /// All general registers.
    Registers,
    /// One by its number.
    Register(u32),
    /// From here on, so many bytes.
    Memory(u64, usize),
    /// From here on, these bytes.
    WriteMemory(u64, &'a [u8]),
    /// By its number.
    WriteRegister(u32, &'a [u8]),
    Insert(Point),
    Remove(Point),
    /// Makes this thread the current one.
    Select(ThreadId),
}

/// What is written into a guest that is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write<'a> {
    Memory(u64, &'a [u8]),
    /// A register by its name.
    Register(&'a str, u64),
}

impl Question<'_> {
    /// What is where a watchpoint is.
    pub(super) fn watched((_, address, size): Point) -> Self {
        Self::Memory(address, size as usize)
    }

    /// For the errors.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Registers => "reading registers",
            Self::Register(_) => "reading a register",
            Self::Memory(..) => "reading memory",
            Self::WriteMemory(..) => "writing memory",
            Self::WriteRegister(..) => "writing a register",
            Self::Insert(_) => "setting a breakpoint",
            Self::Remove(_) => "taking a breakpoint out",
            Self::Select(_) => "selecting a thread",
        }
    }

    pub(super) fn send(self, client: &mut Client) -> Result<(), SendError> {
        match self {
            Self::Registers => client.read_registers(),
            Self::Register(number) => client.read_register(number),
            Self::Memory(address, length) => client.read_memory(address, length),
            Self::WriteMemory(address, bytes) => client.write_memory(address, bytes),
            Self::WriteRegister(number, bytes) => client.write_register(number, bytes),
            Self::Insert((kind, address, size)) => client.insert(kind, address, size),
            Self::Remove((kind, address, size)) => client.remove(kind, address, size),
            Self::Select(thread) => client.select_thread(thread),
        }
    }
}

impl Debugger {
    /// Asks all of these; what was read, in the same order.
    pub(super) async fn ask_all(
        &self,
        questions: &[Question<'_>],
    ) -> Result<Vec<Vec<u8>>, DebugError> {
        let stub = &self.attachment.stub;
        let answers = match stub.ask_all(questions, self.session.deadline).await {
            Ok(answers) => answers,
            Err(error) => {
                let what = questions.first().map_or("a question", |first| first.what());
                return Err(self.blame(error, what).await);
            }
        };
        let mut read = Vec::with_capacity(answers.len());
        for (question, answer) in questions.iter().zip(answers) {
            read.push(match (*question, answer) {
                (_, Ok(Reply::Bytes(bytes))) => bytes,
                (_, Ok(_)) => Vec::new(),
                (Question::Memory(address, length), Err(RequestError::Refused { .. })) => {
                    self.refused_memory(address, length).await?
                }
                (Question::WriteMemory(address, bytes), Err(RequestError::Refused { .. })) => {
                    return Err(self.no_memory(address, bytes.len(), "written").await);
                }
                (Question::Insert((kind, address, size)), Err(_)) if kind >= PointKind::Write => {
                    return Err(DebugError::NoWatchpoint { address, size });
                }
                (Question::Register(number), Err(RequestError::Unsupported)) => {
                    let (all, place) = self.among_all(number).await?;
                    all[place].to_vec()
                }
                (Question::WriteRegister(number, value), Err(RequestError::Unsupported)) => {
                    self.write_among_all(number, value).await?;
                    Vec::new()
                }
                // One that QEMU does not have is out.
                (Question::Remove(_), Err(_)) => Vec::new(),
                (question, Err(error)) => {
                    let what = question.what();
                    return Err(DebugError::Refused { what, error });
                }
            });
        }
        Ok(read)
    }

    /// Writes all of these: the registers once the memory is written, so that a guest whose memory is
    /// refused is where it was.
    pub(crate) async fn write_all(&mut self, writes: &[Write<'_>]) -> Result<(), DebugError> {
        let _verb = self.begin("write").await?;
        let (mut memory, mut registers) = (Vec::new(), Vec::new());
        for write in writes {
            match *write {
                Write::Memory(address, bytes) => memory.push((address, bytes)),
                Write::Register(name, value) => registers.push(self.encoded(name, value)?),
            }
        }
        self.write_pieces(&memory).await?;
        let questions = registers.iter();
        let questions: Vec<_> = questions
            .map(|(number, bytes)| Question::WriteRegister(*number, bytes))
            .collect();
        self.ask_all(&questions).await.map(drop)
    }

    /// Writes memory. QEMU before 10.0 says OK to a write to a device and writes nothing: there,
    /// what was written is read again.
    async fn write_pieces(&self, memory: &[(u64, &[u8])]) -> Result<(), DebugError> {
        let writes = memory.iter();
        let mut questions: Vec<_> = writes
            .map(|&(address, bytes)| Question::WriteMemory(address, bytes))
            .collect();
        if self.session.qemu_version().major < 10 {
            let looks = memory.iter();
            questions.extend(looks.map(|(address, bytes)| Question::Memory(*address, bytes.len())));
        }
        let verb = "written";
        let read = self
            .ask_all(&questions)
            .await
            .map_err(|error| match error {
                DebugError::NoMemory { address, .. } => DebugError::NoMemory { address, verb },
                other => other,
            })?;
        for ((address, bytes), there) in memory.iter().zip(read.iter().skip(memory.len())) {
            let mut pairs = bytes.iter().zip(there);
            if let Some(offset) = pairs.position(|(wanted, there)| wanted != there) {
                let address = address.wrapping_add(offset as u64);
                return Err(DebugError::NoMemory { address, verb });
            }
        }
        Ok(())
    }

    /// A register's number, and a value as the stub has it.
    fn encoded(&self, name: &str, value: u64) -> Result<(u32, Vec<u8>), DebugError> {
        let register = self.register(name)?;
        let bytes = registers::encode(value, register, self.attachment.big_endian);
        let bytes = bytes.ok_or_else(|| DebugError::TooWide {
            name: name.to_owned(),
            value,
            bits: register.bits,
        })?;
        Ok((register.number, bytes))
    }

    /// Sets these points, those that are not set already.
    pub(super) async fn insert_points(
        &self,
        points: impl IntoIterator<Item = Point>,
    ) -> Result<(), DebugError> {
        self.ask_all(&self.inserts(points)).await.map(drop)
    }

    /// What sets these points, those that are not set already.
    pub(super) fn inserts(
        &self,
        points: impl IntoIterator<Item = Point>,
    ) -> Vec<Question<'static>> {
        let points: BTreeSet<Point> = points.into_iter().collect();
        let set = &self.attachment.stub.state().points;
        points
            .difference(set)
            .copied()
            .map(Question::Insert)
            .collect()
    }

    pub(super) async fn ask_one(&self, question: Question<'_>) -> Result<Vec<u8>, DebugError> {
        let mut read = self.ask_all(&[question]).await?;
        Ok(read.pop().unwrap_or_default())
    }

    pub(super) async fn value(&self, register: &Register) -> Result<u64, DebugError> {
        let question = Question::Register(register.number);
        let bytes = self.ask_one(question).await?;
        self.number(question, bytes)
    }

    /// What was read of a register.
    pub(super) fn number(&self, question: Question<'_>, bytes: Vec<u8>) -> Result<u64, DebugError> {
        let bits = match question {
            Question::Register(number) => {
                let mut known = self.target().registers.iter();
                let register = known.find(|register| register.number == number);
                register.map_or(64, |register| register.bits)
            }
            _ => 64,
        };
        let number = registers::number(&bytes, self.attachment.big_endian);
        let number = number.map(|number| registers::low_bits(number, bits));
        number.ok_or_else(|| DebugError::Refused {
            what: question.what(),
            error: RequestError::Malformed(bytes),
        })
    }

    pub(super) fn pc_question(&self) -> Result<Question<'static>, DebugError> {
        Ok(Question::Register(self.register_of(&PC)?.number))
    }

    pub(super) async fn pc(&self) -> Result<u64, DebugError> {
        self.value(self.register_of(&PC)?).await
    }

    pub(super) async fn sp(&self) -> Result<u64, DebugError> {
        self.value(self.register_of(&SP)?).await
    }

    pub(super) async fn registers(&self) -> Result<Registers, DebugError> {
        let bytes = self.ask_one(Question::Registers).await?;
        let layout = &self.attachment.cluster(self.thread()).layout;
        Ok(Registers::new(layout, bytes))
    }

    pub(super) async fn memory(&self, address: u64, length: usize) -> Result<Vec<u8>, DebugError> {
        if !(1..=MAX_MEMORY).contains(&length) {
            return self.ask_one(Question::Memory(address, length)).await;
        }
        let piece = self.attachment.stub.memory_piece();
        let questions = (0..length).step_by(piece).map(|at| {
            let address = address.wrapping_add(at as u64);
            Question::Memory(address, piece.min(length - at))
        });
        let questions: Vec<_> = questions.collect();
        let reading = async {
            let mut read = Vec::with_capacity(length);
            for some in questions.chunks(PIECES) {
                read.extend(self.ask_all(some).await?.into_iter().flatten());
            }
            Ok(read)
        };
        let (what, deadline) = (questions[0].what(), self.session.deadline);
        let read = timeout(deadline, reading).await;
        read.unwrap_or(Err(DebugError::Deadline { what, deadline }))
    }

    /// All registers (`g`), and where one of them is: a stub of 7.2 that describes none has neither
    /// `p` nor `P`.
    async fn among_all(&self, number: u32) -> Result<(Vec<u8>, Range<usize>), DebugError> {
        let what = Question::Registers.what();
        if let Reply::Bytes(all) = self.ask(what, Client::read_registers).await? {
            let mut places = self.target().places().into_iter();
            let found = places.find(|(register, _)| register.number == number);
            if let Some((_, place)) = found.filter(|(_, place)| place.end <= all.len()) {
                return Ok((all, place));
            }
        }
        // Some cores have none at all for a debugger (Xtensa's fsf).
        let error = RequestError::Unsupported;
        Err(DebugError::Refused { what, error })
    }

    async fn write_among_all(&self, number: u32, value: &[u8]) -> Result<(), DebugError> {
        let (mut all, place) = self.among_all(number).await?;
        all.splice(place, value.iter().copied());
        let write = |client: &mut Client| client.write_registers(&all);
        self.ask("writing registers", write).await.map(drop)
    }

    /// Finds the first address that cannot be read: the stub refuses a whole packet. What prevents
    /// looking is returned in its place.
    pub(super) async fn no_memory(
        &self,
        address: u64,
        length: usize,
        verb: &'static str,
    ) -> DebugError {
        let (mut from, mut to) = (0, length as u64);
        while from < to {
            let middle = from + (to - from) / 2;
            let read = self.ask("reading memory", |client| {
                client.read_memory(address.wrapping_add(middle), 1)
            });
            match read.await {
                Ok(_) => from = middle + 1,
                Err(DebugError::Refused { .. }) => to = middle,
                Err(error) => return error,
            }
        }
        // What can be read and not written: where it begins.
        let is_written_only = from == length as u64;
        let address = address.wrapping_add(if is_written_only { 0 } else { from });
        if is_written_only {
            return DebugError::NoMemory { address, verb };
        }
        match self.untranslated(address, 1).await {
            Ok(Some(_)) => DebugError::Guarded { address },
            _ => DebugError::NoMemory { address, verb },
        }
    }

    /// Memory that the stub refuses.
    async fn refused_memory(&self, address: u64, length: usize) -> Result<Vec<u8>, DebugError> {
        match self.untranslated(address, length).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(self.no_memory(address, length, "read").await),
            Err(MemoryError::Unmapped { address: row }) => {
                // Of eight bytes, which the monitor reads in one piece.
                let (mut address, end) = (row, row.saturating_add(7));
                while address < end && self.untranslated(address, 1).await.is_ok() {
                    address += 1;
                }
                let verb = "read";
                Err(DebugError::NoMemory { address, verb })
            }
            Err(MemoryError::Command(error)) => Err(error.into()),
            Err(error) => Err(DebugError::Place(error)),
        }
    }

    /// Memory behind what a core's MPU forbids, by the monitor; nothing of cores that have an MMU.
    pub(super) async fn untranslated(
        &self,
        address: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, MemoryError> {
        let examiner = Examiner {
            shared: &self.session.inner.shared,
            deadline: self.session.deadline,
            core: self.current_core(),
        };
        let numbers = examiner.examine_untranslated(address, length as u64, 'b');
        Ok(numbers.await?.map(examine::bytes))
    }

    /// The description of the current core.
    pub(crate) fn target(&self) -> &Target {
        &self.attachment.cluster(self.thread()).target
    }

    pub(super) fn register(&self, name: &str) -> Result<&Register, DebugError> {
        self.register_of(&[name])
    }

    /// The first register of these names that there is.
    pub(super) fn register_of(&self, names: &[&str]) -> Result<&Register, DebugError> {
        let target = self.target();
        let mut known = names.iter().filter_map(|name| target.register(name));
        known.next().ok_or_else(|| DebugError::NoRegister {
            name: names[0].to_owned(),
            known: target.registers.iter().map(|r| r.name.clone()).collect(),
        })
    }
}
