//! Images, tested where they are used: each test by itself on a machine that has just booted.
#![no_std]
#![no_main]

mod support;

#[embedded_test::setup]
fn set_up() {
    support::log_by_semihosting();
}

#[embedded_test::tests(default_timeout = 10)]
mod tests {
    use cortex_m::peripheral::SYST;
    use embedded_example::{Error, verify};

    struct Board {
        clock: SYST,
    }

    /// Runs before each test, which gets what it returns.
    #[init]
    fn init() -> Board {
        let peripherals = cortex_m::Peripherals::take().expect("each test has the board to itself");
        Board {
            clock: peripherals.SYST,
        }
    }

    #[test]
    fn an_image_is_accepted() -> Result<(), Error> {
        assert_eq!(verify(b"abcde\xf0\xc8")?, b"abcde");
        Ok(())
    }

    #[test]
    fn a_damaged_one_is_not() {
        assert_eq!(verify(b"abcdf\xf0\xc8"), Err(Error::Damaged));
        assert_eq!(verify(b"a"), Err(Error::TooShort));
    }

    #[test]
    fn the_clock_does_not_run_yet(board: Board) {
        let mut clock = board.clock;
        assert!(!clock.has_wrapped());
    }

    #[test]
    #[should_panic]
    fn an_index_out_of_bounds_panics() {
        let image = core::hint::black_box([1_u8, 2]);
        let _ = core::hint::black_box(image[core::hint::black_box(2)]);
    }
}
