//! stdin, read by a thread of its own: nothing can interrupt a read, and a run must not wait for
//! one.

use std::io::{self, IsTerminal as _, Read as _};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use tokio::sync::mpsc;

use crate::settings::Newline;

/// How often a job in the background looks whether the terminal is its own again.
const BACKGROUND_LOOK: Duration = Duration::from_millis(200);

/// What comes on stdin, until it ends.
pub(crate) fn stdin(newline: Option<Newline>) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let terminal = io::stdin().is_terminal();
    let newline = newline.unwrap_or(if terminal { Newline::Cr } else { Newline::Keep });
    // One chunk waits while another is sent: what the firmware does not take stays with whoever
    // writes it.
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || read(terminal, newline, &sender))?;
    Ok(receiver)
}

fn read(terminal: bool, newline: Newline, sender: &mpsc::Sender<Vec<u8>>) {
    // A job in the background that reads its terminal would be stopped. With the signal blocked the
    // read fails.
    let mut reading_in_background = SigSet::empty();
    reading_in_background.add(Signal::SIGTTIN);
    let _ = reading_in_background.thread_block();
    let mut chunk = [0; 4096];
    loop {
        match io::stdin().read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                if sender
                    .blocking_send(newline.translate(&chunk[..length]))
                    .is_err()
                {
                    return; // the run is over
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if terminal && error.raw_os_error() == Some(Errno::EIO as i32) => {
                if sender.is_closed() {
                    return;
                }
                std::thread::sleep(BACKGROUND_LOOK);
            }
            Err(_) => return,
        }
    }
}
