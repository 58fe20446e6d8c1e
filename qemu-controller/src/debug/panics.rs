//! The functions that a panic or a failed assertion comes to.

use firmware_info::{Firmware, SymbolKind};

use super::error::DebugError;

/// The end of every panic of a Rust program: the function with `#[panic_handler]`. Newer compilers
/// mangle its name.
const RUST: &str = "rust_begin_unwind";
const RUST_MANGLED: &str = "17rust_begin_unwind";
/// Where it was inlined, or left out (`panic_immediate_abort`): whatever of these there is.
const RUST_CORE: &str = "core9panicking";
/// Of C and C++: newlib's, picolibc's and the compilers' own.
const C: [&str; 11] = [
    "__assert_func",
    "__assert_fail",
    "__assert_no_args",
    "__assert",
    "__stack_chk_fail",
    "__cxa_pure_virtual",
    "_ZSt9terminatev",
    "abort",
    // FreeRTOS's hooks.
    "vApplicationStackOverflowHook",
    "vApplicationMallocFailedHook",
    "vAssertCalled",
];

/// Where they are. A firmware with symbols and none of these cannot panic, which is no error.
pub(crate) fn functions(firmware: &Firmware) -> Result<Vec<u64>, DebugError> {
    let (mut handlers, mut core, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut is_stripped = true;
    for symbol in firmware.symbols() {
        is_stripped = false;
        let name = symbol.raw_name.as_str();
        if symbol.kind == SymbolKind::Object {
            continue;
        } else if name == RUST || name.contains(RUST_MANGLED) {
            handlers.push(symbol.address);
        } else if name.contains(RUST_CORE) {
            core.push(symbol.address);
        } else if C.contains(&name) {
            others.push(symbol.address);
        }
    }
    if is_stripped {
        return Err(DebugError::Stripped);
    }
    let rust = if handlers.is_empty() { core } else { handlers };
    others.extend(rust);
    Ok(others)
}
