//! Where the guest's memory is: a pointer of the firmware's may lead anywhere, and a device takes a
//! read for a request.

use std::ops::Range;

/// The ranges of memory, from the human monitor's `info mtree -f`.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryMap {
    ram: Vec<Range<u64>>,
    rom: Vec<Range<u64>>,
}

impl MemoryMap {
    /// Reads lines of the form `  0000000020000000-000000002000ffff (prio 0, ram): stellaris.sram`
    /// of all address spaces. The text is for people and changes between versions; what is not
    /// understood is no memory.
    pub(super) fn parse(text: &str) -> Self {
        let mut map = Self::default();
        for line in text.lines() {
            let Some((range, rest)) = line.trim_start().split_once(" (prio ") else {
                continue;
            };
            let kind = rest
                .split_once(", ")
                .and_then(|(_, kind)| kind.split_once(')'));
            let ranges = match kind {
                Some(("ram", _)) => &mut map.ram,
                Some(("rom", _)) => &mut map.rom,
                _ => continue,
            };
            let Some((first, last)) = range.split_once('-') else {
                continue;
            };
            let hex = |digits| u64::from_str_radix(digits, 16).ok();
            if let (Some(first), Some(last)) = (hex(first), hex(last))
                && let Some(end) = last.checked_add(1)
                && first < end
            {
                ranges.push(first..end);
            }
        }
        map.ram = united(map.ram);
        map.rom = united(map.rom);
        map
    }

    /// What can be written.
    pub(super) fn ram(&self) -> &[Range<u64>] {
        &self.ram
    }

    pub(super) fn is_ram(&self, at: u64, length: u64) -> bool {
        holds(&self.ram, at, length)
    }

    /// How many bytes from here on can be read, up to so many.
    pub(super) fn readable(&self, at: u64, most: u64) -> u64 {
        let all = self.ram.iter().chain(&self.rom);
        let range = all.into_iter().find(|range| range.contains(&at));
        range.map_or(0, |range| (range.end - at).min(most))
    }
}

/// Ranges in order, those that touch as one.
fn united(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut united = Vec::<Range<u64>>::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => united.push(range),
        }
    }
    united
}

fn holds(ranges: &[Range<u64>], at: u64, length: u64) -> bool {
    let end = at.checked_add(length);
    end.is_some_and(|end| {
        ranges
            .iter()
            .any(|range| range.start <= at && end <= range.end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_devices() {
        let text = "FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n\
            \u{20} 0000000000000000-000000000003ffff (prio 0, rom): stellaris.flash\r\n\
            \u{20} 0000000020000000-0000000020007fff (prio 0, ram): sram KVM\r\n\
            \u{20} 0000000020008000-000000002000ffff (prio -1, ram): more @0000000000008000\r\n\
            \u{20} 0000000040000000-0000000040000fff (prio 0, i/o): watchdog\r\n\
            \u{20} 0000000050000000-ffffffffffffffff (prio 0, ram): too much\r\n\
            garbage (prio 0, ram)\r\nz-0 (prio 0, ram): x\r\n\r\n";
        let map = MemoryMap::parse(text);
        assert_eq!(
            (map.ram().len(), map.ram()[0].clone()),
            (1, 0x2000_0000..0x2001_0000)
        );
        assert!(map.is_ram(0x2000_7fff, 2) && !map.is_ram(0x2000_ffff, 2));
        assert!(!map.is_ram(0, 4) && !map.is_ram(0x4000_0000, 1) && !map.is_ram(u64::MAX, 2));
        assert_eq!(map.readable(0x3_fff0, 64), 16);
        assert_eq!(
            (map.readable(0x2000_0000, 64), map.readable(0x4000_0000, 64)),
            (64, 0)
        );
    }
}
