//! Bytes that come one at a time, kept to be looked at together.

/// Most bytes that are put by.
pub(crate) const PUT_BY_BYTES: usize = 128;

/// As many bytes as it was opened for, in the last of its places: a byte that comes then costs one
/// comparison.
#[derive(Debug)]
pub(crate) struct PutBy {
    places: [u8; PUT_BY_BYTES],
    /// The places in use: from here to there.
    from: usize,
    to: usize,
}

impl PutBy {
    /// One without room.
    pub(crate) fn new() -> Self {
        Self {
            places: [0; PUT_BY_BYTES],
            from: PUT_BY_BYTES,
            to: PUT_BY_BYTES,
        }
    }

    /// Forgets what it holds, and makes room for so many bytes, or for [`PUT_BY_BYTES`] if those
    /// are fewer.
    pub(crate) fn open(&mut self, room: usize) {
        self.from = PUT_BY_BYTES.saturating_sub(room);
        self.to = self.from;
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.to < PUT_BY_BYTES
    }

    /// False where there is no room.
    #[inline]
    pub(crate) fn put(&mut self, byte: u8) -> bool {
        let at = self.to;
        let Some(place) = self.places.get_mut(at) else {
            return false;
        };
        *place = byte;
        self.to = at + 1;
        true
    }

    /// What was put by since it was opened.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.places[self.from..self.to]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_as_many_as_it_was_opened_for() {
        let mut put_by = PutBy::new();
        assert!(!put_by.has_room() && !put_by.put(b'x') && put_by.bytes().is_empty());
        for (room, places) in [
            (0, 0),
            (1, 1),
            (128, 128),
            (1000, 128),
            (5, 5),
            (usize::MAX, 128),
        ] {
            put_by.open(room);
            for n in 0..places {
                assert!(put_by.has_room() && put_by.put(n));
            }
            assert!(!put_by.has_room() && !put_by.put(b'x'), "{room}");
            assert_eq!(put_by.bytes(), (0..places).collect::<Vec<_>>());
        }
    }
}
