//! What a firmware's ELF tells: symbols, source lines, backtraces, values, fault words.
//!
//! ```
//! use firmware_info::{CortexMFaults, Firmware, Registers, cortex_m_fault};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/c/o2.elf");
//! let firmware = Firmware::open(path)?;
//! let main = firmware.symbol("main")?;
//! for frame in firmware.source_frames(main.address)? {
//!     println!("{frame}"); // main at /fixtures/c/main.c:110:16
//! }
//! println!("{}", firmware.symbol_at(main.address + 2).unwrap()); // main+0x2
//!
//! // Of a stopped core: its registers, and whatever reads its memory.
//! let mut memory = |address: u64, buffer: &mut [u8]| firmware.loaded(address, buffer);
//! let registers = Registers::arm([main.address as u32; 16]); // r0 to r15
//! println!("{}", firmware.backtrace(&registers, &mut memory)); // #0 0x0000020c in main at …
//! println!("{}", firmware.static_value("matrix", &mut memory).unwrap_or_default());
//!
//! let fault = cortex_m_fault(&CortexMFaults { cfsr: 1 << 25, ..CortexMFaults::default() });
//! assert_eq!(fault.to_string(), "UsageFault: a division by zero (DIVBYZERO)");
//! # Ok(()) }
//! ```
//!
//! It knows neither QEMU nor a runtime, and does no I/O but to read the file.
//!
//! | question | answer |
//! |---|---|
//! | what is at an address, where is a name | [`Firmware::symbol_at`], [`Firmware::symbol`] |
//! | which line, which inlined functions; which addresses has a line | [`Firmware::source_frames`], [`Firmware::line_addresses`], [`Firmware::function_at`] |
//! | which code has which line, which functions are there | [`Firmware::code_lines`], [`Firmware::source_functions`] |
//! | how did it come here | [`Firmware::backtrace`] |
//! | what is in a variable | [`Firmware::static_value`], [`Firmware::locals`] |
//! | which handlers, which stack | [`Firmware::vector_table`], [`Firmware::stack_bounds`], [`Firmware::sections`] |
//! | why did it fault | [`cortex_m_fault`], [`armv7_data_abort`], [`armv7_prefetch_abort`], [`armv8_exception`], [`riscv_trap`], [`mips_exception`], [`m68k_exception`], [`xtensa_exception`] |
//!
//! - **Lazy.** Opening reads the headers. The symbol table, the debug information and the call
//!   frame information are read by the first who asks, each unit of the debug information by the
//!   first who asks for an address in it. A [`Firmware`] is shared between threads by reference.
//! - **Bounded.** Any bytes end in an error or in an answer, in time and memory proportional to the
//!   file. What a hostile file could multiply, an honest one needs once, and that is the limit.
//! - **Texts are the file's.** Names and paths are as long as 8,192 bytes and may hold any
//!   character: escape them where they are shown.
//! - **Guesses are said to be ones** ([`Guess`]), and a backtrace that ends early says why
//!   ([`End`]).

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

#[cfg(feature = "dwarf")]
mod code_lines;
mod demangle;
#[cfg(feature = "dwarf")]
mod dwarf;
mod error;
mod fault;
mod headers;
mod image;
mod similar;
#[cfg(feature = "dwarf")]
mod source;
mod symbol;
mod symbols;
#[cfg(feature = "_testing")]
pub mod testing;
#[cfg(feature = "dwarf")]
mod unwind;
#[cfg(feature = "dwarf")]
mod values;
mod vectors;

#[cfg(feature = "dwarf")]
pub use code_lines::{CodeLine, SourceFunction};
pub use demangle::demangle;
pub use error::{DebugInfoError, NameError, OpenError};
pub use fault::{
    Cause, CortexMFaults, FaultReport, armv7_data_abort, armv7_prefetch_abort, armv8_exception,
    cortex_m_fault, m68k_exception, mips_exception, riscv_trap, xtensa_exception,
};
pub use image::{Architecture, Section, SectionData};
#[cfg(feature = "dwarf")]
pub use source::{FunctionRanges, LineAddresses, SourceFrame, SourceLocation};
pub use symbol::{Symbol, SymbolKind, SymbolOffset};
#[cfg(feature = "dwarf")]
pub use unwind::{Backtrace, End, ExceptionEntry, Frame, Guess, Memory, MemoryPieces, Registers};
#[cfg(feature = "dwarf")]
pub use values::{Local, ValueError};
pub use vectors::{StackBounds, Vector, VectorTable, exception_name};

#[cfg(feature = "dwarf")]
use dwarf::{Debug, LiveCode};
use image::Image;
use symbols::Symbols;
#[cfg(feature = "dwarf")]
use unwind::CallFrames;
#[cfg(feature = "dwarf")]
use values::Statics;

/// A firmware's ELF file.
pub struct Firmware {
    image: Image,
    symbols: OnceLock<Symbols>,
    #[cfg(feature = "dwarf")]
    debug: OnceLock<Result<Debug, DebugInfoError>>,
    #[cfg(feature = "dwarf")]
    call_frames: OnceLock<Result<CallFrames, DebugInfoError>>,
    vectors: OnceLock<Option<VectorTable>>,
    #[cfg(feature = "dwarf")]
    statics: OnceLock<Result<Statics, DebugInfoError>>,
}

