//! stdin, read by a thread of its own (nothing can interrupt a read, and a run must not wait for
//! one), and passed on to whatever the firmware reads.
//!
//! A firmware may read its first serial port, the semihosting console (SYS_READC) or the file `:tt`
//! (SYS_READ), or its RTT down channel 0; nobody knows which before it does. So each of them gets
//! all the input. It goes on as long as one of them takes it; one that takes nothing meanwhile is
//! given up.

use std::future::{Future as _, poll_fn};
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use qemu_controller::rtt::RttStatus;
use qemu_controller::{Serial, Session};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use crate::settings::Newline;

/// How often a job in the background looks whether the terminal is its own again.
const BACKGROUND_LOOK: Duration = Duration::from_millis(200);

/// How much one read takes.
const CHUNK_BYTES: usize = 4096;

/// So many chunks wait for the reader that is the furthest before stdin does.
const QUEUE_CHUNKS: usize = 4;

/// A reader that is so many chunks behind another one is given up. What QEMU itself takes of a port
/// that the firmware does not read yet differs by less.
const BEHIND_CHUNKS: usize = 16;

/// What one of the firmware's readers is to get.
type Chunk = Arc<[u8]>;

/// QEMU's stdin, which the firmware reads as the file `:tt`: our end and QEMU's.
pub(crate) fn tt() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (qemus, ours) = io::pipe()?;
    Ok((pipe::Sender::from_owned_fd(ours.into())?, qemus.into()))
}

/// Passes stdin on until this is dropped; QEMU's stdin is closed then. Input is held back until
/// `go` is true.
pub(crate) struct Input {
    _tasks: JoinSet<()>,
}

impl Input {
    pub(crate) fn start(
        session: &Session,
        tt: pipe::Sender,
        newline: Option<Newline>,
        go: watch::Receiver<bool>,
        stdin: Stdin,
    ) -> io::Result<Self> {
        stdin.begin()?;
        // A serial terminal sends CR for Enter; a file or a console has the line's own end.
        let terminal = io::stdin().is_terminal();
        let of_serial = newline.unwrap_or(if terminal { Newline::Cr } else { Newline::Keep });
        let of_others = newline.unwrap_or(Newline::Keep);
        let mut tasks = JoinSet::new();
        let mut readers = Vec::new();
        let ports = [
            (session.serial(0), of_serial),
            (session.semihosting(), of_others),
        ];
        for (port, newline) in ports {
            if let Some(port) = port.cloned() {
                let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS + BEHIND_CHUNKS);
                tasks.spawn(to_port(port, newline, chunks));
                readers.push(queue);
            }
        }
        if let (Ok(port), Ok(status)) = (session.rtt(0), session.watch_rtt()) {
            let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS + BEHIND_CHUNKS);
            tasks.spawn(to_rtt(port, status, of_others, chunks));
            readers.push(queue);
        }
        let (queue, chunks_of_tt) = mpsc::channel(QUEUE_CHUNKS + BEHIND_CHUNKS);
        tasks.spawn(to_tt(tt, of_others, chunks_of_tt));
        readers.push(queue);
        tasks.spawn(distribute(stdin, readers, go));
        Ok(Self { _tasks: tasks })
    }
}

async fn distribute(
    stdin: Stdin,
    mut readers: Vec<mpsc::Sender<Chunk>>,
    mut go: watch::Receiver<bool>,
) {
    if go.wait_for(|&go| go).await.is_err() {
        return;
    }
    while let Some(chunk) = stdin.next().await {
        let chunk = Chunk::from(chunk);
        while !readers
            .iter()
            .any(|reader| reader.capacity() > BEHIND_CHUNKS)
        {
            room(&readers).await;
            readers.retain(|reader| !reader.is_closed());
            if readers.is_empty() {
                return;
            }
        }
        // Gone, or far behind another one: it reads nothing.
        readers.retain(|reader| reader.try_send(Arc::clone(&chunk)).is_ok());
    }
}

