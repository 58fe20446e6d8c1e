//! What differs by board and cannot be asked of QEMU without a start; of QEMU 7.2 to 10.0.

/// A board, by the name that `-machine` takes.
pub(crate) struct Board {
    name: &'static str,
    /// The Cortex-M that it has where no CPU is named.
    pub(crate) cortex_m: Option<&'static str>,
    /// Where that finds its vector table at reset: one address, and others that show the same
    /// memory. None where that is not known, or depends on the security state.
    pub(crate) vectors: &'static [u64],
    /// The driver of its sound: QEMU 10.0 wants to be told where that goes ("no default audio
    /// driver available").
    pub(crate) sound: Option<&'static str>,
}

/// What is known of a board.
pub(crate) fn known(name: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| board.name == name)
}

const fn cortex_m(name: &'static str, cpu: &'static str, vectors: &'static [u64]) -> Board {
    Board {
        name,
        cortex_m: Some(cpu),
        vectors,
        sound: None,
    }
}

const fn sounding(name: &'static str, driver: &'static str) -> Board {
    Board {
        name,
        cortex_m: None,
        vectors: &[],
        sound: Some(driver),
    }
}

/// An STM32's flash, which it shows at 0 as well.
const STM32: &[u64] = &[0, 0x0800_0000];

const BOARDS: &[Board] = &[
    cortex_m("ast1030-evb", "cortex-m4", &[0]),
    cortex_m("b-l475e-iot01a", "cortex-m4", STM32),
    cortex_m("emcraft-sf2", "cortex-m3", &[0, 0x6000_0000]),
    cortex_m("lm3s6965evb", "cortex-m3", &[0]),
    cortex_m("lm3s811evb", "cortex-m3", &[0]),
    cortex_m("microbit", "cortex-m0", &[0]),
    cortex_m("mps2-an385", "cortex-m3", &[0]),
    cortex_m("mps2-an386", "cortex-m4", &[0]),
    cortex_m("mps2-an500", "cortex-m7", &[0]),
    cortex_m("mps2-an505", "cortex-m33", &[]),
    cortex_m("mps2-an511", "cortex-m3", &[0]),
    cortex_m("mps2-an521", "cortex-m33", &[]),
    cortex_m("mps3-an524", "cortex-m33", &[]),
    cortex_m("mps3-an547", "cortex-m55", &[]),
    cortex_m("musca-a", "cortex-m33", &[]),
    cortex_m("musca-b1", "cortex-m33", &[]),
    cortex_m("netduino2", "cortex-m3", STM32),
    cortex_m("netduinoplus2", "cortex-m4", STM32),
    cortex_m("olimex-stm32-h405", "cortex-m4", STM32),
    cortex_m("stm32vldiscovery", "cortex-m3", STM32),
    sounding("integratorcp", "pl041"),
    sounding("realview-eb", "pl041"),
    sounding("realview-eb-mpcore", "pl041"),
    sounding("realview-pb-a8", "pl041"),
    sounding("realview-pbx-a9", "pl041"),
    sounding("versatileab", "pl041"),
    sounding("versatilepb", "pl041"),
    sounding("vexpress-a15", "pl041"),
    sounding("vexpress-a9", "pl041"),
    sounding("musicpal", "wm8750"),
    sounding("q800", "apple-sound-chip"),
];
