//! Extracts the machine's state from a qcow2 image into which QEMU has saved one snapshot.
//!
//! It is, byte for byte, the stream that `migrate` would send (7.2 and 10.0). `migrate` itself
//! leaves its traces: the machine is in `postmigrate` with its block nodes inactive, which only
//! `cont` ends. The image is our own, made a moment ago, so only what QEMU makes of it by default
//! is read; anything else is an error. The format: QEMU's `docs/interop/qcow2.txt`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The bits of an L1 or L2 entry that say where in the file it points.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The bit of an L2 entry that says that its cluster is read as zeroes.
const ZERO: u64 = 1;
/// The bit of an L2 entry that says that its cluster is compressed.
const COMPRESSED: u64 = 1 << 62;

/// Where in an image the state is.
struct Layout {
    cluster: u64,
    /// The snapshot's L1 table.
    l1: u64,
    l1_entries: u64,
    /// The first cluster of the state, the one behind the disk's own.
    first: u64,
    bytes: u64,
}

/// Copies the state of the image's only snapshot into an empty file, and returns how many bytes it
/// has.
pub(super) fn extract(image: &File, state: &File) -> io::Result<u64> {
    let layout = Layout::read(image)?;
    let per_table = layout.cluster / 8;
    let mut buffer = vec![0; layout.cluster as usize];
    let mut table = (u64::MAX, 0);
    for number in 0..layout.bytes.div_ceil(layout.cluster) {
        let index = layout.first + number;
        if table.0 != index / per_table {
            table = (index / per_table, layout.table(image, index / per_table)?);
        }
        if table.1 == 0 {
            continue;
        }
        let entry = word(image, table.1 + index % per_table * 8)?;
        ensure(entry & COMPRESSED == 0, "a cluster is compressed")?;
        if entry & ZERO != 0 || entry & OFFSET == 0 {
            continue;
        }
        let length = layout.cluster.min(layout.bytes - number * layout.cluster) as usize;
        image.read_exact_at(&mut buffer[..length], entry & OFFSET)?;
        state.write_all_at(&buffer[..length], number * layout.cluster)?;
    }
    // Clusters left out at the end are zero too.
    state.set_len(layout.bytes)?;
    Ok(layout.bytes)
}

impl Layout {
    fn read(image: &File) -> io::Result<Self> {
        ensure(
            word(image, 0)? == 0x5146_49fb_0000_0003,
            "it is no qcow2 image of version 3",
        )?;
        ensure(
            word(image, 72)? == 0,
            "it has features that are not expected",
        )?;
        let (bits, size) = (half(image, 20)?, word(image, 24)?);
        ensure((9..=21).contains(&bits), "its clusters have no size")?;
        ensure(half(image, 60)? == 1, "it has not one snapshot")?;
        let cluster = 1 << bits;
        let at = word(image, 64)?;
        let small = u64::from(half(image, offset(at, 32)?)?);
        let has_large = half(image, offset(at, 36)?)? >= 8;
        Ok(Self {
            cluster,
            l1: word(image, at)?,
            l1_entries: half(image, offset(at, 8)?)?.into(),
            // Behind the last L2 table of the disk.
            first: size.div_ceil(cluster * (cluster / 8)) * (cluster / 8),
            bytes: if has_large {
                word(image, offset(at, 40)?)?
            } else {
                small
            },
        })
    }

    /// Where the L2 table of this number is; 0 where there is none.
    fn table(&self, image: &File, number: u64) -> io::Result<u64> {
        ensure(number < self.l1_entries, "its snapshot is cut short")?;
        Ok(word(image, offset(self.l1, number * 8)?)? & OFFSET)
    }
}

fn offset(base: u64, by: u64) -> io::Result<u64> {
    base.checked_add(by)
        .ok_or_else(|| wrong("it points beyond its end"))
}

fn word(image: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    image.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_be_bytes(bytes))
}

fn half(image: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    image.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_be_bytes(bytes))
}

