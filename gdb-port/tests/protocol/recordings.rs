//! Recorded sessions of the probe with real QEMU, replayed whole, cut everywhere, and byte by byte.

use std::path::Path;

use gdb_port::gdb_remote::packet::{Decoder, Item};
use gdb_port::{GuestEffect, Leave, Outcome, ProbeOptions, Reachability};
use gdb_remote::testing::Recording;

use crate::timed::Timed;

fn session(name: &str) -> Recording {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let text = std::fs::read_to_string(folder.join(name).with_extension("gdb-session"));
    Recording::parse(&text.unwrap()).unwrap()
}

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut decoder = Decoder::default();
    bytes
        .iter()
        .filter_map(|byte| decoder.push(*byte))
        .collect()
}

/// A probe that reads a recorded stub in these pieces: what it asks, how often it acknowledges, and
/// what it finds.
fn through_a_probe<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Item>, usize, Outcome) {
    let mut probe = Timed::new(&ProbeOptions::default().leave(Leave::RunOn));
    let mut said = Vec::new();
    for piece in pieces {
        probe.handle_input(piece);
        said.extend_from_slice(probe.output());
        probe.advance_output(usize::MAX);
    }
    assert!(probe.is_done());
    let (packets, acks) = divide(&said);
    (packets, acks, probe.outcome())
}

/// The packets, and how many acknowledgments. Answers that come together are acknowledged together,
/// so only the number counts.
fn divide(said: &[u8]) -> (Vec<Item>, usize) {
    let (acks, packets): (Vec<Item>, Vec<Item>) =
        items(said).into_iter().partition(|item| *item == Item::Ack);
    (packets, acks.len())
}

#[test]
fn the_probes_own_sessions_are_repeated_however_they_are_cut() {
    for (name, effect) in [
        ("probe-running", GuestEffect::PausedThenResumed),
        ("probe-after-gdb", GuestEffect::PausedThenResumed),
        ("probe-prelaunch", GuestEffect::LeftStopped),
    ] {
        let session = session(name);
        let whole = through_a_probe(std::iter::once(session.stub.as_slice()));
        assert_eq!(
            (whole.0.clone(), whole.1),
            divide(&session.debugger),
            "{name}"
        );
        assert_eq!(whole.2.effect, effect, "{name}");
        let Reachability::Answers(identity) = &whole.2.reachability else {
            panic!("{name}")
        };
        assert_eq!(
            identity.target.as_ref().unwrap().registers.len(),
            17,
            "{name}"
        );
        assert_eq!(
            through_a_probe(session.stub.chunks(1)),
            whole,
            "{name} byte by byte"
        );
        for cut in 0..=session.stub.len() {
            let (first, second) = session.stub.split_at(cut);
            assert_eq!(
                through_a_probe([first, second].into_iter()),
                whole,
                "{name} cut at {cut}"
            );
        }
    }
}

#[test]
fn a_session_that_breaks_off_anywhere_never_resumes_a_guest_twice_and_always_ends() {
    for name in ["probe-running", "probe-after-gdb"] {
        let session = session(name);
        for cut in 0..session.stub.len() {
            let mut probe = Timed::new(&ProbeOptions::default().leave(Leave::RunOn));
            let mut said = Vec::new();
            probe.handle_input(&session.stub[..cut]);
            probe.reach_deadline();
            said.extend_from_slice(probe.output());
            probe.advance_output(usize::MAX);
            probe.reach_end();
            said.extend_from_slice(probe.output());
            assert!(probe.is_done());
            let resumes = said.windows(2).filter(|pair| pair == b"$D").count();
            let shown_to_run = cut >= b"$T02thread:01;#04".len();
            assert!(
                resumes <= 1
                    && (resumes == 1 || !shown_to_run || name == "probe-after-gdb" && cut < 21),
                "{name} {cut}"
            );
        }
    }
}
