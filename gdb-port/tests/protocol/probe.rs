//! The probe's dialogue with stubs of every kind, made of a few lines each.

use gdb_port::gdb_remote::packet::{Decoder, Item, encode};
use gdb_port::{GuestEffect, GuestState, Leave, Outcome, ProbeOptions, Reachability, WrongAnswer};

use crate::timed::Timed;

const SUPPORTED: &str = "qSupported:xmlRegisters=i386,arm";

/// What was asked, and what came of it.
struct Dialogue {
    asked: Vec<String>,
    said: Vec<u8>,
    outcome: Outcome,
}

/// Lets a probe speak with a stub that says `unasked` first and then answers each packet with one;
/// `None` is silence, which lasts until the deadline.
fn converse(
    options: &ProbeOptions,
    unasked: &[&str],
    answer: impl Fn(&str) -> Option<&'static str>,
) -> Dialogue {
    let mut probe = Timed::new(options);
    let mut stub = Decoder::default();
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    let mut deadline_passed = false;
    let mut reply = Vec::new();
    for packet in unasked {
        encode(packet.as_bytes(), &mut reply);
    }
    probe.handle_input(&reply);
    loop {
        let output = probe.output().to_vec();
        probe.advance_output(output.len());
        said.extend_from_slice(&output);
        let mut reply = Vec::new();
        for item in output.iter().filter_map(|byte| stub.push(*byte)) {
            if let Item::Packet(question) = item {
                let question = String::from_utf8(question).unwrap();
                if let Some(text) = answer(&question) {
                    reply.push(b'+');
                    encode(text.as_bytes(), &mut reply);
                }
                asked.push(question);
            }
        }
        if probe.is_done() && output.is_empty() {
            return Dialogue {
                asked,
                said,
                outcome: probe.outcome(),
            };
        }
        if !reply.is_empty() {
            probe.handle_input(&reply);
        } else if std::mem::replace(&mut deadline_passed, true) {
            probe.reach_end();
        } else {
            probe.reach_deadline();
        }
    }
}

/// As QEMU 7.2 answers, short of the target description.
fn qemu(question: &str) -> Option<&'static str> {
    Some(match question {
        SUPPORTED => "PacketSize=1000;vContSupported+;multiprocess+",
        "?" => "T05thread:01;",
        "D" | "D;1" => "OK",
        _ => "",
    })
}

/// As QEMU answers after any client has agreed to `multiprocess+`.
fn qemu_after_gdb(question: &str) -> Option<&'static str> {
    match question {
        "?" => Some("T05thread:p01.01;"),
        "D" => Some("E22"),
        other => qemu(other),
    }
}

fn run_on() -> ProbeOptions {
    ProbeOptions::default().leave(Leave::RunOn)
}

fn answers(outcome: &Outcome) -> bool {
    matches!(outcome.reachability, Reachability::Answers(_))
}

#[test]
fn a_guest_that_ran_is_let_go_if_it_is_to_run_on() {
    let dialogue = converse(&run_on(), &["T02thread:01;"], qemu);
    assert_eq!(dialogue.asked, [SUPPORTED, "?", "D"]);
    assert!(
        dialogue.said.ends_with(b"+$D#44+"),
        "one acknowledgment after D"
    );
    assert_eq!(dialogue.outcome.effect, GuestEffect::PausedThenResumed);

    let dialogue = converse(&ProbeOptions::default(), &["T02thread:01;"], qemu);
    assert_eq!(dialogue.asked, [SUPPORTED, "?"]);
    assert_eq!(dialogue.outcome.effect, GuestEffect::LeftPaused);
}

