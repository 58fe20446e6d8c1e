//! What differs by board and cannot be asked of QEMU without a start; of QEMU 7.2 to 10.0, but for
//! what is said to be newer.

/// A board, by the name that `-machine` takes.
pub(crate) struct Board {
    name: &'static str,
    /// The Cortex-M that it has where no CPU is named.
    pub(crate) cortex_m: Option<&'static str>,
    /// Where that finds its vector table at reset: one address, and others that show the same
    /// memory. With TrustZone it is QEMU's `init-svtor`, and the first of them.
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
const STM32: &[u64] = &[0, FLASH];

/// Memory that the secure state sees at an address of its own.
const SECURE: &[u64] = &[0x1000_0000, 0];

const BOARDS: &[Board] = &[
    cortex_m("ast1030-evb", "cortex-m4", &[0]),
    // Since QEMU 9.0.
    cortex_m("b-l475e-iot01a", "cortex-m4", STM32),
    cortex_m("emcraft-sf2", "cortex-m3", &[0, 0x6000_0000]),
    cortex_m("lm3s6965evb", "cortex-m3", &[0]),
    cortex_m("lm3s811evb", "cortex-m3", &[0]),
    cortex_m("microbit", "cortex-m0", &[0]),
    cortex_m("mps2-an385", "cortex-m3", &[0]),
    cortex_m("mps2-an386", "cortex-m4", &[0]),
    cortex_m("mps2-an500", "cortex-m7", &[0]),
    cortex_m("mps2-an505", "cortex-m33", SECURE),
    cortex_m("mps2-an511", "cortex-m3", &[0]),
    cortex_m("mps2-an521", "cortex-m33", SECURE),
    cortex_m("mps3-an524", "cortex-m33", SECURE),
    cortex_m("mps3-an547", "cortex-m55", &[0, 0x1000_0000]),
    cortex_m("musca-a", "cortex-m33", &[0x1020_0000, 0x20_0000]),
    cortex_m("musca-b1", "cortex-m33", SECURE),
    cortex_m("netduino2", "cortex-m3", STM32),
    cortex_m("netduinoplus2", "cortex-m4", STM32),
    // Since QEMU 8.0.
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

/// A machine that a firmware may fit, and the memory that it has without options.
pub(crate) struct Machine {
    pub(crate) target: &'static str,
    pub(crate) name: &'static str,
    /// The CPU, where the machine's own would not do.
    pub(crate) cpu: Option<&'static str>,
    /// From where to where.
    pub(crate) memory: &'static [(u64, u64)],
}

const fn machine(
    target: &'static str,
    name: &'static str,
    memory: &'static [(u64, u64)],
) -> Machine {
    Machine {
        target,
        name,
        cpu: None,
        memory,
    }
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// Where a Cortex-M has its memory.
const RAM: u64 = 0x2000_0000;
/// Where an STM32 has its flash.
const FLASH: u64 = 0x0800_0000;

/// The likeliest first.
pub(crate) const MACHINES: &[Machine] = &[
    machine("arm", "lm3s6965evb", &[(0, 256 * K), (RAM, RAM + 64 * K)]),
    machine("arm", "mps2-an385", &[(0, 4 * M), (RAM, RAM + 4 * M)]),
    machine("arm", "mps2-an386", &[(0, 4 * M), (RAM, RAM + 4 * M)]),
    machine("arm", "mps2-an500", &[(0, 4 * M), (RAM, RAM + 4 * M)]),
    machine("arm", "microbit", &[(0, 256 * K), (RAM, RAM + 16 * K)]),
    machine(
        "arm",
        "stm32vldiscovery",
        &[(FLASH, FLASH + 128 * K), (RAM, RAM + 8 * K)],
    ),
    machine(
        "arm",
        "netduino2",
        &[(FLASH, FLASH + M), (RAM, RAM + 128 * K)],
    ),
    machine(
        "arm",
        "netduinoplus2",
        &[(FLASH, FLASH + M), (RAM, RAM + 128 * K)],
    ),
    machine(
        "arm",
        "mps2-an505",
        &[
            (0x1000_0000, 0x1000_0000 + 4 * M),
            (0x3000_0000, 0x3000_0000 + 32 * K),
            (0x3800_0000, 0x3800_0000 + 4 * M),
            (0x8000_0000, 0x8000_0000 + 16 * M),
        ],
    ),
    machine(
        "arm",
        "mps3-an547",
        &[
            (0x1000_0000, 0x1000_0000 + 512 * K),
            (0x1100_0000, 0x1100_0000 + 2 * M),
            (0x3000_0000, 0x3000_0000 + 512 * K),
            (0x3100_0000, 0x3100_0000 + 4 * M),
        ],
    ),
    machine("arm", "virt", &[(0x4000_0000, 0x4800_0000)]),
    machine("arm", "vexpress-a9", &[(0x6000_0000, 0x6800_0000)]),
    machine("arm", "vexpress-a15", &[(0x8000_0000, 0x8800_0000)]),
    machine("arm", "versatilepb", &[(0, 128 * M)]),
    machine("arm", "raspi2b", &[(0, 960 * M)]),
    Machine {
        cpu: Some("cortex-a57"),
        ..machine("aarch64", "virt", &[(0x4000_0000, 0x4800_0000)])
    },
    machine("aarch64", "raspi3b", &[(0, 960 * M)]),
    machine("riscv32", "virt", &[(0x8000_0000, 0x8800_0000)]),
    machine(
        "riscv32",
        "sifive_e",
        &[
            (0x2000_0000, 0x4000_0000),
            (0x8000_0000, 0x8000_0000 + 16 * K),
        ],
    ),
    machine("riscv64", "virt", &[(0x8000_0000, 0x8800_0000)]),
    machine("avr", "uno", &[(0, 32 * K), (0x80_0100, 0x80_0900)]),
    machine(
        "avr",
        "arduino-mega-2560-v3",
        &[(0, 256 * K), (0x80_0200, 0x80_2200)],
    ),
    machine(
        "m68k",
        "mcf5208evb",
        &[(0x4000_0000, 0x4800_0000), (0x8000_0000, 0x8000_4000)],
    ),
    machine("m68k", "virt", &[(0, 128 * M)]),
    machine(
        "mips",
        "malta",
        &[
            (0x8000_0000, 0x8800_0000),
            (0xffff_ffff_8000_0000, 0xffff_ffff_8800_0000),
        ],
    ),
    machine(
        "mipsel",
        "malta",
        &[
            (0x8000_0000, 0x8800_0000),
            (0xffff_ffff_8000_0000, 0xffff_ffff_8800_0000),
        ],
    ),
    machine("or1k", "or1k-sim", &[(0, 128 * M)]),
    machine(
        "microblaze",
        "petalogix-s3adsp1800",
        &[(0x9000_0000, 0x9800_0000)],
    ),
    machine("sh4", "r2d", &[(0x8c00_0000, 0x9000_0000)]),
];