/// Waits until one of them is to have more, or is gone.
async fn room(readers: &[mpsc::Sender<Chunk>]) {
    let rooms = readers
        .iter()
        .map(|reader| Box::pin(reader.reserve_many(BEHIND_CHUNKS + 1)));
    let mut rooms = rooms.collect::<Vec<_>>();
    let any = poll_fn(|context| {
        match rooms
            .iter_mut()
            .any(|room| room.as_mut().poll(context).is_ready())
        {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    any.await;
}

async fn to_port(port: Serial, newline: Newline, mut chunks: mpsc::Receiver<Chunk>) {
    let mut before = None;
    while let Some(chunk) = chunks.recv().await {
        if port
            .write(&newline.translate(before, &chunk))
            .await
            .is_err()
        {
            return;
        }
        before = chunk.last().copied();
    }
}

/// A firmware that has no such channel takes nothing, and is not to stand for one that does.
async fn to_rtt(
    port: Serial,
    mut status: watch::Receiver<RttStatus>,
    newline: Newline,
    chunks: mpsc::Receiver<Chunk>,
) {
    let has_input = |status: &RttStatus| {
        let mut downs = status.channels.iter().filter(|channel| !channel.is_up);
        downs.any(|channel| channel.number == 0 && channel.size > 0)
    };
    if status.wait_for(has_input).await.is_ok() {
        to_port(port, newline, chunks).await;
    }
}

/// The end of the input is the end of this file; a port has none.
async fn to_tt(mut tt: pipe::Sender, newline: Newline, mut chunks: mpsc::Receiver<Chunk>) {
    let mut before = None;
    while let Some(chunk) = chunks.recv().await {
        if tt
            .write_all(&newline.translate(before, &chunk))
            .await
            .is_err()
        {
            return;
        }
        before = chunk.last().copied();
    }
}

/// What comes on stdin: one machine after another may have it.
#[derive(Clone, Default)]
pub(crate) struct Stdin(Arc<OnceLock<Mutex<mpsc::Receiver<Vec<u8>>>>>);

impl Stdin {
    /// One that has ended already.
    pub(crate) fn none() -> Self {
        let (_, ended) = mpsc::channel(1);
        Self(Arc::new(OnceLock::from(Mutex::new(ended))))
    }

    /// Begins to read, if that has not begun.
    fn begin(&self) -> io::Result<()> {
        if self.0.get().is_some() {
            return Ok(());
        }
        // One chunk waits while another is sent: what the firmware does not take stays with
        // whoever writes it.
        let (sender, receiver) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("stdin".to_owned());
        thread.spawn(move || read(&sender))?;
        let _ = self.0.set(Mutex::new(receiver));
        Ok(())
    }

    /// The next of it; `None` at its end.
    async fn next(&self) -> Option<Vec<u8>> {
        self.0.get()?.lock().await.recv().await
    }
}

fn read(sender: &mpsc::Sender<Vec<u8>>) {
    // A job in the background that reads its terminal would be stopped. With the signal blocked the
    // read fails.
    let mut reading_in_background = SigSet::empty();
    reading_in_background.add(Signal::SIGTTIN);
    let _ = reading_in_background.thread_block();
    let stdin = io::stdin();
    let terminal = stdin.is_terminal();
    let mut chunk = [0; CHUNK_BYTES];
    while !sender.is_closed() {
        match rustix::io::read(stdin.as_fd(), &mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                if sender.blocking_send(chunk[..length].to_vec()).is_err() {
                    return; // the run is over
                }
            }
            Err(Errno::INTR) => {}
            // Somebody else has made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut wanted = [PollFd::new(&stdin, PollFlags::IN)];
                match poll(&mut wanted, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            Err(Errno::IO) if terminal => std::thread::sleep(BACKGROUND_LOOK),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many chunks each of two readers gets of 200, where the first one begins to read after
    /// the second one has had `ahead` more than fit into its own queue.
    async fn taken(ahead: usize) -> (usize, usize) {
        let (sender, receiver) = mpsc::channel(200);
        for number in 0..200_u8 {
            sender.send(vec![number]).await.unwrap();
        }
        drop(sender);
        let stdin = Stdin(Arc::new(OnceLock::from(Mutex::new(receiver))));
        let queue = || mpsc::channel::<Chunk>(QUEUE_CHUNKS + BEHIND_CHUNKS);
        let ((late, mut of_late), (early, mut of_early)) = (queue(), queue());
        let (_go, go) = watch::channel(true);
        tokio::spawn(distribute(stdin, vec![late, early], go));
        let (mut late, mut early) = (0, 0);
        while early < ahead && of_early.recv().await.is_some() {
            early += 1;
        }
        loop {
            // Both, in turn, as long as there is something.
            match (of_late.recv().await, of_early.recv().await) {
                (None, None) => return (late, early),
                (of_late, of_early) => {
                    late += usize::from(of_late.is_some());
                    early += usize::from(of_early.is_some());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_reader_that_begins_late_gets_all_unless_it_is_far_behind() {
        assert_eq!(taken(BEHIND_CHUNKS - 1).await, (200, 200));
        let (late, early) = taken(100).await;
        assert_eq!((late, early), (QUEUE_CHUNKS + BEHIND_CHUNKS, 200));
    }
}
