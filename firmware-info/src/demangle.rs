//! Names as the source has them: Rust's two manglings, and C++'s.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Longer names stay as they are. Demangling may multiply the length.
const MAX_MANGLED: usize = 4096;

/// A demangled name is cut here. Honest ones of generic code have some hundred bytes.
const MAX_DEMANGLED: usize = 8192;

/// A name as the source has it: `crate::module::function` without Rust's hash, C++ with its
/// parameters, and any other name as it is.
#[must_use]
pub fn demangle(name: &str) -> Cow<'_, str> {
    if name.len() > MAX_MANGLED {
        return Cow::Borrowed(name);
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        let mut text = Bounded::default();
        // The alternate form leaves the hash out. What did not fit is cut.
        let _ = write!(text, "{rust:#}");
        return Cow::Owned(text.0);
    }
    if name.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::BorrowedSymbol::new(name.as_bytes())
    {
        let mut text = Bounded::default();
        if symbol
            .structured_demangle(&mut text, &cpp_demangle::DemangleOptions::new())
            .is_ok()
        {
            return Cow::Owned(text.0);
        }
    }
    Cow::Borrowed(name)
}

/// Takes no more than so much text.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_are_as_the_source_has_them() {
        for (mangled, wanted) in [
            ("main", "main"),
            (
                "_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE",
                "core::fmt::Formatter::write_str",
            ),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            (
                "_ZN8geometry7largestIiEET_S1_S1_",
                "int geometry::largest<int>(int, int)",
            ),
            ("_Znope", "_Znope"),
            ("", ""),
        ] {
            assert_eq!(demangle(mangled), wanted);
        }
        assert!(demangle(&format!("_Z{}", "N".repeat(5000))).starts_with("_ZN"));
    }

    /// Each substitution doubles the text.
    #[test]
    fn a_name_that_explodes_is_cut() {
        let mut name = "_Z1fSt4pairIiiE".to_owned();
        for at in 0..30_u8 {
            let digit = char::from(if at < 10 { b'0' + at } else { b'A' + at - 10 });
            name += &format!("St4pairIS{digit}_S{digit}_E");
        }
        assert!(demangle(&name).len() <= super::MAX_DEMANGLED);
    }
}
