//! Which code ran, by address, from QEMU's log of the code that it translates (`-d in_asm`).
//!
//! ```text
//! ----------------
//! IN: reset_handler
//! 0x00000468:  b580       push     {r7, lr}
//! 0x0000046a:  e007       b        #0x47c
//!
//! ```
//!
//! QEMU translates a block when it is about to run it for the first time, and not before.

use std::collections::BTreeMap;
use std::ops::Range;

/// More separate pieces of code than any firmware has; a guest that makes up code for ever is cut
/// off here.
const MAX_PIECES: usize = 1 << 20;

/// The log's lines are shorter; the rest of a longer one is passed over.
const MAX_LINE: usize = 1024;

/// The addresses of the code that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutedCode {
    /// The end of each piece by its beginning; no two touch.
    pieces: BTreeMap<u64, u64>,
    left_out: u64,
}

impl ExecutedCode {
    /// Adds a piece of code.
    pub fn insert(&mut self, piece: Range<u64>) {
        let Range { mut start, mut end } = piece;
        if start >= end {
            return;
        }
        if let Some((&before, &its_end)) = self.pieces.range(..=start).next_back()
            && its_end >= start
        {
            if its_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &its_end)) = self.pieces.range(start..=end).next() {
            self.pieces.remove(&next);
            end = end.max(its_end);
        }
        if self.pieces.len() < MAX_PIECES {
            self.pieces.insert(start, end);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds all that ran in another run.
    pub fn merge(&mut self, other: &Self) {
        for piece in other.pieces() {
            self.insert(piece);
        }
        self.left_out += other.left_out;
    }

    /// Whether any instruction in this range ran.
    #[must_use]
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        let before = self.pieces.range(..range.end).next_back();
        before.is_some_and(|(_, &end)| end > range.start)
    }

    /// The pieces, in order. Blocks that are next to each other are one piece.
    pub fn pieces(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.pieces.iter().map(|(&start, &end)| start..end)
    }

    /// Nothing ran.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces were left out because there were too many (a million).
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// Reads the log as it grows.
#[derive(Debug, Default)]
pub(crate) struct LogParser {
    executed: ExecutedCode,
    /// The beginning of a line.
    line: Vec<u8>,
    /// Within a block's lines.
    in_block: bool,
    block: Option<Range<u64>>,
}

impl LogParser {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (head, rest) = (&bytes[..at], &bytes[at + 1..]);
            if self.line.is_empty() {
                self.read_line(head);
            } else {
                self.keep(head);
                let line = std::mem::take(&mut self.line);
                self.read_line(&line);
                self.line = line;
                self.line.clear();
            }
            bytes = rest;
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn read_line(&mut self, line: &[u8]) {
        if line.starts_with(b"IN:") {
            self.end_block();
            self.in_block = true;
        } else if self.in_block && line.starts_with(b"0x") {
            if let Some((address, length)) = instruction(line) {
                self.add(address, length);
            }
        } else if self.in_block && line.starts_with(b"OBJD-T:") {
            // A QEMU without a disassembler for its guest: all of the block's bytes.
            let length = hex_bytes(&line[b"OBJD-T:".len()..]);
            if let Some(block) = &mut self.block {
                block.end = block.end.max(block.start.saturating_add(length));
            }
        } else if line.is_empty() && self.block.is_some() {
            self.end_block();
            self.in_block = false;
        }
    }

    fn add(&mut self, address: u64, length: u64) {
        let end = address.saturating_add(length.max(1));
        match &mut self.block {
            Some(block) if (block.start..=block.end).contains(&address) => {
                block.end = block.end.max(end);
            }
            _ => {
                self.end_block();
                self.block = Some(address..end);
            }
        }
    }

    fn end_block(&mut self) {
        if let Some(block) = self.block.take() {
            self.executed.insert(block);
        }
    }

    /// What ran so far. A block whose lines have not all come is not in it.
    pub(crate) fn executed(&self) -> &ExecutedCode {
        &self.executed
    }

