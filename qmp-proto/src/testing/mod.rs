//! For this project's own tests and fuzz targets: the fuzz bodies, a model of a connection, and
//! proptest strategies.
//!
//! The bodies take any bytes and panic on a finding. The ordinary tests run them with what the
//! strategies make; the targets in `fuzz/` are shims over them.

mod bodies;
mod model;
pub mod strategies;

pub use bodies::{connection, decode, encode, typed};
pub use model::{Op, run_against_model};

use crate::{Codec, DecodeError, Limits, ServerMessage};

/// What a whole stream decodes to: its messages, and the error that ended it, if one did.
pub type Decoded = (Vec<ServerMessage>, Option<DecodeError>);

/// Decodes these pieces, then the end of the stream, and checks what must be true of every stream:
/// an error stays, and after a clean end nothing comes.
pub fn decode_pieces<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut codec = Codec::new(limits);
    let mut messages = Vec::new();
    let mut failure = None;
    let mut drain = |codec: &mut Codec| {
        while failure.is_none() {
            match codec.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(failure) = &failure {
            assert_eq!(
                codec.next_message().as_ref(),
                Err(failure),
                "the error stays"
            );
        }
    };
    for piece in pieces {
        codec.feed(piece);
        drain(&mut codec);
    }
    codec.feed_eof();
    drain(&mut codec);
    codec.feed(b"{\"return\": {}}");
    drain(&mut codec);
    assert_eq!(
        codec.is_finished(),
        failure.is_none(),
        "either a clean end or an error"
    );
    (messages, failure)
}

/// Cuts `bytes` at places drawn from `seed`: pieces of up to `longest` bytes.
pub fn cut(bytes: &[u8], longest: usize, mut seed: u64) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        // Knuth's MMIX generator: good enough to spread cuts.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = (1 + (seed >> 33) as usize % longest.max(1)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
