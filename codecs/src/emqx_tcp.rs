//! The private TCP protocol of EMQX Enterprise (`emqx-tcp`, version 1; later editions have no such gateway): frames around
//! whatever a device has to say.
//!
//! ```text
//! 7..4 type  3..0 flags   then, but for PING, PONG and DISCONNECT: length (2), payload
//!
//! 1 CONNECT     flags: version, 1;  keep-alive in seconds (1), client id, [user name, [password]]
//! 2 CONNACK     flags: 0 is let in, 1 is not;  a text
//! 3 DATATRANS   both ways: data
//! 4 PING   5 PONG   6 DISCONNECT
//! ```
//!
//! Texts within a CONNECT begin with their length (2).

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    Codec, Context, Credential, Data, Def, Down, DownSample, Expect, Fault, Frame, Login, Options, Sample, Up,
};

pub(crate) const DEF: Def = Def {
    name: "emqx-tcp",
    about: "EMQX's private TCP protocol, version 1",
    build: |options| Box::new(EmqxTcp::new(options)),
    samples: &[
        Sample {
            about: "CONNECT with client id `dev1`, user name `u` and password `pw`; worked out from the layout",
            hex: "11 000e 3c 0004 64657631 0001 75 0002 7077",
            up: &[r#"{"login": {"device": "dev1", "username": "u", "password": "pw"}}"#],
            answer: "20 0014 436f6e6e656374205375636365737366756c6c79",
        },
        Sample {
            about: "CONNECT with a client id only",
            hex: "11 0005 00 0002 6431",
            up: &[r#"{"login": {"device": "d1"}}"#],
            answer: "20 0014 436f6e6e656374205375636365737366756c6c79",
        },
        Sample {
            about: "DATATRANS",
            hex: "30 0005 68656c6c6f",
            up: &[r#"{"kind": "data", "hex": "68656c6c6f"}"#],
            answer: "",
        },
        Sample { about: "PING, answered with PONG", hex: "40", up: &[r#"{"heartbeat": {}}"#], answer: "50" },
        Sample { about: "DISCONNECT", hex: "60", up: &[r#"{"logout": {}}"#], answer: "" },
    ],
    downs: &[DownSample { kind: "data", value: "on", hex: "30 0002 6f6e" }],
};

const LET_IN: &[u8] = b"\x20\x00\x14Connect Successfully";
const NOT_LET_IN: &[u8] = b"\x21\x00\x16Authentication Failure";
const PONG: &[u8] = &[0x50];
/// Type, flags and the length.
const HEADER: usize = 3;

struct EmqxTcp {
    max_frame: usize,
}

impl EmqxTcp {
    fn new(options: &Options) -> EmqxTcp {
        let most = HEADER + usize::from(u16::MAX);
        let said = if options.max_frame == 0 { most } else { options.max_frame };
        EmqxTcp { max_frame: said.clamp(HEADER, most) }
    }

    /// The payload of the frame at the front, cut off with it.
    fn payload(&self, buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        let Some(length) = buf.get(1..HEADER) else { return Ok(None) };
        let len = HEADER + (usize::from(length[0]) << 8 | usize::from(length[1]));
        if len > self.max_frame {
            let why = format!("a frame of {len} bytes, and at most {} are allowed", self.max_frame);
            return Err(Fault::stream(1, why));
        }
        Ok((buf.len() >= len).then(|| buf.split_to(len).freeze().slice(HEADER..)))
    }
}

impl Codec for EmqxTcp {
    fn decode(&mut self, _: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(&first) = buf.first() else { return Ok(None) };
        let up = match (first >> 4, first & 15) {
            (1, 1) => match self.payload(buf)? {
                Some(payload) => Up::Login(connect(&payload)?),
                None => return Ok(None),
            },
            (1, version) => {
                return Err(Fault::stream(0, format!("CONNECT of version {version}, and 1 is known")));
            }
            (3, _) => match self.payload(buf)? {
                Some(value) => Up::Data(Data { kind: "data".into(), value, is_json: false }),
                None => return Ok(None),
            },
            (kind @ (4 | 6), _) => {
                buf.advance(1);
                if kind == 4 { Up::Heartbeat } else { Up::Logout }
            }
            (kind, _) => {
                return Err(Fault::stream(0, format!("{kind} is no type of frame that a device sends")));
            }
        };
        let (answer, refusal) = match up {
            Up::Login(_) => (LET_IN, NOT_LET_IN),
            Up::Heartbeat => (PONG, &[][..]),
            _ => (&[][..], &[][..]),
        };
        let (answer, refusal) = (Bytes::from_static(answer), Bytes::from_static(refusal));
        Ok(Some(Frame { up: vec![up], answer, refusal }))
    }

    fn encode(&mut self, _: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let too_long = |_| Fault::frame(0, "more than the 65,535 bytes that a frame can hold");
        let len = u16::try_from(down.value.len()).map_err(too_long)?;
        into.push(0x30);
        into.extend(len.to_be_bytes());
        into.extend(down.value);
        Ok(Expect::Nothing)
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}

/// The payload of a CONNECT.
fn connect(payload: &Bytes) -> Result<Login, Fault> {
    let mut at = 1;
    let mut texts = [None, None, None];
    for text in &mut texts {
        let Some(length) = payload.get(at..at + 2) else { break };
        let from = at + 2;
        let to = from + (usize::from(length[0]) << 8 | usize::from(length[1]));
        if to > payload.len() {
            return Err(Fault::frame(HEADER + at, "a text that is longer than the frame"));
        }
        *text = Some(payload.slice(from..to));
        at = to;
    }
    if at < payload.len() {
        return Err(Fault::frame(HEADER + at, "bytes after the last text of a CONNECT"));
    }
    let text = |bytes: Bytes, what: &str| {
        let text = std::str::from_utf8(&bytes).map(Box::from);
        text.map_err(|_| Fault::frame(HEADER, format!("the {what} is not UTF-8")))
    };
    let [client_id, username, password] = texts;
    let client_id = client_id.filter(|id| !id.is_empty());
    let client_id = client_id.ok_or(Fault::frame(HEADER, "a CONNECT without a client id"))?;
    Ok(Login {
        device: text(client_id, "client id")?,
        username: username.map(|name| text(name, "user name")).transpose()?,
        credential: password.map_or(Credential::None, Credential::Password),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Costs, hex};

    fn decode(bytes: &str) -> Result<Option<Frame>, Fault> {
        let cx = Context { wall_ms: 0, device: None, token: "" };
        (DEF.build)(&Options::default()).decode(&cx, &mut BytesMut::from(&hex::decode(bytes).unwrap()[..]))
    }

    #[test]
    fn who_is_not_let_in_is_told_so() {
        let frame = decode("110005000002 6431").unwrap().unwrap();
        assert_eq!(hex::encode(&frame.refusal), format!("210016{}", hex::encode(b"Authentication Failure")));
    }

    #[test]
    fn a_bad_connect_costs_the_frame_and_an_unknown_type_the_stream() {
        for (bytes, costs, at) in [
            ("11 0003 00 0000", Costs::Frame, 3),
            ("11 0004 00 0002 61", Costs::Frame, 4),
            ("11 0005 00 0001 61 ff", Costs::Frame, 7),
            ("11 0004 00 0001 ff", Costs::Frame, 3),
            ("12 0004 00 0001 61", Costs::Stream, 0),
            ("20 0000", Costs::Stream, 0),
            ("70", Costs::Stream, 0),
        ] {
            let fault = decode(bytes).unwrap_err();
            assert_eq!((fault.costs, fault.at), (costs, at), "{bytes}: {fault:?}");
        }
        assert_eq!(decode("30 0002 61"), Ok(None));
    }
}
