//! Something done right before a certain command is sent: the session's transcript has each one at
//! that moment.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A transcript that shows each command to somebody, right before it is sent.
pub(crate) struct BeforeEach<F>(pub(crate) F);

impl<F: FnMut(&str)> Write for BeforeEach<F> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        if text.contains("\"execute\"") {
            (self.0)(&text);
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does something at the command of a certain number, counted from the moment in which it is set.
#[derive(Clone, Default)]
pub(crate) struct Trap(Arc<Mutex<Set>>);

#[derive(Default)]
struct Set {
    at: Option<(usize, Box<dyn FnOnce() + Send>)>,
    /// The names of the commands since.
    told: Vec<String>,
    sprung: bool,
}

impl Trap {
    /// The first command from now on has the number 0.
    pub(crate) fn set(&self, number: usize, action: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Set {
            at: Some((number, Box::new(action))),
            ..Set::default()
        };
    }

    /// Forgets the commands until now, and does nothing at those that come.
    pub(crate) fn listen(&self) {
        self.set(usize::MAX, || ());
    }

    /// The names of the commands since.
    pub(crate) fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().told.clone()
    }

    /// The command at which it did what it is set for, with the names of all that came before.
    pub(crate) fn sprung(&self) -> Option<Vec<String>> {
        let set = self.0.lock().unwrap();
        set.sprung.then(|| set.told.clone())
    }

    /// What sees the commands.
    pub(crate) fn transcript(&self) -> impl Write + Send + use<> {
        let trap = Arc::clone(&self.0);
        BeforeEach(move |command: &str| trap.lock().unwrap().tell(command))
    }
}

impl Set {
    fn tell(&mut self, command: &str) {
        if self.sprung || self.at.is_none() {
            return;
        }
        let name = command
            .split("\"execute\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let name = name.unwrap();
        // How often it is asked whether a migration is over is chance: that counts as one.
        if name == "query-migrate" && self.told.last().is_some_and(|last| last == name) {
            return;
        }
        self.told.push(name.to_owned());
        if let Some((_, action)) = self.at.take_if(|(number, _)| self.told.len() > *number) {
            action();
            self.sprung = true;
        }
    }
}
