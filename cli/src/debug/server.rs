//! The address where debuggers connect: one of them at a time.

use std::convert::Infallible;
use std::pin::Pin;

use qemu_controller::Endpoint;
use qemu_controller::debug::{DebuggerListener, Visitor};
use qemu_controller::gdb_port::StubAddress;
use serde_json::Value;

use super::relay;
use super::slot::HeldMachines;
use crate::debugger::{cannot_listen, program};
use crate::failure::Failure;
use crate::reporter::Reporter;

/// Lets debuggers in.
pub(super) struct Server<'a> {
    listener: DebuggerListener,
    machines: HeldMachines,
    reporter: &'a Reporter,
}

impl<'a> Server<'a> {
    /// Listens there, for these machines.
    pub(super) fn bind(
        at: &Endpoint,
        machines: HeldMachines,
        reporter: &'a Reporter,
    ) -> Result<Self, Failure> {
        let listener = DebuggerListener::bind(at).map_err(|error| cannot_listen(error, at))?;
        Ok(Self {
            listener,
            machines,
            reporter,
        })
    }

    /// Where a debugger finds it, as gdb takes it.
    pub(super) fn target(&self) -> String {
        match self.listener.address() {
            StubAddress::Unix(path) => path.display().to_string(),
            address => address.to_string(),
        }
    }

    /// Serves one debugger after another; `greeting` is said once the first machine is there.
    pub(super) async fn serve(self, greeting: Option<String>) -> Infallible {
        let Self {
            mut listener,
            machines,
            reporter,
        } = self;
        if let (Ok(_), Some(greeting)) = (machines.current().await, greeting) {
            say(reporter, &greeting);
        }
        let mut served: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
        loop {
            tokio::select! {
                visitor = listener.next() => match visitor {
                    Ok(visitor) if served.is_some() => {
                        let name = name(&visitor);
                        say(reporter, &format!("{name} was turned away: a debugger is here already"));
                        tokio::spawn(async { visitor.refuse("another debugger is here already").await });
                    }
                    Ok(visitor) => {
                        say(reporter, &format!("a debugger has come: {}", name(&visitor)));
                        served = Some(Box::pin(converse(visitor, &machines, reporter)));
                    }
                    Err(stranger) => say(reporter, &stranger.to_string()),
                },
                () = async {
                    match &mut served {
                        Some(served) => served.await,
                        None => std::future::pending().await,
                    }
                } => served = None,
            }
        }
    }
}

async fn converse(visitor: Visitor, machines: &HeldMachines, reporter: &Reporter) {
    match relay::converse(visitor, machines).await {
        // The machine says whether it runs on.
        Ok(true) => {}
        Ok(false) => say(reporter, "the debugger has left"),
        Err((visitor, why)) => {
            say(reporter, &format!("the debugger was turned away: {why}"));
            visitor.refuse(&why).await;
        }
    }
}

fn name(visitor: &Visitor) -> String {
    visitor.pid().map_or("a program".to_owned(), program)
}

fn say(reporter: &Reporter, words: &str) {
    // No file of JSON could be full.
    let _ = reporter.say(Some(words), &Value::Null);
}
