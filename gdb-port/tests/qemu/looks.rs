//! Looks: they see what is there, and no guest notices.

use gdb_port::{Look, Reachability, look};

use crate::client::Client;
use crate::machine::{GUESTS, Guest, Machine, STUBS, eventually};

#[test]
fn a_look_tells_free_held_free_again_and_gone() {
    for stub in STUBS {
        let mut machine = Machine::start(stub, Guest::Running);
        let endpoint = machine.endpoint.clone();
        let seen = || look(&endpoint, None).reachability();
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
        let own = look(&machine.endpoint, Some(machine.pid()));
        assert_eq!(own.reachability(), Reachability::Listens, "{stub:?}");
        let other = look(&machine.endpoint, Some(std::process::id()));
        assert_eq!(
            other,
            Look::OtherProcess {
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
        let waiting = Client::connect(&machine.endpoint);
        let Look::Present(listener) = look(&machine.endpoint, None) else {
            panic!("{stub:?}")
        };
        assert_eq!((listener.attached, listener.queued), (1, 1), "{stub:?}");
        // The trap stays set when its client has gone.
        drop(waiting);
        let Look::Present(listener) = look(&machine.endpoint, None) else {
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
                    look(&machine.endpoint, Some(machine.pid())).reachability(),
                    Reachability::Listens
                );
            }
            machine.assert_is(guest);
            assert!(!machine.chardev().attached);
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
                look(&machine.endpoint, None).reachability(),
                Reachability::HeldByAnotherClient
            );
        }
        client.detach();
        machine.await_attached(false);
        machine.assert_is(Guest::Running);
    }
}
