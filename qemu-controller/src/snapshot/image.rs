//! The qcow2 image that snapshots are in: written empty by this program, and opened by QEMU as a
//! block node.
//!
//! QEMU's own `blockdev-create` is not used: a guest that is stopped while it works aborts QEMU 7.2
//! (`blk_unref: Assertion`) and fails the job on 10.0 (`Permission conflict`). Paths are only ever
//! values of `filename` for the driver `file`, which takes them as they are; absolute, so that none
//! is read as a protocol.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use qmp_proto::Command;
use qmp_proto::commands::{BlockDeviceInfo, BlockdevAdd};
use serde::Serialize;
use serde_json::json;
use tempfile::NamedTempFile;

use super::error::SnapshotError;
use super::ids::Ids;
use crate::client::transaction::Transaction;
use crate::error::CommandError;

const CLUSTER: u64 = 64 * 1024;

/// What a qcow2 image begins with.
const MAGIC: &[u8] = b"QFI\xfb";

/// Writes an empty image over a disk of 0 bytes into an empty file, as `qemu-img create` does:
/// the header, a refcount table and a refcount block, a cluster each. The format: QEMU's
/// `docs/interop/qcow2.txt`.
fn write_empty(file: &File) -> io::Result<()> {
    let mut header = [0; 104];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, MAGIC);
    put(4, &3_u32.to_be_bytes()); // version
    put(20, &CLUSTER.ilog2().to_be_bytes()); // cluster_bits
    put(48, &CLUSTER.to_be_bytes()); // refcount_table_offset
    put(56, &1_u32.to_be_bytes()); // refcount_table_clusters
    put(96, &4_u32.to_be_bytes()); // refcount_order: 16 bits
    put(100, &104_u32.to_be_bytes()); // header_length
    file.write_all_at(&header, 0)?;
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    // Each of the three clusters is used once.
    file.write_all_at(&[0, 1, 0, 1, 0, 1], 2 * CLUSTER)?;
    file.set_len(3 * CLUSTER)
}

/// Writes an empty image where the user wants it. It has its name only when it is whole, and
/// nothing that has this name is ever replaced.
pub(super) async fn create(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let create = move || {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let file = NamedTempFile::with_prefix_in("qemu-snapshots-", folder)?;
        write_empty(file.as_file())?;
        // It may take long, and is waited for on a thread of its own.
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        Ok(())
    };
    tokio::task::spawn_blocking(create).await?
}

/// Whether the user's file is there. Only what this project writes is ever opened for writing.
pub(super) fn is_there(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        // To open something else, a FIFO for example, may block for ever.
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("it is no regular file")),
        Ok(_) => check_header(path).map(|()| true),
    }
}

/// A qcow2 image may name other files, which QEMU would open.
fn check_header(path: &Path) -> io::Result<()> {
    let mut header = Vec::new();
    File::open(path)?.take(104).read_to_end(&mut header)?;
    let refused = if header.len() < 72 || !header.starts_with(MAGIC) || header[4..7] != [0; 3] {
        "it is no qcow2 image, and is left as it is"
    } else if header[8..16] != [0; 8] {
        "it is a qcow2 image over a backing file, and not for snapshots alone"
    } else if header[7] >= 3 && header.get(79).is_none_or(|features| features & 4 != 0) {
        "it is a qcow2 image whose data are in another file"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, refused))
}

/// Makes an image for what does not outlive the session, and opens it as a block node. The file has
/// lost its name when this returns: QEMU has it open then, and never opens it again.
pub(crate) async fn make_scratch(
    transaction: &Transaction,
    ids: &Ids,
) -> Result<(File, String), SnapshotError> {
    let file =
        write_scratch().map_err(|error| SnapshotError::file(&std::env::temp_dir(), error))?;
    let node = open(transaction, ids, file.path(), false).await?;
    Ok((file.into_file(), node))
}

fn write_scratch() -> io::Result<NamedTempFile> {
    let file = NamedTempFile::with_prefix("qemu-snapshots-")?;
    write_empty(file.as_file())?;
    Ok(file)
}

/// Opens an image as a block node of this session and returns the node's name.
pub(super) async fn open(
    transaction: &Transaction,
    ids: &Ids,
    path: &Path,
    outlives_session: bool,
) -> Result<String, SnapshotError> {
    let (node, filename) = (ids.next(), utf8(path)?);
    let options = json!({
        "driver": "qcow2",
        "node-name": node,
        // Whatever the header says, no other file is read.
        "backing": null,
        // An image that is gone with the session need not survive a power cut.
        "cache": { "no-flush": !outlives_session },
        "file": { "driver": "file", "filename": filename },
    });
    transaction.command(&BlockdevAdd::new(options)).await?;
    Ok(node)
}

/// All block nodes, each once.
pub(super) async fn nodes(transaction: &Transaction) -> Result<Vec<BlockDeviceInfo>, CommandError> {
    transaction.command(&QueryNodes { flat: true }).await
}

/// `query-named-block-nodes` without the chains of backing files.
#[derive(Serialize)]
struct QueryNodes {
    flat: bool,
}

impl Command for QueryNodes {
    const NAME: &'static str = "query-named-block-nodes";
    type Return = Vec<BlockDeviceInfo>;
}

/// QMP is text, and so is a path in it.
fn utf8(path: &Path) -> Result<&str, SnapshotError> {
    path.to_str().ok_or_else(|| {
        let reason = "QEMU can only be told a path that is UTF-8";
        SnapshotError::file(path, io::Error::other(reason))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_image_has_three_clusters_that_are_used_once() {
        let file = NamedTempFile::new().unwrap();
        write_empty(file.as_file()).unwrap();
        assert!(is_there(file.path()).unwrap());
        let image = fs::read(file.path()).unwrap();
        let cluster = CLUSTER as usize;
        assert_eq!(image.len(), 3 * cluster);
        // As `qemu-img create -f qcow2 -o cluster_size=64k FILE 0` has it, without the names of
        // features.
        let set: Vec<_> = (0..image.len()).filter(|&at| image[at] != 0).collect();
        let expected = [
            0, 1, 2, 3, 7, 23, 53, 59, 99, 103, 65541, 131073, 131075, 131077,
        ];
        assert_eq!(set, expected);
    }
}
