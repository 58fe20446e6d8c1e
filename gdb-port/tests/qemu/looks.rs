//! Looks: they see what is there, and no guest notices.

use gdb_port::{ListenState, Reachability, inspect};

use crate::client::{Client, address};
use test_support::eventually;
use test_support::machine::{GUESTS, Guest, Machine, STUBS};

#[test]
fn a_look_tells_free_held_free_again_and_gone() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let endpoint = address(&machine);
        let seen = || inspect(&endpoint, None).reachability();
        assert_eq!(seen(), Reachability::Listens, "{stub:?}");
        let client = Client::attach(&mut machine);
        assert_eq!(seen(), Reachability::HeldByAnotherClient, "{stub:?}");
        client.detach();
        eventually("free again", || seen() == Reachability::Listens);
        machine.kill();
        assert_eq!(seen(), Reachability::NobodyListens, "{stub:?}");
    }
}

#[test]
fn a_look_tells_whose_the_listener_is() {
    for stub in STUBS {
        let machine = Machine::start(stub, Guest::Running);
        let own = inspect(&address(&machine), Some(machine.pid()));
        assert_eq!(own.reachability(), Reachability::Listens, "{stub:?}");
        let other = inspect(&address(&machine), Some(std::process::id()));
        assert_eq!(
            other,
            ListenState::OtherProcess {
                pid: Some(machine.pid())
            },
            "{stub:?}"
        );
    }
}

#[test]
fn a_look_counts_the_clients_that_wait_behind_one_that_is_attached() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Prelaunch);
        let client = Client::attach(&mut machine);
        let waiting = Client::connect(&address(&machine));
        let ListenState::Present(listener) = inspect(&address(&machine), None) else {
            panic!("{stub:?}")
        };
        assert_eq!((listener.attached, listener.queued), (1, 1), "{stub:?}");
        // The trap stays set when its client has gone.
        drop(waiting);
        let ListenState::Present(listener) = inspect(&address(&machine), None) else {
            panic!("{stub:?}")
        };
        assert_eq!((listener.attached, listener.queued), (1, 1), "{stub:?}");
        drop(client);
    }
}

#[test]
fn two_hundred_looks_leave_the_guest_as_it_was() {
    for stub in STUBS {
        for guest in GUESTS {
            let mut machine = Machine::start(stub, guest);
            for _ in 0..200 {
                assert_eq!(
                    inspect(&address(&machine), Some(machine.pid())).reachability(),
                    Reachability::Listens
                );
            }
            machine.assert_is(guest);
            assert!(!machine.is_attached());
        }
    }
}

#[test]
fn two_hundred_looks_while_a_client_is_attached_set_no_trap() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let client = Client::attach(&mut machine);
        for _ in 0..200 {
            assert_eq!(
                inspect(&address(&machine), None).reachability(),
                Reachability::HeldByAnotherClient
            );
        }
        client.detach();
        machine.await_attached(false);
        machine.assert_is(Guest::Running);
    }
}
