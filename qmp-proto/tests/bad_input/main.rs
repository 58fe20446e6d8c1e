//! The table of bad and odd input: each row delivered whole, byte by byte and in random cuts, alone
//! and among neighbours.
#![expect(clippy::unwrap_used, reason = "a test that meets an error is to fail")]

mod byte_by_byte;
mod codec_rows;
mod connection_rows;
mod encoding_rows;
mod limits;

/// Ways to cut a stream: whole, byte by byte, and a few random ones.
fn cuttings(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuttings = vec![vec![bytes], bytes.chunks(1).collect()];
    // A long stream byte by byte is for `limits`.
    let random = if bytes.len() > 10_000 { 2 } else { 8 };
    for seed in 0..random {
        cuttings.push(cut(bytes, 3 << seed, seed));
    }
    cuttings
}

/// Pieces of up to `longest` bytes, drawn from `seed`.
fn cut(bytes: &[u8], longest: u64, seed: u64) -> Vec<&[u8]> {
    let mut state = seed;
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = (1 + (state >> 33) % longest).min(rest.len() as u64) as usize;
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
