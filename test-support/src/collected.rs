//! What a session traces, as lines of text: `LEVEL span{fields}:span{fields}: message fields`.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Collects while the guard lives, on this thread.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Trace>>);

#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    /// Name with fields and parent; an id is the place here, from one on.
    spans: Vec<(&'static str, String, Option<u64>)>,
    entered: Vec<u64>,
}

impl Collected {
    /// Collects from now on, on this thread, until the guard is dropped.
    pub fn begin() -> (Self, DefaultGuard) {
        // While there is but one, `tracing` takes the word of whichever thread comes by a span or
        // event first for all threads, and those of other tests have no subscriber.
        static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Collected::default()));
        LazyLock::force(&ANOTHER);
        let collected = Self::default();
        (
            collected.clone(),
            tracing::subscriber::set_default(collected),
        )
    }

    /// The one line that has all of this in it.
    #[track_caller]
    pub fn line_with(&self, parts: &[&str]) -> String {
        let all = self.0.lock().unwrap().lines.clone();
        let mut found = all
            .iter()
            .filter(|line| parts.iter().all(|part| line.contains(part)));
        match (found.next(), found.next()) {
            (Some(line), None) => line.clone(),
            _ => panic!("not one line with {parts:?} in:\n{}", all.join("\n")),
        }
    }
}

impl Subscriber for Collected {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("qemu_controller")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = String::new();
        span.record(&mut Fields(&mut fields));
        let mut trace = self.0.lock().unwrap();
        let parent = span
            .parent()
            .map(Id::into_u64)
            .or_else(|| trace.entered.last().copied());
        trace.spans.push((span.metadata().name(), fields, parent));
        Id::from_u64(trace.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut trace = self.0.lock().unwrap();
        values.record(&mut Fields(
            &mut trace.spans[span.into_u64() as usize - 1].1,
        ));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = String::new();
        event.record(&mut Fields(&mut fields));
        let mut trace = self.0.lock().unwrap();
        let mut span = event
            .parent()
            .map(Id::into_u64)
            .or_else(|| trace.entered.last().copied());
        let mut path = String::new();
        while let Some(id) = span {
            let (name, fields, parent) = &trace.spans[id as usize - 1];
            path.insert_str(0, &format!("{name}{{{}}}:", fields.trim_end()));
            span = *parent;
        }
        trace.lines.push(format!(
            "{} {path} {}",
            event.metadata().level(),
            fields.trim_end()
        ));
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop(), Some(span.into_u64()));
    }
}

/// `name=value `, and the message as it is.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?} ")),
            name => write!(self.0, "{name}={value:?} ").unwrap(),
        }
    }
}
