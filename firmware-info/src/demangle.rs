//! Names as the source has them: Rust's two manglings, and C++'s.

use std::borrow::Cow;

/// Longer names stay as they are. Demangling may multiply the length.
#[cfg(feature = "demangle")]
const MAX_MANGLED: usize = 4096;

/// A demangled name is cut here. Honest ones of generic code have some hundred bytes.
#[cfg(feature = "demangle")]
const MAX_DEMANGLED: usize = 8192;

/// A name as the source has it: `crate::module::function` without Rust's hash, C++ with its
/// parameters, and any other name as it is. Without the feature `demangle` each is as it is.
#[must_use]
pub fn demangle(name: &str) -> Cow<'_, str> {
    #[cfg(feature = "demangle")]
    if let Some(name) = demangled(name) {
        return Cow::Owned(name);
    }
    Cow::Borrowed(name)
}

#[cfg(feature = "demangle")]
fn demangled(name: &str) -> Option<String> {
    use std::fmt::Write as _;

    if name.len() > MAX_MANGLED {
        return None;
    }
    let mut text = Bounded::default();
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // The alternate form leaves the hash out. What did not fit is cut.
        let _ = write!(text, "{rust:#}");
        return Some(text.0);
    }
    if !name.starts_with("_Z") {
        return None;
    }
    let symbol = cpp_demangle::BorrowedSymbol::new(name.as_bytes()).ok()?;
    let options = cpp_demangle::DemangleOptions::new();
    symbol.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

/// Takes no more than so much text.
#[cfg(feature = "demangle")]
#[derive(Default)]
struct Bounded(String);

#[cfg(feature = "demangle")]
impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(all(test, feature = "demangle"))]
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