impl Firmware {
    /// Opens an ELF file and reads its headers. The file stays open, so that it may be replaced by
    /// the next build meanwhile.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Ok(Self::new(Image::open(path.as_ref())?))
    }

    /// The same of a file that is open. Whoever else reads it by the same position gets in the way.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn from_file(file: File) -> Result<Self, OpenError> {
        Ok(Self::new(Image::of(file)?))
    }

    /// An ELF file that is in memory already.
    ///
    /// # Errors
    /// [`OpenError::NotElf`].
    pub fn parse(bytes: impl Into<std::sync::Arc<[u8]>>) -> Result<Self, OpenError> {
        Ok(Self::new(Image::parse(bytes.into())?))
    }

    /// A firmware whose file is not known, by its code as somebody has read it from the target's
    /// memory, each piece with its address, and by where the memory is that it may write. It has no
    /// names and no lines, and a caller is where the link register points.
    pub fn from_memory(
        architecture: Architecture,
        is_little_endian: bool,
        code: impl IntoIterator<Item = (u64, Vec<u8>)>,
        data: impl IntoIterator<Item = std::ops::Range<u64>>,
    ) -> Self {
        Self::new(Image::from_memory(
            architecture,
            is_little_endian,
            code,
            data,
        ))
    }

    fn new(image: Image) -> Self {
        Self {
            image,
            symbols: OnceLock::new(),
            #[cfg(feature = "dwarf")]
            debug: OnceLock::new(),
            #[cfg(feature = "dwarf")]
            call_frames: OnceLock::new(),
            vectors: OnceLock::new(),
            #[cfg(feature = "dwarf")]
            statics: OnceLock::new(),
        }
    }

    /// The instruction set it is for.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.image.architecture
    }

    /// Whether its words begin with their lowest byte.
    #[must_use]
    pub fn is_little_endian(&self) -> bool {
        self.image.little_endian
    }

    /// Its entry point, as the header has it.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.image.entry
    }

    /// Its sections, in the order of the file.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.image.sections
    }

    /// A section by its name, and its bytes, decompressed; one that is not loaded too. `None` where
    /// there is none, or it cannot be read.
    #[must_use]
    pub fn section_data(&self, name: &str) -> Option<SectionData> {
        let section = self.image.section(name)?;
        Some(SectionData {
            address: section.address,
            bytes: self.image.data(section).ok()?,
        })
    }

    /// The section at an address of the target's memory.
    #[must_use]
    pub fn section_at(&self, address: u64) -> Option<&Section> {
        self.image.section_at(address)
    }

    /// Fills the buffer with what the file loads to an address: code and constants, and what data
    /// begins as. False where it loads nothing there.
    #[must_use]
    pub fn loaded(&self, address: u64, buffer: &mut [u8]) -> bool {
        self.image.loaded(address, buffer)
    }

    /// The symbol that an address is in: one whose size covers it, or a label of code before it in
    /// the same section with nothing in between. `None` for an address that is nowhere. Of a Thumb
    /// function's address clear bit 0 first.
    #[must_use]
    pub fn symbol_at(&self, address: u64) -> Option<SymbolOffset> {
        self.all_symbols().at(&self.image, address)
    }

    /// The symbol of a name: as the compiler mangled it, as the source has it, or the end of a path
    /// (`module::NAME`) that only one has.
    ///
    /// # Errors
    /// No symbol has it, with those that are similar; or several have it at different addresses and
    /// none of them alone is global, or end with it.
    pub fn symbol(&self, name: &str) -> Result<Symbol, NameError> {
        self.all_symbols().named(&self.image, name)
    }

    /// The symbol that has this name in the file, as the compiler mangled it; of several the global
    /// one. `None` also where several could be meant.
    #[must_use]
    pub fn raw_symbol(&self, name: &str) -> Option<Symbol> {
        self.all_symbols().exact(&self.image, name)
    }

    /// All symbols, in the order of their addresses.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        self.all_symbols().iter(&self.image)
    }

    pub(crate) fn all_symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| Symbols::read(&self.image))
    }

    #[cfg(feature = "dwarf")]
    pub(crate) fn debug(&self) -> Result<&Debug, DebugInfoError> {
        self.debug
            .get_or_init(|| Debug::load(&self.image))
            .as_ref()
            .map_err(Clone::clone)
    }

    #[cfg(feature = "dwarf")]
    pub(crate) fn call_frames(&self) -> Result<&CallFrames, DebugInfoError> {
        let frames = self
            .call_frames
            .get_or_init(|| CallFrames::load(&self.image, &self.live_code()));
        frames.as_ref().map_err(Clone::clone)
    }

    #[cfg(feature = "dwarf")]
    pub(crate) fn live_code(&self) -> LiveCode<'_> {
        LiveCode {
            image: &self.image,
            symbols: self.all_symbols(),
        }
    }
}

impl fmt::Debug for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firmware")
            .field("architecture", &self.architecture())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_firmware_is_shared_between_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<super::Firmware>();
    }
}