#[test]
fn what_the_guest_did_before_is_the_stubs_to_show_or_the_callers_to_say() {
    let check = |unasked: &[&str], said: Option<GuestState>, expected: GuestEffect| {
        let mut options = run_on();
        options.guest = said;
        let dialogue = converse(&options, unasked, qemu);
        assert_eq!(dialogue.outcome.effect, expected, "{unasked:?} {said:?}");
        let resumed = dialogue
            .asked
            .iter()
            .any(|question| question.starts_with('D'));
        assert_eq!(resumed, expected == GuestEffect::PausedThenResumed);
    };
    check(&[], None, GuestEffect::LeftStopped);
    check(&[], Some(GuestState::Stopped), GuestEffect::StillStopped);
    check(
        &[],
        Some(GuestState::Running),
        GuestEffect::PausedThenResumed,
    );
    check(&["T02thread:01;"], None, GuestEffect::PausedThenResumed);
    check(&["S02"], None, GuestEffect::PausedThenResumed);
    // It ran when we came, whatever it did when the caller asked.
    check(
        &["T02thread:01;"],
        Some(GuestState::Stopped),
        GuestEffect::PausedThenResumed,
    );
    // Console output and the end of a process are no sign of running.
    check(&["O41", "W00"], None, GuestEffect::LeftStopped);
}

#[test]
fn a_second_stop_reply_is_no_sign_that_the_guest_ran() {
    // A stub that answers `?` twice: the second answer arrives while the target description is
    // awaited.
    let mut probe = Timed::new(&run_on());
    let mut input = b"+".to_vec();
    for packet in [
        "qXfer:features:read+",
        "T05thread:01;",
        "T05thread:01;",
        "l<target/>",
    ] {
        encode(packet.as_bytes(), &mut input);
    }
    probe.handle_input(&input);
    assert!(probe.is_done());
    assert_eq!(probe.outcome().effect, GuestEffect::LeftStopped);
    assert!(!probe.output().windows(2).any(|pair| pair == b"$D"));
}

#[test]
fn the_form_of_detach_follows_the_thread_ids() {
    let dialogue = converse(&run_on(), &["T02thread:p01.01;"], qemu_after_gdb);
    assert_eq!(dialogue.asked, [SUPPORTED, "?", "D;1"]);
    assert_eq!(dialogue.outcome.effect, GuestEffect::PausedThenResumed);
    let dialogue = converse(&run_on(), &["T02thread:pa.1;"], |question| match question {
        "?" => Some("S05"),
        "D;a" => Some("OK"),
        other => qemu(other),
    });
    assert_eq!(dialogue.asked.last().unwrap(), "D;a");
}

#[test]
fn a_refused_detach_is_tried_once_in_the_other_form() {
    // Thread ids that do not show that a process must be named.
    let dialogue = converse(&run_on(), &["S02"], |question| match question {
        "?" => Some("S05"),
        other => qemu_after_gdb(other),
    });
    assert_eq!(dialogue.asked, [SUPPORTED, "?", "D", "D;1"]);
    assert_eq!(dialogue.outcome.effect, GuestEffect::PausedThenResumed);
    // Refused in both forms, and unknown altogether.
    for refusal in ["E01", ""] {
        let dialogue = converse(&run_on(), &["S02"], |question| match question {
            detach if detach.starts_with('D') => Some(refusal),
            other => qemu(other),
        });
        assert_eq!(
            dialogue.outcome.effect,
            GuestEffect::ResumeUnconfirmed,
            "'{refusal}'"
        );
        assert!(answers(&dialogue.outcome));
    }
}

#[test]
fn the_target_description_is_read_in_pieces_of_the_stubs_size() {
    let dialogue = converse(&ProbeOptions::default(), &[], |question| match question {
        SUPPORTED => Some("PacketSize=40;qXfer:features:read+"),
        "qXfer:features:read:target.xml:0,1c" => Some("m<architecture>ar"),
        "qXfer:features:read:target.xml:10,1c" => Some("mm</architecture>"),
        "qXfer:features:read:target.xml:20,1c" => Some("l<include href='a*b}.xml'/>"),
        "qXfer:features:read:a*b}.xml:0,1c" => {
            Some("l<feature name='x.core'><reg name='pc' bitsize='32'/></feature>")
        }
        other => qemu(other),
    });
    let Reachability::Answers(identity) = dialogue.outcome.reachability else {
        panic!()
    };
    let target = identity.target.unwrap();
    assert_eq!(target.architecture.as_deref(), Some("arm"));
    assert_eq!(target.core_registers().next().unwrap().name, "pc");
    assert_eq!(dialogue.asked.len(), 6);
}

