//! Tests that fail, each in another way: `cargo test --features failing-test` fails with them.
#![no_std]
#![no_main]

mod support;

#[embedded_test::setup]
fn set_up() {
    support::log_by_semihosting();
}

#[embedded_test::tests(default_timeout = 1)]
mod tests {
    #[test]
    fn an_assertion() {
        let two = core::hint::black_box(2);
        assert_eq!(two + two, 5, "two and two is not five");
    }

    #[test]
    fn an_endless_loop() {
        loop {
            cortex_m::asm::nop();
        }
    }

    #[test]
    fn a_reset() {
        cortex_m::peripheral::SCB::sys_reset();
    }
}
