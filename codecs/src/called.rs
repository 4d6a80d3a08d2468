//! What a script's `decode` and `encode` bring, in the JSON in which workers answer, for all who call scripts.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Expect, Frame, Up, hex};

/// What comes of a stream's bytes.
#[derive(Deserialize)]
pub struct Decoded<'a> {
    /// Bytes of the frames together.
    pub consumed: usize,
    /// The frames, in order.
    #[serde(borrow, default)]
    pub frames: Vec<DecodedFrame<'a>>,
    /// What is wrong behind them.
    #[serde(default)]
    pub error: Option<Failed>,
}

/// One frame.
#[derive(Deserialize)]
pub struct DecodedFrame<'a> {
    /// Its bytes; a caller who takes all frames at once has no use for it.
    #[serde(default)]
    pub consumed: Option<usize>,
    #[serde(borrow, default)]
    up: Vec<&'a RawValue>,
    #[serde(default)]
    answer: String,
    #[serde(default)]
    refusal: String,
}

/// Why a frame could not be read.
#[derive(Deserialize)]
pub struct Failed {
    /// Where it begins: bytes from the beginning of what was handed in.
    pub at: usize,
    /// In words for an operator.
    pub why: String,
    #[serde(default)]
    skip: Option<usize>,
}

/// What comes of a command.
#[derive(Deserialize)]
pub struct Encoded {
    hex: String,
    #[serde(default)]
    key: Option<u64>,
}

impl Encoded {
    /// The bytes for the device, and whether it answers them; or why there are none.
    pub fn read(json: &[u8]) -> Result<(Vec<u8>, Expect), String> {
        let encoded: Encoded = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        Ok((hex::decode(&encoded.hex)?, encoded.key.map_or(Expect::Nothing, Expect::Reply)))
    }
}

impl DecodedFrame<'_> {
    /// What the frame means, or why it means nothing.
    pub fn read(&self) -> Result<Frame, String> {
        let up = self.up.iter().map(|json| {
            Up::from_json(json.get().as_bytes())
                .map_err(|e| format!("`up` is not what a device can say: {e}"))
        });
        Ok(Frame {
            up: up.collect::<Result<_, _>>()?,
            answer: hex::decode(&self.answer)?.into(),
            refusal: hex::decode(&self.refusal)?.into(),
        })
    }
}

impl Failed {
    /// Bytes behind `at` that the frame costs of a buffer of this length. Without a word of it nobody knows where the next
    /// frame begins: all that came.
    pub fn costs(&self, length: usize) -> usize {
        let rest = length.saturating_sub(self.at);
        self.skip.unwrap_or(rest).clamp(1, rest.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_bytes_and_perhaps_the_key_of_its_answer() {
        let read = |json: &str| Encoded::read(json.as_bytes());
        assert_eq!(read(r#"{"hex":"0aff"}"#), Ok((vec![10, 255], Expect::Nothing)));
        assert_eq!(read(r#"{"hex":"","key":7}"#), Ok((vec![], Expect::Reply(7))));
        for wrong in [r#"{"hex":"0"}"#, r#"{"key":7}"#, r#"{"hex":"00","key":-1}"#, "[]", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bad_frame_costs_at_least_a_byte_and_at_most_what_came() {
        let costs = |skip: &str, length| {
            let json = format!(r#"{{"at":4,"why":"x"{skip}}}"#);
            serde_json::from_str::<Failed>(&json).unwrap().costs(length)
        };
        assert_eq!([costs("", 10), costs(r#","skip":2"#, 10)], [6, 2]);
        assert_eq!([costs(r#","skip":0"#, 10), costs(r#","skip":18446744073709551615"#, 10)], [1, 6]);
        assert_eq!([costs("", 4), costs("", 0)], [1, 1]);
    }
}