#[test]
fn a_target_description_that_cannot_be_read_takes_nothing_from_the_answer() {
    for bad in ["", "E01", "m", "l<", "l<xi:include href='target.xml'/>"] {
        let dialogue = converse(&run_on(), &["T02thread:01;"], |question| match question {
            SUPPORTED => Some("qXfer:features:read+"),
            annex if annex.starts_with("qXfer") => Some(bad),
            other => qemu(other),
        });
        let Reachability::Answers(identity) = &dialogue.outcome.reachability else {
            panic!("{bad}")
        };
        assert_eq!(identity.target, None);
        assert_eq!(dialogue.outcome.effect, GuestEffect::PausedThenResumed);
    }
    // Not asked for.
    let dialogue = converse(
        &ProbeOptions::default().target(false),
        &[],
        |question| match question {
            SUPPORTED => Some("qXfer:features:read+"),
            other => qemu(other),
        },
    );
    assert_eq!(dialogue.asked, [SUPPORTED, "?"]);
}

#[test]
fn an_endless_target_description_ends() {
    let dialogue = converse(&ProbeOptions::default(), &[], |question| match question {
        SUPPORTED => Some("PacketSize=10000;qXfer:features:read+"),
        annex if annex.starts_with("qXfer") => Some(Box::leak(
            format!("m{}", " ".repeat(30_000)).into_boxed_str(),
        )),
        other => qemu(other),
    });
    assert!(answers(&dialogue.outcome));
    assert!(dialogue.asked.len() < 50);
}

#[test]
fn acknowledgments_end_where_the_stub_offers_it() {
    let dialogue = converse(&run_on(), &["T02thread:01;"], |question| match question {
        SUPPORTED => Some("QStartNoAckMode+"),
        "QStartNoAckMode" => Some("OK"),
        other => qemu(other),
    });
    assert_eq!(dialogue.asked, [SUPPORTED, "QStartNoAckMode", "?", "D"]);
    assert!(
        dialogue.said.ends_with(b"$QStartNoAckMode#b0+$?#3f$D#44"),
        "{}",
        dialogue.said.escape_ascii()
    );
    for refusal in ["", "E01"] {
        let dialogue = converse(&run_on(), &[], |question| match question {
            SUPPORTED => Some("QStartNoAckMode+"),
            "QStartNoAckMode" => Some(refusal),
            other => qemu(other),
        });
        assert!(dialogue.said.ends_with(b"+$?#3f+"));
        assert!(answers(&dialogue.outcome));
    }
}

#[test]
fn a_stub_that_knows_hardly_anything_is_a_stub() {
    for reply in ["", "E01"] {
        let reply: &'static str = reply;
        let dialogue = converse(&run_on(), &[], |_| Some(reply));
        assert_eq!(dialogue.asked, [SUPPORTED, "?"]);
        assert!(answers(&dialogue.outcome));
        assert_eq!(dialogue.outcome.effect, GuestEffect::LeftStopped);
    }
}

#[test]
fn silence_ends_at_the_deadline_and_a_guest_known_to_run_is_let_go() {
    let dialogue = converse(&run_on(), &[], |_| None);
    assert_eq!(
        dialogue.outcome.reachability,
        Reachability::Silent { accepted: None }
    );
    assert_eq!(dialogue.outcome.effect, GuestEffect::Unknown);
    assert_eq!(dialogue.asked, [SUPPORTED]);
    let dialogue = converse(&run_on().guest(GuestState::Running), &[], |_| None);
    assert_eq!(dialogue.asked, [SUPPORTED, "D;1"]);
    // It fell silent after the first answer.
    let dialogue = converse(&run_on(), &["T02thread:01;"], |question| {
        (question == SUPPORTED).then_some("x+")
    });
    assert!(answers(&dialogue.outcome));
    assert_eq!(dialogue.outcome.effect, GuestEffect::ResumeUnconfirmed);
    assert_eq!(dialogue.asked, [SUPPORTED, "?", "D"]);
}

