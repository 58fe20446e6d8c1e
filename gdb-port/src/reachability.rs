//! The answers: can a debugger attach, what is it that answers, and what did asking do to the
//! guest.

use std::fmt;

use gdb_remote::handshake::StubIdentity;

/// Whether a debugger could attach; one variant for each thing to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reachability {
    /// Nobody listens on the endpoint.
    NobodyListens,
    /// Somebody listens and no client is attached. Nothing was asked of it: this is as much as a
    /// look can say.
    Listens,
    /// A GDB stub answered.
    Answers(Box<StubIdentity>),
    /// Another client is attached, or waits already to be accepted. A debugger that connects now
    /// gets no answer until it leaves.
    HeldByAnotherClient,
    /// It accepted the connection, or holds it in its queue, and said nothing until the deadline.
    Silent {
        /// Whether the listener had accepted the connection; `None` where the kernel does not show
        /// it.
        accepted: Option<bool>,
    },
    /// It answered, but not as a GDB stub does.
    NotAGdbStub(WrongAnswer),
    /// Somebody listens, but not the process that should.
    OtherProcess {
        /// Who listens, where that can be seen.
        pid: Option<u32>,
    },
    /// It cannot be known from here without connecting, and connecting was not safe.
    Unknown(UnknownReason),
}

impl Reachability {
    /// Whether a debugger could attach now: true for [`Listens`](Self::Listens) and
    /// [`Answers`](Self::Answers) alone.
    #[must_use]
    pub fn can_attach(&self) -> bool {
        matches!(self, Self::Listens | Self::Answers(_))
    }
}

impl fmt::Display for Reachability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyListens => f.write_str("nobody listens"),
            Self::Listens => f.write_str("it listens and is free (not asked further)"),
            Self::Answers(identity) => write!(f, "a GDB stub answers: {identity}"),
            Self::HeldByAnotherClient => f.write_str("another client is attached"),
            Self::Silent {
                accepted: Some(false),
            } => f.write_str("it listens, but does not accept connections"),
            Self::Silent { .. } => f.write_str("it listens, but said nothing"),
            Self::NotAGdbStub(seen) => write!(f, "what listens is no GDB stub: {seen}"),
            Self::OtherProcess { pid: Some(pid) } => {
                write!(f, "another process listens (pid {pid})")
            }
            Self::OtherProcess { pid: None } => f.write_str("another process listens"),
            Self::Unknown(reason) => write!(f, "cannot be told without connecting: {reason}"),
        }
    }
}

/// Why a look could not see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownReason {
    /// This platform shows no socket tables to this crate; Linux does.
    NoSocketTables,
    /// The address is not one of this host's.
    NotThisHost,
    /// The kernel's table, or the folder of the socket's file, could not be read.
    Unreadable(String),
    /// The named process's sockets are hidden from this user.
    OwnerHidden,
    /// Several listeners bear the socket's path: a file was replaced under a live listener.
    SeveralListeners,
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocketTables => {
                f.write_str("this platform has no socket tables that can be read")
            }
            Self::NotThisHost => f.write_str("the address is not of this host"),
            Self::Unreadable(why) => write!(f, "what would show it cannot be read ({why})"),
            Self::OwnerHidden => f.write_str("the process's sockets are hidden from this user"),
            Self::SeveralListeners => f.write_str("several listeners have this socket path"),
        }
    }
}

/// What came instead of a GDB stub's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrongAnswer {
    /// The connection was closed or reset before any answer.
    Closed,
    /// Bytes that are no packets; the first of them, at most 64.
    OtherProtocol(Vec<u8>),
    /// Our own question, and nothing else: it echoes what it is sent.
    Echo,
    /// Packets, but broken ones (wrong checksums, endless lengths, resends asked for without end),
    /// or none that answers.
    BrokenPackets,
}

impl fmt::Display for WrongAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection without an answer"),
            Self::OtherProtocol(first) => write!(f, "it said '{}'", first.escape_ascii()),
            Self::Echo => f.write_str("it echoes what it is sent"),
            Self::BrokenPackets => f.write_str("its packets are broken or no answer"),
        }
    }
}

/// What a probe did to the guest's run state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuestEffect {
    /// Nothing was connected, or it was no GDB stub's business: the guest was not touched.
    Untouched,
    /// It was stopped before and is stopped now.
    StillStopped,
    /// It ran; the probe stopped it, and let it run on when it left.
    PausedThenResumed,
    /// It ran; the probe stopped it and left it stopped.
    LeftPaused,
    /// It is stopped now, and was left so: neither the caller nor the stub said whether it ran
    /// before.
    LeftStopped,
    /// It ran; the probe stopped it and asked the stub to let it run on, but got no confirmation.
    ResumeUnconfirmed,
    /// The connection waits in the listener's queue. When it is accepted, it stops the guest.
    Pending,
    /// It connected and got nothing, or no answer before the deadline: a stub would have stopped
    /// the guest.
    Unknown,
}

impl fmt::Display for GuestEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "the guest was not touched",
            Self::StillStopped => "the guest was stopped before and is stopped now",
            Self::PausedThenResumed => "the guest was paused for the probe and runs on",
            Self::LeftPaused => "the guest ran and was left paused",
            Self::LeftStopped => "the guest is stopped; whether it ran before is not known",
            Self::ResumeUnconfirmed => {
                "the guest ran and was paused; the stub did not confirm that it runs on"
            }
            Self::Pending => "the guest will be paused when the waiting connection is accepted",
            Self::Unknown => "what happened to the guest is not known",
        })
    }
}
