//! Says hello and ends with status 0.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use panic_semihosting as _;

#[entry]
fn main() -> ! {
    hprintln!("hello from a Cortex-M3");
    hprintln!(
        "checksum of abcde: {:#06x}",
        embedded_example::checksum(b"abcde")
    );
    debug::exit(debug::EXIT_SUCCESS);
    loop {
        cortex_m::asm::wfi();
    }
}
