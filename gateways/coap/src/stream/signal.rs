//! Signalling messages (RFC 8323, 5): their codes and options. Option numbers belong to the code that they come with.

use crate::frame::{Code, Kind, Message};

/// 7.01, Capabilities and Settings.
pub const CSM: Code = Code::new(7, 1);
/// 7.02.
pub const PING: Code = Code::new(7, 2);
/// 7.03.
pub const PONG: Code = Code::new(7, 3);
/// 7.04.
pub const RELEASE: Code = Code::new(7, 4);
/// 7.05.
pub const ABORT: Code = Code::new(7, 5);

/// Of a CSM: the largest message that its sender receives (5.3.1).
pub const MAX_MESSAGE_SIZE: u16 = 2;
/// Of a CSM: its sender knows block-wise transfer (5.3.2).
pub const BLOCK_WISE_TRANSFER: u16 = 4;
/// Of Ping and Pong: all before it was processed (5.4.1).
pub const CUSTODY: u16 = 2;
/// Of an Abort (5.6).
pub const BAD_CSM_OPTION: u16 = 2;

/// What holds of a peer that has not said anything else (5.3.1).
pub const BASE_MAX_MESSAGE_SIZE: usize = 1152;

/// What a peer can receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// In bytes, the head included.
    pub max_message_size: usize,
    /// Block-wise transfer, and with a size over the base value BERT too (5.3.2).
    pub has_blocks: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities { max_message_size: BASE_MAX_MESSAGE_SIZE, has_blocks: false }
    }
}

impl Capabilities {
    /// Whether blocks of several times 1024 bytes may be used (5.3.2 and 6).
    pub fn has_bert(self) -> bool {
        self.has_blocks && self.max_message_size > BASE_MAX_MESSAGE_SIZE
    }

    /// Takes what a CSM says; what it does not say stays as it was (5.3). The number of an option that cannot be
    /// processed is the error.
    pub fn update(&mut self, csm: &Message) -> Result<(), u16> {
        for (number, value) in &csm.options {
            match *number {
                MAX_MESSAGE_SIZE if value.len() <= 4 => {
                    self.max_message_size = value.iter().fold(0, |n, b| n << 8 | usize::from(*b));
                }
                BLOCK_WISE_TRANSFER => self.has_blocks = true,
                MAX_MESSAGE_SIZE => return Err(*number),
                number if number & 1 == 1 => return Err(number),
                _ => {}
            }
        }
        Ok(())
    }

    /// The message that says them.
    pub fn csm(self) -> Message {
        let mut csm = signal(CSM);
        csm.add_uint(MAX_MESSAGE_SIZE, u32::try_from(self.max_message_size).unwrap_or(u32::MAX));
        if self.has_blocks {
            csm.add(BLOCK_WISE_TRANSFER, &[]);
        }
        csm
    }
}

/// A message with this code.
pub fn signal(code: Code) -> Message {
    Message { code, ..Message::empty(Kind::Non, 0) }
}

/// The connection cannot go on, for this reason (5.6).
pub fn abort(bad_csm_option: Option<u16>, text: &str) -> Message {
    let mut abort = signal(ABORT);
    if let Some(number) = bad_csm_option {
        abort.add_uint(BAD_CSM_OPTION, number.into());
    }
    abort.payload = text.as_bytes().to_vec();
    abort
}

/// A critical option: none is known (5.2).
pub fn critical(signal: &Message) -> Option<u16> {
    signal.options.iter().map(|(number, _)| *number).find(|number| number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_csm_does_not_say_stays_as_it_was() {
        // RFC 8323, 5.3: capabilities are cumulative.
        let mut c = Capabilities::default();
        assert_eq!((c.max_message_size, c.has_blocks), (1152, false));
        let mut csm = signal(CSM);
        csm.add(BLOCK_WISE_TRANSFER, &[]);
        assert_eq!(c.update(&csm), Ok(()));
        assert_eq!((c.max_message_size, c.has_blocks, c.has_bert()), (1152, true, false));
        let mut csm = signal(CSM);
        csm.add_uint(MAX_MESSAGE_SIZE, 70_000);
        csm.add(2000, b"elective and not known");
        assert_eq!(c.update(&csm), Ok(()));
        assert_eq!((c.max_message_size, c.has_bert()), (70_000, true));
        assert_eq!(c.update(&c.csm()), Ok(()));
        assert_eq!(c.max_message_size, 70_000);
        let mut csm = signal(CSM);
        csm.add_uint(MAX_MESSAGE_SIZE, 1152);
        assert_eq!(c.update(&csm), Ok(()));
        assert!(!c.has_bert());
    }

    #[test]
    fn an_option_that_cannot_be_processed_is_named() {
        let mut c = Capabilities::default();
        for (number, value) in [(2001, &b""[..]), (1, b""), (MAX_MESSAGE_SIZE, b"12345")] {
            let mut csm = signal(CSM);
            csm.add(number, value);
            assert_eq!(c.update(&csm), Err(number));
        }
        assert_eq!(abort(Some(2001), "no").all(BAD_CSM_OPTION).next(), Some(&[7, 209][..]));
    }
}