    /// The same, and from now on only what is translated anew counts.
    pub(crate) fn take(&mut self) -> ExecutedCode {
        std::mem::take(&mut self.executed)
    }
}

/// The address and the length of an instruction: `0x00000468:  f000 f99f  bl       #0x7aa`.
fn instruction(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let (address, rest) = line.strip_prefix("0x")?.split_once(':')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    Some((address, hex_bytes(rest.as_bytes())))
}

/// How many bytes are shown: groups of digits with one space between, and two before anything else.
fn hex_bytes(text: &[u8]) -> u64 {
    let text = text.trim_ascii_start();
    let end = text.windows(2).position(|pair| pair == b"  ");
    let text = &text[..end.unwrap_or(text.len())];
    let digits = text.iter().filter(|byte| **byte != b' ' && **byte != b'\r');
    match digits.clone().all(u8::is_ascii_hexdigit) {
        true => digits.count() as u64 / 2,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(code: &ExecutedCode) -> Vec<(u64, u64)> {
        code.pieces()
            .map(|piece| (piece.start, piece.end))
            .collect()
    }

    fn parsed(log: &str) -> Vec<(u64, u64)> {
        let mut parser = LogParser::default();
        parser.push(log.as_bytes());
        let whole = parser.executed().clone();
        // In any pieces it is the same.
        for size in [1, 3, 17] {
            let mut parser = LogParser::default();
            log.as_bytes()
                .chunks(size)
                .for_each(|chunk| parser.push(chunk));
            assert_eq!(parser.executed(), &whole);
        }
        pieces(&whole)
    }

    #[test]
    fn blocks_of_several_architectures() {
        let arm = "----------------\nIN: main\n0x00000400:  f000 f99f  bl       #0x742\n\n\
                   ----------------\nIN: \n0x00000742:  b580       push     {r7, lr}\n\
                   0x00000744:  4770       bx       lr\n\n";
        assert_eq!(parsed(arm), [(0x400, 0x404), (0x742, 0x746)]);
        let riscv = "----------------\nIN: \nPriv: 3; Virt: 0\n\
                     0x80000000:  00000297          auipc           t0,0\n\
                     0x80000004:  8082              ret\n\n";
        assert_eq!(parsed(riscv), [(0x8000_0000, 0x8000_0006)]);
        let x86 = "----------------\nIN: \n\
                   0x000fe05b:  2e 66 83 3e c8 61 00     cmpl     $0, %cs:0x61c8\n\
                   0x000fe062:  00 00\n\n";
        assert_eq!(parsed(x86), [(0xfe05b, 0xfe064)]);
        let no_disassembler = "IN: \n0x00000010:  \nOBJD-T: 0c945c00\n\n";
        assert_eq!(parsed(no_disassembler), [(0x10, 0x14)]);
    }

    #[test]
    fn what_is_no_block_is_passed_over() {
        let long = "x".repeat(10 * MAX_LINE);
        let log = format!(
            "0x00000100:  b580  push\nTaking exception 3\nIN: f\n0xzz:  1\n0x00000200:  00bf  nop\n\n\
             {long}\n0x00000300:  b580  push\n"
        );
        assert_eq!(parsed(&log), [(0x200, 0x202)]);
        // Not whole yet.
        assert_eq!(parsed("IN: f\n0x00000200:  00bf  nop\n"), []);
    }

    #[test]
    fn pieces_grow_together() {
        let mut code = ExecutedCode::default();
        for piece in [4..6, 0..2, 10..12, 2..4, 5..5, 3..5] {
            code.insert(piece);
        }
        assert_eq!(pieces(&code), [(0, 6), (10, 12)]);
        code.insert(1..20);
        assert_eq!(pieces(&code), [(0, 20)]);
        assert!(code.overlaps(&(19..30)) && !code.overlaps(&(20..30)));
        let mut other = ExecutedCode::default();
        other.insert(30..40);
        other.merge(&code);
        assert_eq!(pieces(&other), [(0, 20), (30, 40)]);
        assert!(!other.overlaps(&(20..30)) && other.overlaps(&(0..100)));
    }
}
