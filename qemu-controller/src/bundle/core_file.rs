//! The core file that gdb reads: QEMU writes it, and what is zero in it takes no room.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use qmp_proto::{Command, Empty};
use serde::Serialize;

use crate::session::Session;

/// What a file system leaves out at once.
const PAGE: usize = 4096;

/// `dump-guest-memory`.
#[derive(Serialize)]
struct DumpGuestMemory<'a> {
    paging: bool,
    protocol: &'a str,
}

impl Command for DumpGuestMemory<'_> {
    const NAME: &'static str = "dump-guest-memory";
    type Return = Empty;
}

/// Has QEMU write the core of a machine that is paused. Why there is none, where it cannot.
pub(super) async fn write(session: &Session, path: &Path) -> Result<(), String> {
    let whole = path.with_extension("whole");
    let Some(name) = whole.to_str() else {
        return Err("QEMU takes no path that is no text".to_owned());
    };
    let protocol = format!("file:{name}");
    let command = DumpGuestMemory {
        paging: false,
        protocol: &protocol,
    };
    let written = session.command(&command).await;
    let copied = match written {
        Ok(_) => {
            let (from, to) = (whole.clone(), path.to_owned());
            let copying = move || copy_without_zeros(&from, &to).map_err(|error| error.to_string());
            let copied = tokio::task::spawn_blocking(copying).await;
            copied.unwrap_or_else(|panic| Err(panic.to_string()))
        }
        Err(error) => Err(error.to_string()),
    };
    // It may not be there.
    let _ = fs::remove_file(&whole);
    copied
}

fn copy_without_zeros(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = File::open(from)?;
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(0o600).open(to)?;
    let (mut chunk, mut length) = (vec![0; 64 * 1024], 0);
    loop {
        let read = match from.read(&mut chunk)? {
            0 => return to.set_len(length),
            read => read,
        };
        for page in chunk[..read].chunks(PAGE) {
            length += page.len() as u64;
            match page.iter().all(|&byte| byte == 0) {
                true => drop(to.seek(SeekFrom::Start(length))?),
                false => to.write_all(page)?,
            }
        }
    }
}