fn ensure(holds: bool, otherwise: &'static str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(wrong(otherwise)) }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: usize = 512;

    /// An image with clusters of 512 bytes over a disk of this size, whose snapshot's L2 entries
    /// are given; the cluster in the file that one points to is filled with its number.
    fn image(disk: u64, entries: &[u64], bytes: u64) -> Vec<u8> {
        let (per_table, disk_tables) = (CLUSTER / 8, disk.div_ceil(512 * 64) as usize);
        let tables = entries.len().div_ceil(per_table);
        let mut image = vec![0; CLUSTER * 64];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb\0\0\0\x03");
        put(20, &9_u32.to_be_bytes());
        put(24, &disk.to_be_bytes());
        put(60, &1_u32.to_be_bytes());
        let (snapshot, l1, first_table) = (CLUSTER, 2 * CLUSTER, 3 * CLUSTER);
        put(64, &(snapshot as u64).to_be_bytes());
        put(snapshot, &(l1 as u64).to_be_bytes());
        put(snapshot + 8, &((disk_tables + tables) as u32).to_be_bytes());
        put(snapshot + 36, &16_u32.to_be_bytes());
        put(snapshot + 40, &bytes.to_be_bytes());
        for table in 0..tables {
            let at = first_table + table * CLUSTER;
            // QEMU sets the top bit of what belongs to nobody else.
            put(
                l1 + (disk_tables + table) * 8,
                &(at as u64 | (1 << 63)).to_be_bytes(),
            );
            for (n, entry) in entries
                .iter()
                .skip(table * per_table)
                .take(per_table)
                .enumerate()
            {
                put(at + n * 8, &entry.to_be_bytes());
            }
        }
        for number in 8..64 {
            image[number * CLUSTER..][..CLUSTER].fill(number as u8);
        }
        image
    }

    fn extracted(image: &[u8]) -> io::Result<Vec<u8>> {
        let (from, to) = (tempfile::tempfile()?, tempfile::tempfile()?);
        from.write_all_at(image, 0)?;
        let mut state = vec![0xee; extract(&from, &to)? as usize];
        to.read_exact_at(&mut state, 0)?;
        Ok(state)
    }

    #[test]
    fn clusters_come_in_the_order_of_the_tables() {
        let at = |cluster: u64| (cluster * 512) | (1 << 63);
        for disk in [0, 1, 512 * 64, 512 * 64 + 1] {
            // The third is not there, the fourth is said to be zero, the last one is cut.
            let state = extracted(&image(
                disk,
                &[at(9), at(8), 0, at(10) | ZERO, at(11)],
                2048 + 7,
            ))
            .unwrap();
            let expected: Vec<u8> = [9, 8, 0, 0]
                .iter()
                .flat_map(|&byte| [byte; 512])
                .chain([11; 7])
                .collect();
            assert_eq!(state, expected, "over a disk of {disk} bytes");
        }
        let entries: Vec<u64> = (0..130).map(|n| at(8 + n % 50)).collect();
        let state = extracted(&image(0, &entries, 130 * 512)).unwrap();
        assert!(
            state
                .chunks(512)
                .enumerate()
                .all(|(n, chunk)| chunk.iter().all(|&b| b == 8 + (n % 50) as u8))
        );
        assert_eq!(extracted(&image(0, &[0], 512)).unwrap(), [0; 512]);
    }

    #[test]
    fn what_is_not_expected_is_refused() {
        let good = || image(0, &[9 * 512], 512);
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut image = good();
            change(&mut image);
            let error = extracted(&image).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|image| image[7] = 2, "version 3");
        check(&|image| image[79] = 4, "features");
        check(&|image| image[23] = 8, "no size");
        check(&|image| image[63] = 2, "one snapshot");
        check(&|image| image[512 + 11] = 0, "cut short");
        check(&|image| image[3 * 512] = 0x40, "compressed");
        check(&|image| image.truncate(9 * 512), "fill");
    }

    #[test]
    fn no_damage_makes_it_panic_or_run_on() {
        let good = image(0, &[9 * 512, 10 * 512], 1024);
        for at in (0..104).chain(512..560).chain(1024..1032).chain(1536..1552) {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut image = good.clone();
                image[at] = byte;
                let _ = extracted(&image);
            }
        }
    }
}
