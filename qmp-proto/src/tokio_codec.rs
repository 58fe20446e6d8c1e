//! [`Codec`] as a codec of `tokio_util::codec::Framed`.

use std::io;

use bytes::BytesMut;
use serde::Serialize;
use tokio_util::codec::{Decoder, Encoder};

use crate::{Codec, Command, CommandId, DecodeError, EncodeError, ServerMessage};

/// What ends or refuses something in a `Framed` stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramedError {
    /// The peer broke the protocol. Nothing more comes from this stream.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The command cannot be sent. Nothing was written, and the stream goes on.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Decoder for Codec {
    type Item = ServerMessage;
    type Error = FramedError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<ServerMessage>, FramedError> {
        self.feed(source);
        source.clear();
        self.next_message().map_err(Into::into)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<ServerMessage>, FramedError> {
        self.feed(source);
        source.clear();
        self.feed_eof();
        self.next_message().map_err(Into::into)
    }
}

/// A typed command with its id.
impl<C: Command> Encoder<(CommandId, C)> for Codec {
    type Error = FramedError;

    fn encode(
        &mut self,
        (id, command): (CommandId, C),
        out: &mut BytesMut,
    ) -> Result<(), FramedError> {
        Encoder::encode(self, (id, C::NAME, command), out)
    }
}

/// A command to be run at once, out of band, for an [`Encoder`]: `OutOfBand((id, command))` or
/// `OutOfBand((id, name, arguments))`. Only for connections that have negotiated `oob`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBand<T>(pub T);

/// A typed command with its id, out of band.
impl<C: Command> Encoder<OutOfBand<(CommandId, C)>> for Codec {
    type Error = FramedError;

    fn encode(
        &mut self,
        OutOfBand((id, command)): OutOfBand<(CommandId, C)>,
        out: &mut BytesMut,
    ) -> Result<(), FramedError> {
        Encoder::encode(self, OutOfBand((id, C::NAME, command)), out)
    }
}

/// A command by name, out of band.
impl<A: Serialize> Encoder<OutOfBand<(CommandId, &str, A)>> for Codec {
    type Error = FramedError;

    fn encode(
        &mut self,
        OutOfBand((id, name, arguments)): OutOfBand<(CommandId, &str, A)>,
        out: &mut BytesMut,
    ) -> Result<(), FramedError> {
        let mut text = Vec::new();
        self.encode_raw_oob(name, &arguments, id, &mut text)?;
        out.extend_from_slice(&text);
        Ok(())
    }
}

/// A command by name, with anything that serialises to an object, or to null for none.
impl<A: Serialize> Encoder<(CommandId, &str, A)> for Codec {
    type Error = FramedError;

    fn encode(
        &mut self,
        (id, name, arguments): (CommandId, &str, A),
        out: &mut BytesMut,
    ) -> Result<(), FramedError> {
        let mut text = Vec::new();
        self.encode_raw(name, &arguments, id, &mut text)?;
        out.extend_from_slice(&text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeErrorKind, Limits, commands::Stop};

    #[test]
    fn it_takes_what_there_is_and_gives_one_message_a_call() {
        let mut codec = Codec::new(Limits::default());
        let mut source = BytesMut::from(&b"{\"event\": \"A\"}{\"event\": \"B\"}{\"ev"[..]);
        let mut next = |codec: &mut Codec| match codec.decode(&mut source).unwrap() {
            Some(ServerMessage::Event(event)) => event.name,
            other => format!("{other:?}"),
        };
        assert_eq!(
            [next(&mut codec), next(&mut codec), next(&mut codec)],
            ["A", "B", "None"]
        );
        let mut rest = BytesMut::from(&b"ent\": \"C\"} "[..]);
        assert!(codec.decode_eof(&mut rest).unwrap().is_some());
        assert!(codec.decode_eof(&mut rest).unwrap().is_none());
    }

    #[test]
    fn an_end_inside_a_message_is_an_error_that_stays() {
        let mut codec = Codec::new(Limits::default());
        let mut source = BytesMut::from(&b"{"[..]);
        for _ in 0..2 {
            let Err(FramedError::Decode(error)) = codec.decode_eof(&mut source) else {
                panic!()
            };
            assert_eq!(error.kind(), &DecodeErrorKind::Truncated);
        }
    }

    #[test]
    fn commands_go_out_whole_or_not_at_all() {
        let mut codec = Codec::new(Limits::default());
        let mut out = BytesMut::new();
        Encoder::encode(&mut codec, (CommandId::new(1, 1), Stop), &mut out).unwrap();
        Encoder::encode(&mut codec, (CommandId::new(1, 2), "bad", [1]), &mut out).unwrap_err();
        Encoder::encode(&mut codec, (CommandId::new(1, 3), "cont", ()), &mut out).unwrap();
        assert_eq!(
            out,
            "{\"execute\":\"stop\",\"id\":\"00000001-1\"}{\"execute\":\"cont\",\"id\":\"00000001-3\"}"
        );
    }

    #[test]
    fn out_of_band_commands_go_out_as_such() {
        let mut codec = Codec::new(Limits::default());
        let mut out = BytesMut::new();
        let id = CommandId::new(1, 1);
        Encoder::encode(&mut codec, OutOfBand((id, Stop)), &mut out).unwrap();
        Encoder::encode(&mut codec, OutOfBand((id, "x", [1])), &mut out).unwrap_err();
        Encoder::encode(&mut codec, OutOfBand((id, "cont", ())), &mut out).unwrap();
        assert_eq!(
            out,
            "{\"exec-oob\":\"stop\",\"id\":\"00000001-1\"}{\"exec-oob\":\"cont\",\"id\":\"00000001-1\"}"
        );
        let mut typed = Vec::new();
        codec.encode_oob(&Stop, id, &mut typed).unwrap();
        assert_eq!(typed, b"{\"exec-oob\":\"stop\",\"id\":\"00000001-1\"}");
    }
}
