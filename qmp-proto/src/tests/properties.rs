//! What holds for every stream and every order of calls.

use proptest::{collection::vec, prelude::any, prop_assert_eq, proptest};

use crate::{
    Limits, RawJson,
    testing::{self, cut, decode_pieces, run_against_model, strategies},
};

proptest! {
    #[test]
    fn a_message_in_any_spelling_is_decoded((text, message) in strategies::message()) {
        prop_assert_eq!(decode_pieces(Limits::default(), [text.as_bytes()]), (vec![message], None));
    }

    #[test]
    fn a_message_that_is_written_can_be_read_back((_, message) in strategies::message()) {
        let text = RawJson::from_value(&message).expect("a message serialises");
        let decoded = decode_pieces(Limits::default(), [text.as_bytes()]);
        prop_assert_eq!(decoded, (vec![message], None));
    }

    #[test]
    fn any_cutting_gives_the_same_messages(
        (text, messages) in strategies::stream(),
        longest in 1_usize..40,
        seed in any::<u64>(),
    ) {
        let pieces = cut(text.as_bytes(), longest, seed);
        prop_assert_eq!(decode_pieces(Limits::default(), pieces), (messages, None));
    }

    #[test]
    fn a_broken_stream_gives_the_same_error_in_any_cutting(bytes in strategies::broken_stream()) {
        testing::decode(&bytes);
    }

    #[test]
    fn any_bytes_are_withstood(bytes in vec(any::<u8>(), 0..200)) {
        testing::decode(&bytes);
        testing::connection(&bytes);
        testing::encode(&bytes);
        testing::typed(&bytes);
    }

    #[test]
    fn a_connection_agrees_with_the_model(ops in strategies::ops()) {
        run_against_model(&ops);
    }

    #[test]
    fn a_command_that_is_written_can_be_read_back(name in ".{0,12}", key in ".{0,8}", value in strategies::json()) {
        testing::encode(format!("{name}\n{key}\n{value}").as_bytes());
    }
}
