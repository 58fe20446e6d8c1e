//! What can be waited for on a port: a text, or a regular expression over bytes.

/// What can be waited for: text, bytes, or with the feature `regex` a `regex::bytes::Regex`.
///
/// Implemented for `&str`, `String`, `&String`, `&[u8]`, `Vec<u8>`, `[u8; N]` and `&[u8; N]`, and
/// for `Regex` and `&Regex`; others are not foreseen.
pub trait Pattern: private::Find {}

impl<T: private::Find> Pattern for T {}

mod private {
    pub trait Find: Send + Sync {
        /// The first match in what is unread, of which so many bytes have been searched before in
        /// vain.
        fn find(&self, unread: &[u8], seen: usize) -> Option<(usize, usize)>;

        /// As an error names it.
        fn describe(&self) -> String;
    }
}

/// What was searched before can only end in the beginning of a match.
pub(super) fn find(text: &[u8], unread: &[u8], seen: usize) -> Option<(usize, usize)> {
    let from = seen.saturating_sub(text.len().saturating_sub(1));
    let at = unread
        .get(from..)?
        .windows(text.len().max(1))
        .position(|window| window.starts_with(text));
    Some((from + at?, from + at? + text.len()))
}

macro_rules! bytes {
    ($($(#[$generics:tt])? $type:ty),*) => { $(
        impl $(<const $generics: usize>)? private::Find for $type {
            fn find(&self, unread: &[u8], seen: usize) -> Option<(usize, usize)> {
                find(self.as_ref(), unread, seen)
            }

            fn describe(&self) -> String {
                let bytes: &[u8] = self.as_ref();
                format!("'{}'", bytes.escape_ascii())
            }
        }
    )* };
}

bytes!(
    &str,
    String,
    &String,
    &[u8],
    Vec<u8>,
    #[N]
    [u8; N],
    #[N]
    &[u8; N]
);

#[cfg(feature = "regex")]
mod regular {
    use super::private::Find;
    use ::regex::bytes::Regex;

    impl Find for Regex {
        /// From the beginning each time: a match may begin anywhere in what was searched before.
        fn find(&self, unread: &[u8], _: usize) -> Option<(usize, usize)> {
            Regex::find(self, unread).map(|found| (found.start(), found.end()))
        }

        fn describe(&self) -> String {
            format!("a match of /{self}/")
        }
    }

    impl Find for &Regex {
        fn find(&self, unread: &[u8], seen: usize) -> Option<(usize, usize)> {
            Find::find(*self, unread, seen)
        }

        fn describe(&self) -> String {
            (*self).describe()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_wherever_it_was_cut() {
        let text = b"..ababac..";
        for cut in 0..text.len() {
            let first = find(b"abac", &text[..cut], 0);
            let second = find(b"abac", text, cut);
            assert_eq!(first.or(second), Some((4, 8)), "cut at {cut}");
        }
        assert_eq!(
            (find(b"", b"", 0), find(b"", b"x", 0)),
            (None, Some((0, 0))),
            "nothing is found in something"
        );
        assert_eq!(find(b"abc", b"ab", 0), None);
        assert_eq!(find(b"\0\xff", b"x\0\xff", 1), Some((1, 3)));
    }
}