/// What talks is not called silent; since it may be a stub in the middle of its answer, a guest
/// known to run is let go.
#[test]
fn what_talks_without_an_answer_until_the_deadline_is_no_stub_that_works() {
    for input in [
        &b"$"[..],
        b"+$PacketSize=10",
        b"$PacketSize=1000#1",
        b"+$hello#14",
        b"%hello#14",
        &[&b"$"[..], &[b'a'; 200_000]].concat(),
    ] {
        let cut_off = |options: &ProbeOptions| {
            let mut probe = Timed::new(options);
            probe.handle_input(input);
            assert!(!probe.is_done() && probe.has_input());
            probe.advance_output(usize::MAX);
            probe.reach_deadline();
            let said = probe.output().to_vec();
            (said, probe.outcome())
        };
        let (said, outcome) = cut_off(&run_on());
        assert_eq!(said, b"");
        assert_eq!(
            outcome.reachability,
            Reachability::NotAGdbStub(WrongAnswer::BrokenPackets)
        );
        assert_eq!(outcome.effect, GuestEffect::Unknown);
        let (said, outcome) = cut_off(&run_on().guest(GuestState::Running));
        assert_eq!(said, b"$D;1#b0");
        assert_eq!(outcome.effect, GuestEffect::Unknown);
    }
    // A stop reply is a stub's.
    let dialogue = converse(&run_on(), &["T02thread:01;", "O41"], |_| None);
    assert_eq!(
        dialogue.outcome.reachability,
        Reachability::Silent { accepted: None }
    );
    assert_eq!(dialogue.outcome.effect, GuestEffect::ResumeUnconfirmed);
}

#[test]
fn a_leaving_that_has_begun_goes_on_past_the_deadline() {
    let mut probe = Timed::new(&run_on());
    probe.handle_input(b"$T02thread:01;#04+$#00+$#00");
    assert!(probe.output().ends_with(b"$D#44"));
    probe.reach_deadline();
    assert!(!probe.is_done());
    probe.handle_input(b"+$OK#9a");
    assert!(probe.is_done());
    assert_eq!(probe.outcome().effect, GuestEffect::PausedThenResumed);
}

#[test]
fn a_flood_of_anything_else_ends_the_probe_before_the_deadline() {
    let mut probe = Timed::new(&run_on());
    probe.handle_input(&[b'x'; 255]);
    assert!(!probe.is_done());
    probe.handle_input(b"x");
    assert!(probe.is_done());
}

#[test]
fn the_nudge_comes_once_and_only_in_silence() {
    let mut probe = Timed::new(&run_on());
    probe.advance_output(usize::MAX);
    probe.reach_silence();
    assert_eq!(probe.output(), b"\r\n\r\n");
    probe.advance_output(usize::MAX);
    probe.reach_silence();
    assert_eq!(probe.output(), b"");
    let mut probe = Timed::new(&run_on());
    probe.advance_output(usize::MAX);
    probe.handle_input(b"+");
    probe.reach_silence();
    assert_eq!(probe.output(), b"");
}

#[test]
fn the_detach_packet_is_for_a_guest_that_ran_and_said_once() {
    let detach_packet = |options: &ProbeOptions, input: &[u8]| {
        let mut probe = Timed::new(options);
        probe.handle_input(input);
        probe.detach_packet()
    };
    assert_eq!(
        detach_packet(&run_on().guest(GuestState::Running), b""),
        b"$D;1#b0"
    );
    assert_eq!(detach_packet(&run_on(), b"$T02thread:01;#04"), b"$D;1#b0");
    assert_eq!(detach_packet(&run_on(), b""), b"");
    assert_eq!(
        detach_packet(&run_on().guest(GuestState::Stopped), b""),
        b""
    );
    assert_eq!(
        detach_packet(&ProbeOptions::default().guest(GuestState::Running), b""),
        b""
    );
    assert_eq!(
        detach_packet(&run_on(), b"$T02thread:01;#04+$#00+$#00"),
        b"",
        "D is on its way"
    );
}
