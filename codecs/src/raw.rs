//! Bytes as they are: `data` with what is in a frame. Without a `framing` whatever arrives at once is one frame, which over
//! TCP means little.

use bytes::{Bytes, BytesMut};

use crate::framing::Frames;
use crate::{Codec, Context, Data, Def, Down, DownSample, Expect, Fault, Frame, Sample, Up};

pub(crate) const DEF: Def = Def {
    name: "raw",
    about: "Bytes as they are, one message a frame",
    build: |options| Box::new(Raw(Frames::new(options, None))),
    samples: &[Sample {
        about: "Whatever arrives, without framing",
        hex: "01 ff 0a",
        up: &[r#"{"kind": "data", "hex": "01ff0a"}"#],
        answer: "",
    }],
    downs: &[DownSample { kind: "data", value: "AT+RST\r\n", hex: "41542b5253540d0a" }],
};

struct Raw(Frames);

impl Codec for Raw {
    fn decode(&mut self, _: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        Ok(self.0.next(buf)?.map(|value| Frame { up: vec![data(value)], ..Frame::default() }))
    }

    fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        self.0.wrap(down.value, into)?;
        Ok(Expect::Nothing)
    }

    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }
}

/// A frame's bytes, kept apart from what else was received with them.
fn data(value: Bytes) -> Up {
    Up::Data(Data { kind: "data".into(), value, is_json: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Framing, FramingOptions, Options};

    #[test]
    fn with_a_framing_each_frame_is_a_message_and_each_message_a_frame() {
        let mut options = FramingOptions::default();
        for (key, value) in [("kind", "length"), ("length_size", "1"), ("checksum", "xor"), ("adjust", "1")] {
            options.set(key, value).unwrap();
        }
        let framing = Some(Framing::new(&options).unwrap());
        let mut raw = (DEF.build)(&Options { framing, ..Options::default() });
        let cx = Context { wall_ms: 0, device: None, token: "" };
        let mut buf = BytesMut::from(&[2, 0x41, 0x42, 2 ^ 0x41 ^ 0x42, 1, 0x43][..]);
        let frame = raw.decode(&cx, &mut buf).unwrap().unwrap();
        assert_eq!(frame.up, [data(Bytes::from("AB"))]);
        assert_eq!(raw.decode(&cx, &mut buf), Ok(None));
        buf.extend_from_slice(&[0]);
        assert_eq!(raw.decode(&cx, &mut buf).unwrap_err().at, 2);
        let mut into = Vec::new();
        raw.encode(&cx, &Down { kind: "data", value: b"C" }, &mut into).unwrap();
        assert_eq!(into, [1, 0x43, 0x42]);
    }
}
