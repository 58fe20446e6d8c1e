//! On a real QEMU: the examples, and a connection with its negotiation, out-of-band commands,
//! events and end.
#![expect(clippy::unwrap_used, reason = "a test that meets an error is to fail")]

#[path = "../../examples/blocking.rs"]
#[expect(unreachable_pub, reason = "an example is a program of its own")]
mod blocking;
mod live;
#[path = "../../examples/tokio.rs"]
#[expect(unreachable_pub, reason = "an example is a program of its own")]
mod tokio_example;

#[test]
fn the_blocking_example_runs() {
    blocking::main().unwrap();
}

#[test]
fn the_tokio_example_runs() {
    tokio_example::main().unwrap();
}
