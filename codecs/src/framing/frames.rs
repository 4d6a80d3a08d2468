//! Frames for codecs that know no framing of their own.

use bytes::{Bytes, BytesMut};

use super::{Framing, MAX_FRAME};
use crate::{Fault, Options};

/// The frames of one connection.
pub(crate) struct Frames {
    /// None: whatever arrives is a frame.
    framing: Option<Framing>,
    is_whole: bool,
    max_frame: usize,
}

impl Frames {
    /// As the listener says; else this framing, or none.
    pub(crate) fn new(options: &Options, default: Option<Framing>) -> Frames {
        let mut framing = options.framing.clone();
        let said = Some(options.max_frame).filter(|max| *max > 0);
        if framing.is_none() {
            framing = default.map(|default| Framing { max_frame: said.unwrap_or(MAX_FRAME), ..default });
        }
        let max_frame = framing.as_ref().map_or(said.unwrap_or(MAX_FRAME), Framing::max_frame);
        Frames { framing, is_whole: options.is_whole, max_frame }
    }

    /// The payload of the next frame.
    pub(crate) fn next(&self, buf: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        match &self.framing {
            Some(framing) => match framing.cut(buf)? {
                None if self.is_whole => framing.rest(buf),
                cut => Ok(cut),
            },
            None if buf.is_empty() => Ok(None),
            None => Ok(Some(buf.split_to(buf.len().min(self.max_frame)).freeze())),
        }
    }

    /// Where in a frame its payload begins.
    pub(crate) fn payload_at(&self) -> usize {
        self.framing.as_ref().map_or(0, |framing| framing.strip)
    }

    /// Appends the frame of a payload.
    pub(crate) fn wrap(&self, payload: &[u8], into: &mut Vec<u8>) -> Result<(), Fault> {
        match &self.framing {
            Some(framing) => framing.wrap(payload, into),
            None => {
                into.extend(payload);
                Ok(())
            }
        }
    }

    /// Most bytes of a frame.
    pub(crate) fn max_frame(&self) -> usize {
        self.max_frame
    }
}
