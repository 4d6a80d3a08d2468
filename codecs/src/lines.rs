//! Lines of text, each a message; an empty one says that the device is there. A `framing` may say what else ends a line.

use bytes::BytesMut;

use crate::framing::{Frames, Framing};
use crate::{Codec, Context, Data, Def, Down, DownSample, Expect, Fault, Frame, Sample, Up};

pub(crate) const DEF: Def = Def {
    name: "lines",
    about: "Lines of text, one message a line",
    build: |options| Box::new(Lines(Frames::new(options, Some(Framing::lines())))),
    samples: &[
        Sample {
            about: "A sentence of NMEA 0183, ended with carriage return and line feed",
            hex: "2447 5047 4c4c 2c35 3330 302e 3937 3931 342c 4e2c 3030 3235 392e 3938 3137 342c 452c 3132 3539 \
                  3236 2c41 2a32 38 0d0a",
            up: &[
                r#"{"kind": "data", "hex": "244750474c4c2c353330302e39373931342c4e2c30303235392e39383137342c452c3132353932362c412a3238"}"#,
            ],
            answer: "",
        },
        Sample {
            about: "An empty line between two others",
            hex: "61 0a 0a 62 0a",
            up: &[
                r#"{"kind": "data", "hex": "61"}"#,
                r#"{"heartbeat": {}}"#,
                r#"{"kind": "data", "hex": "62"}"#,
            ],
            answer: "",
        },
    ],
    downs: &[DownSample { kind: "data", value: "interval 60", hex: "696e74657276616c 20 3630 0a" }],
};

struct Lines(Frames);

impl Codec for Lines {
    fn decode(&mut self, _: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(line) = self.0.next(buf)? else { return Ok(None) };
        let up = if line.is_empty() {
            Up::Heartbeat
        } else {
            Up::Data(Data { kind: "data".into(), value: line, is_json: false })
        };
        Ok(Some(Frame { up: vec![up], ..Frame::default() }))
    }

    fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        self.0.wrap(down.value, into)?;
        Ok(Expect::Nothing)
    }

    fn max_frame(&self) -> usize {
        self.0.max_frame()
    }
}
