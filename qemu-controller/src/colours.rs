//! Lines that have colours.

/// A text without the sequences that colour it (`ESC [ … m`), as defmt's log format makes
/// them, and Unity.
#[must_use]
#[cfg_attr(
    not(feature = "defmt"),
    expect(unreachable_pub, reason = "the module `defmt` exports it")
)]
pub fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end {
            Some(end) if part[end..].starts_with('m') => plain += &part[end + 1..],
            _ => {
                plain += "\x1b[";
                plain += part;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_nothing_else_does() {
        for (text, plain) in [
            ("\x1b[32mINFO \x1b[0m text", "INFO  text"),
            ("\x1b[1;31mx\x1b[0m", "x"),
            ("no\x1b[2Kcolour \x1b[", "no\x1b[2Kcolour \x1b["),
            ("plain", "plain"),
        ] {
            assert_eq!(without_colours(text), plain);
        }
    }
}
