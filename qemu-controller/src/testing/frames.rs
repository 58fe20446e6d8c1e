//! defmt's frames among what tests print, made into lines.

#[cfg(feature = "defmt")]
use std::sync::Arc;

#[cfg(feature = "defmt")]
use crate::defmt::{Decoded, Decoder, Filter, without_colours};

/// By which way defmt's frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameSource {
    /// An RTT channel: the one called `defmt`, else 0.
    Rtt,
    /// The semihosting console.
    Semihosting,
    /// The first serial port.
    Serial,
}

/// What decodes the frames of a run's tests, if anything does.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    #[cfg(feature = "defmt")]
    of_run: Option<(FrameSource, Arc<Decoder>, Filter)>,
}

/// The same, of one test: a frame may come in pieces.
#[derive(Debug, Default)]
pub(super) struct TestFrames {
    #[cfg(feature = "defmt")]
    of_test: Option<(FrameSource, Decoder, Filter)>,
}

#[cfg(feature = "defmt")]
impl Frames {
    pub(super) fn new(source: FrameSource, decoder: Decoder, filter: Filter) -> Self {
        Self {
            of_run: Some((source, Arc::new(decoder), filter)),
        }
    }

    pub(super) fn of_test(&self) -> TestFrames {
        let of_run = self.of_run.as_ref();
        let of_test =
            of_run.map(|(source, decoder, filter)| (*source, decoder.for_stream(), filter.clone()));
        TestFrames { of_test }
    }
}

#[cfg(feature = "defmt")]
impl TestFrames {
    /// What these bytes are as text, if they come by the way of the frames.
    pub(super) fn text(&mut self, from: FrameSource, bytes: &[u8]) -> Option<String> {
        let (_, decoder, filter) = self.of_test.as_mut().filter(|of_test| of_test.0 == from)?;
        let decoded = decoder.push(bytes);
        Some(
            decoded
                .iter()
                .map(|decoded| line(decoded, filter))
                .collect(),
        )
    }

    /// What is left, once nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        let of_test = self.of_test.as_mut();
        let rest = of_test.and_then(|(_, decoder, filter)| Some(line(&decoder.finish()?, filter)));
        rest.unwrap_or_default()
    }
}

#[cfg(feature = "defmt")]
fn line(decoded: &Decoded, filter: &Filter) -> String {
    match decoded {
        Decoded::Line(line) => {
            let module = line.location.as_ref().map(|location| &*location.module);
            match filter.takes(line.level, module) {
                true => with_modules(without_colours(&line.text), module) + "\n",
                false => String::new(),
            }
        }
        other => format!("[{other}]\n"),
    }
}

/// The function of `defmt-test` that runs a module's tests.
#[cfg(feature = "defmt")]
const ENTRY: &str = "::__defmt_test_entry";

/// A line in which `defmt-test` names a test, with the test's modules before its name: an editor's
/// button asks for it by these.
#[cfg(feature = "defmt")]
fn with_modules(text: String, module: Option<&str>) -> String {
    let path = module.and_then(|module| module.strip_suffix(ENTRY));
    let modules = path.and_then(|path| Some(path.split_once("::")?.1));
    match (modules, text.rsplit_once(" `")) {
        (Some(modules), Some((before, name))) => format!("{before} `{modules}::{name}"),
        _ => text,
    }
}

#[cfg(not(feature = "defmt"))]
impl Frames {
    pub(super) fn of_test(&self) -> TestFrames {
        TestFrames::default()
    }
}

#[cfg(not(feature = "defmt"))]
impl TestFrames {
    pub(super) fn text(&mut self, _: FrameSource, _: &[u8]) -> Option<String> {
        None
    }

    pub(super) fn finish(&mut self) -> String {
        String::new()
    }
}
