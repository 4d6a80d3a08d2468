//! What frames are answered: in their order, and each when what it said was accepted.

use std::collections::VecDeque;

use bytes::Bytes;
use codecs::hex;

use crate::Turn;

/// Frames of a device that may wait for their answers; it is not read further until one was answered.
const MOST: usize = 256;

/// Names a frame.
pub(crate) type Seq = u32;

/// Frames that are not answered yet.
#[derive(Default)]
pub(crate) struct Answers {
    first: Seq,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// What is asked for on its behalf and was not answered.
    asked: u32,
    /// All that it says was looked at.
    is_read: bool,
    verdict: Verdict,
    answer: Bytes,
    refusal: Bytes,
    /// The answer is not to be shown.
    is_secret: bool,
}

/// What has come of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// All of it was accepted.
    Accepted,
    /// Nobody knows, or not now: nothing is said, and the device says it again.
    Unsure,
    /// Some of it was refused.
    Refused,
}

impl Answers {
    /// A frame begins.
    pub(crate) fn begin(&mut self, answer: Bytes, refusal: Bytes, is_secret: bool) -> Seq {
        let seq = self.first.wrapping_add(self.waiting.len() as u32);
        let frame =
            Waiting { asked: 0, is_read: false, verdict: Verdict::Accepted, answer, refusal, is_secret };
        self.waiting.push_back(frame);
        seq
    }

    fn get(&mut self, seq: Seq) -> Option<&mut Waiting> {
        self.waiting.get_mut(seq.wrapping_sub(self.first) as usize)
    }

    /// Something is asked for on behalf of the frame.
    pub(crate) fn ask(&mut self, seq: Seq) {
        if let Some(frame) = self.get(seq) {
            frame.asked += 1;
        }
    }

    /// What was asked for is answered.
    pub(crate) fn done(&mut self, seq: Seq, verdict: Verdict) {
        self.judge(seq, verdict);
        if let Some(frame) = self.get(seq) {
            frame.asked = frame.asked.saturating_sub(1);
        }
    }

    /// The frame is no better than this.
    pub(crate) fn judge(&mut self, seq: Seq, verdict: Verdict) {
        if let Some(frame) = self.get(seq) {
            frame.verdict = frame.verdict.max(verdict);
        }
    }

    /// Nothing more will be asked for on behalf of the frame.
    pub(crate) fn end(&mut self, seq: Seq) {
        if let Some(frame) = self.get(seq) {
            frame.is_read = true;
        }
    }

    /// Sends the answers whose turn it is.
    pub(crate) fn send(&mut self, t: &mut Turn<'_>) {
        while let Some(frame) = self.waiting.pop_front_if(|frame| frame.is_read && frame.asked == 0) {
            self.first = self.first.wrapping_add(1);
            let (what, bytes) = match frame.verdict {
                Verdict::Accepted => ("answer", frame.answer),
                Verdict::Refused => ("refusal", frame.refusal),
                Verdict::Unsure => continue,
            };
            t.send(&bytes, || match frame.is_secret {
                true => format!("{what} of {} bytes", bytes.len()),
                false => format!("{what} {}", hex::encode(&bytes)),
            });
        }
    }

    /// Whether this frame is not answered.
    pub(crate) fn has(&self, seq: Seq) -> bool {
        (seq.wrapping_sub(self.first) as usize) < self.waiting.len()
    }

    /// Frames that are not answered.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no more frames can be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }
}
