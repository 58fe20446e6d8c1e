//! The machine that `debug` has at present: what its server knows of it, and how the server has it
//! replaced.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use qemu_controller::Session;
use qemu_controller::gdb_port::StubAddress;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::input::Stdin;

/// How long after its stub a machine may take to end.
const END: Duration = Duration::from_secs(2);

/// A machine that holds its firmware at the reset, or that debuggers have had since.
#[derive(Clone)]
pub(crate) struct HeldMachine {
    pub(super) number: u64,
    pub(crate) session: Session,
    /// Where the session lets a debugger in: a socket that nobody else can reach.
    pub(crate) socket: PathBuf,
    /// The firmware's file, as it was when the machine was started.
    file: Stamp,
}

/// What there is of a machine.
#[derive(Clone)]
enum SlotState {
    Starting,
    Up(HeldMachine),
    /// It could not be started: why.
    Down(u64, String),
}

/// What is to become of the machines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// Machines up to this number are to be replaced.
    Replace(u64),
    /// There is to be none any more.
    Quit,
}

/// Where one machine after another says that it is there, and learns that it is to go.
pub(crate) struct Slot {
    number: u64,
    file: Stamp,
    firmware: PathBuf,
    state: watch::Sender<SlotState>,
    orders: watch::Receiver<Order>,
    stdin: Stdin,
}

impl Slot {
    /// A slot, and the server's side of it.
    pub(super) fn new(firmware: &Path, stdin: Stdin) -> (Self, HeldMachines) {
        let (orders, receiver) = watch::channel(Order::Replace(0));
        let (state, seen) = watch::channel(SlotState::Starting);
        let slot = Self {
            number: 0,
            file: Stamp::of(firmware),
            firmware: firmware.to_owned(),
            state,
            orders: receiver,
            stdin,
        };
        let machines = HeldMachines {
            state: seen,
            orders,
            firmware: firmware.to_owned(),
            replaced: Cell::new(0),
        };
        (slot, machines)
    }

    pub(crate) fn stdin(&self) -> Stdin {
        self.stdin.clone()
    }

    /// The next machine is about to be started.
    pub(super) fn next(&mut self) {
        self.number += 1;
        // Looked at before QEMU reads it: one that is written meanwhile counts as changed.
        self.file = Stamp::of(&self.firmware);
        self.state.send_replace(SlotState::Starting);
    }

    /// A debugger can have the machine from now on.
    pub(crate) fn is_up(&self, session: &Session, address: &StubAddress) {
        if let StubAddress::Unix(socket) = address {
            self.state.send_replace(SlotState::Up(HeldMachine {
                number: self.number,
                session: session.clone(),
                socket: socket.clone(),
                file: self.file.clone(),
            }));
        }
    }

    /// No machine could be started; returns when one is wanted again.
    pub(super) async fn is_down(&self, why: String) {
        self.state.send_replace(SlotState::Down(self.number, why));
        self.replaced().await;
    }

    /// Waits until this machine is to make room for another one, or for none.
    pub(crate) async fn replaced(&self) {
        let mut orders = self.orders.clone();
        let is_for_us = |order: &Order| match order {
            Order::Replace(number) => *number >= self.number,
            Order::Quit => true,
        };
        // Without a server there is nobody to order it.
        if orders.wait_for(is_for_us).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is to be no machine any more.
    pub(super) fn quits(&self) -> bool {
        *self.orders.borrow() == Order::Quit
    }
}

/// The server's side.
pub(super) struct HeldMachines {
    state: watch::Receiver<SlotState>,
    orders: watch::Sender<Order>,
    firmware: PathBuf,
    /// Those up to this number are as good as gone.
    replaced: Cell<u64>,
}

impl HeldMachines {
    /// The machine that runs the firmware's file as it is now: another one where that was written
    /// since.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn current(&self) -> Result<HeldMachine, String> {
        let mut state = self.state.clone();
        // What failed before is tried again.
        if let SlotState::Down(number, _) = *state.borrow() {
            self.replace(number);
        }
        loop {
            let seen = state.borrow_and_update().clone();
            match seen {
                SlotState::Up(machine) if machine.number <= self.replaced.get() => {
                    // Its end is on its way, with the verdict.
                    if timeout(END, state.changed()).await.is_err() {
                        self.replace(machine.number);
                    }
                    continue;
                }
                SlotState::Up(machine) if machine.file == Stamp::of(&self.firmware) => {
                    return Ok(machine);
                }
                SlotState::Up(machine) => self.replace(machine.number),
                SlotState::Down(number, why) if number > self.replaced.get() => return Err(why),
                SlotState::Down(..) | SlotState::Starting => {}
            }
            if state.changed().await.is_err() {
                return Err("qemu-controller ends".to_owned());
            }
        }
    }

    /// The machine of this number has ended.
    pub(super) fn has_ended(&self, number: u64) {
        self.replaced.set(self.replaced.get().max(number));
    }

    /// Has the machine of this number make room for another one.
    pub(super) fn replace(&self, number: u64) {
        self.has_ended(number);
        self.order(Order::Replace(number));
    }

    /// There is to be no machine any more.
    pub(super) fn quit(&self) {
        self.order(Order::Quit);
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|present| {
            let quits = *present == Order::Quit;
            if !quits {
                *present = order;
            }
            !quits
        });
    }
}

/// What tells that a file was written.
#[derive(Clone, Debug, PartialEq)]
struct Stamp(Option<(SystemTime, u64)>);

impl Stamp {
    fn of(file: &Path) -> Self {
        let metadata = std::fs::metadata(file).ok();
        Self(metadata.and_then(|file| Some((file.modified().ok()?, file.len()))))
    }
}
