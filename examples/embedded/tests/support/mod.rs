//! What the tests share: `log` prints by semihosting.

use cortex_m_rt as _;
use cortex_m_semihosting::hprintln;

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        hprintln!("{}", record.args());
    }

    fn flush(&self) {}
}

pub fn log_by_semihosting() {
    static LOGGER: Logger = Logger;
    // It fails where there is one already, which does as well.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Warn);
}
