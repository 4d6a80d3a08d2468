//! Block1 and Block2 (RFC 7959): the option's value, which part of a body a block is, and the client's side of a transfer.
//!
//! ```text
//! Block1: PUT 0/1/1024 -> 2.31 0/1/256        Block2: GET              -> 2.05 0/1/1024, ETag
//!         PUT 4/1/256  -> 2.31 4/1/256                GET 1/0/1024     -> 2.05 1/1/1024, ETag
//!         PUT 5/0/256  -> 2.04 5/0/256                GET 8/0/256      -> 2.05 8/0/256, ETag
//! ```
//!
//! Nothing here knows what the bodies are about. What of a request is collected is in [`crate::body`].

mod transfer;

use std::ops::Range;

use crate::frame::Message;
use crate::options::{BLOCK1, BLOCK2, SIZE2};

pub use transfer::{Broken, Download, Progress, Upload};

/// Size exponent: blocks of 2^(SZX + 4) bytes (RFC 7959, 2.2), or BERT (RFC 8323, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Szx(u8);

impl Szx {
    /// 16 bytes.
    pub const SMALLEST: Szx = Szx(0);
    /// 1024 bytes.
    pub const LARGEST: Szx = Szx(6);
    /// Several blocks of 1024 bytes in one message; reliable transports only (RFC 8323, 6).
    pub const BERT: Szx = Szx(7);

    /// The exponent with this number, 0 to 7.
    pub const fn new(number: u8) -> Option<Szx> {
        if number <= 7 { Some(Szx(number)) } else { None }
    }

    /// The largest block of at most `bytes` bytes, never BERT; 16 bytes if it would be smaller.
    pub fn fitting(bytes: usize) -> Szx {
        let mut szx = Szx::LARGEST;
        while szx > Szx::SMALLEST && szx.size() > bytes {
            szx.0 -= 1;
        }
        szx
    }

    /// Bytes that one block number stands for.
    pub const fn size(self) -> usize {
        if self.0 >= 6 { 1024 } else { 16 << self.0 }
    }
}

/// The value of a Block option: NUM, M and SZX (RFC 7959, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// NUM: which block, from 0.
    pub number: u32,
    /// M: more blocks follow this one. Meaningless when a block is asked for.
    pub is_more: bool,
    /// SZX.
    pub szx: Szx,
}

impl Block {
    /// NUM has 20 bits.
    pub const MAX_NUMBER: u32 = 0xF_FFFF;

    /// From the option's value; None if it is longer than three bytes.
    pub fn decode(value: &[u8]) -> Option<Block> {
        (value.len() <= 3).then(|| value.iter().fold(0, |n, b| n << 8 | u32::from(*b))).map(|n| Block {
            number: n >> 4,
            is_more: n & 8 != 0,
            szx: Szx((n & 7) as u8),
        })
    }

    /// As the number that [`Message::add_uint`] writes.
    pub fn encode(self) -> u32 {
        self.number.min(Block::MAX_NUMBER) << 4 | u32::from(self.is_more) << 3 | u32::from(self.szx.0)
    }

    /// The message's option with this number ([`BLOCK1`] or [`BLOCK2`]).
    pub fn of(message: &Message, option: u16) -> Option<Block> {
        Block::decode(message.all(option).next()?)
    }

    /// Where in the body it begins, in bytes.
    pub fn offset(self) -> usize {
        self.number as usize * self.szx.size()
    }

    /// The block of this size that begins at `offset`, a multiple of the size.
    pub fn at(offset: usize, szx: Szx) -> Block {
        Block { number: u32::try_from(offset / szx.size()).unwrap_or(u32::MAX), is_more: false, szx }
    }

    /// Whether `length` bytes can be the payload of this block: all but the last are full (RFC 7959, 2.2).
    pub fn is_length(self, length: usize) -> bool {
        match (self.is_more, self.szx) {
            (true, Szx::BERT) => length > 0 && length.is_multiple_of(Szx::BERT.size()),
            (true, szx) => length == szx.size(),
            (false, Szx::BERT) => true,
            (false, szx) => length <= szx.size(),
        }
    }
}

/// What a request says about blocks, to be kept until it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Block1.
    pub block1: Option<Block>,
    /// Block2.
    pub block2: Option<Block>,
    /// Size2: the answer tells how large the body is (RFC 7959, 4).
    pub wants_size: bool,
}

impl Asked {
    /// Of this request.
    pub fn of(request: &Message) -> Asked {
        Asked {
            block1: Block::of(request, BLOCK1),
            block2: Block::of(request, BLOCK2),
            wants_size: request.all(SIZE2).next().is_some(),
        }
    }
}

/// What one message may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Payload in bytes.
    pub payload: usize,
    /// Largest exponent: [`Szx::LARGEST`], or [`Szx::BERT`] to who said that it understands it.
    pub szx: Szx,
}

impl Room {
    /// The size of blocks where the other side has no wish, or wishes larger ones.
    pub fn preferred(self) -> Szx {
        if self.szx == Szx::BERT && self.payload >= Szx::BERT.size() {
            Szx::BERT
        } else {
            Szx::fitting(self.payload).min(self.szx)
        }
    }

    /// With blocks of at most this size, if one was asked for.
    #[must_use]
    pub fn at_most(self, szx: Option<Szx>) -> Room {
        match szx {
            Some(szx) if szx < Szx::BERT => Room { payload: self.payload.min(szx.size()), ..self },
            _ => self,
        }
    }

    /// Payload of a block of this size.
    fn of(self, szx: Szx) -> usize {
        if szx == Szx::BERT { self.payload / 1024 * 1024 } else { szx.size() }
    }
}

/// A block was asked for that the body does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastEnd;

/// Which part of a body of `length` bytes answers a request for this block; None if it goes as it is, without a Block
/// option. A block that was asked for larger than there is room begins where it was asked for and is smaller
/// (RFC 7959, 2.4).
pub fn slice(
    length: usize,
    asked: Option<Block>,
    room: Room,
) -> Result<Option<(Block, Range<usize>)>, PastEnd> {
    let asked = match asked {
        None if length <= room.payload => return Ok(None),
        None => Block { number: 0, is_more: false, szx: room.preferred() },
        Some(asked) if asked.number == 0 && length == 0 => return Ok(None),
        Some(asked) => asked,
    };
    let (begin, szx) = (asked.offset(), asked.szx.min(room.preferred()));
    if begin > 0 && begin >= length {
        return Err(PastEnd);
    }
    let end = (begin + room.of(szx)).min(length);
    let block = Block { is_more: end < length, ..Block::at(begin, szx) };
    if block.number > Block::MAX_NUMBER { Err(PastEnd) } else { Ok(Some((block, begin..end))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UDP: Room = Room { payload: 1024, szx: Szx::LARGEST };

    fn block(number: u32, is_more: bool, szx: u8) -> Block {
        Block { number, is_more, szx: Szx::new(szx).unwrap() }
    }

    #[test]
    fn values_are_those_of_the_standard() {
        // RFC 7959, 3.1: 2:0/1/64 is NUM 0, more, 64 bytes; and the largest there is.
        for (value, expected) in [
            (&[][..], block(0, false, 0)),
            (&[0x0A], block(0, true, 2)),
            (&[0x12], block(1, false, 2)),
            (&[0x01, 0x3E], block(19, true, 6)),
            (&[0xFF, 0xFF, 0xFF], block(0xF_FFFF, true, 7)),
        ] {
            assert_eq!(Block::decode(value), Some(expected));
            assert_eq!(expected.encode(), value.iter().fold(0, |n, b| n << 8 | u32::from(*b)));
        }
        assert_eq!(Block::decode(&[0, 0, 0, 0]), None);
    }

    #[test]
    fn the_size_is_the_largest_power_of_two_that_fits() {
        for (bytes, size) in [(5000, 1024), (1024, 1024), (1023, 512), (64, 64), (63, 32), (3, 16)] {
            assert_eq!(Szx::fitting(bytes).size(), size);
        }
    }

    #[test]
    fn what_fits_goes_without_an_option_unless_one_was_sent() {
        assert_eq!(slice(1024, None, UDP), Ok(None));
        assert_eq!(slice(1025, None, UDP), Ok(Some((block(0, true, 6), 0..1024))));
        assert_eq!(slice(10, Some(block(0, false, 6)), UDP), Ok(Some((block(0, false, 6), 0..10))));
        assert_eq!(slice(0, Some(block(0, false, 6)), UDP), Ok(None));
    }

    #[test]
    fn a_smaller_block_begins_where_the_larger_one_was_asked_for() {
        let room = Room { payload: 200, ..UDP };
        assert_eq!(slice(3000, Some(block(2, false, 6)), room), Ok(Some((block(16, true, 3), 2048..2176))));
        // And the reverse: a small one is not made larger.
        assert_eq!(slice(3000, Some(block(3, false, 0)), UDP), Ok(Some((block(3, true, 0), 48..64))));
    }

    #[test]
    fn there_is_nothing_behind_the_end() {
        assert_eq!(slice(64, Some(block(1, false, 2)), UDP), Err(PastEnd));
        assert_eq!(slice(65, Some(block(1, false, 2)), UDP), Ok(Some((block(1, false, 2), 64..65))));
        assert_eq!(slice(0, Some(block(1, false, 2)), UDP), Err(PastEnd));
        assert_eq!(
            slice(usize::MAX, Some(block(0xF_FFFF, false, 6)), Room { payload: 16, ..UDP }),
            Err(PastEnd)
        );
    }

    #[test]
    fn bert_carries_several_blocks_of_1024_in_a_message() {
        // RFC 8323, 6: the number counts blocks of 1024 bytes.
        let room = Room { payload: 5000, szx: Szx::BERT };
        assert_eq!(slice(10_000, None, room), Ok(Some((block(0, true, 7), 0..4096))));
        assert_eq!(slice(10_000, Some(block(4, false, 7)), room), Ok(Some((block(4, true, 7), 4096..8192))));
        assert_eq!(
            slice(10_000, Some(block(8, false, 7)), room),
            Ok(Some((block(8, false, 7), 8192..10_000)))
        );
        assert_eq!(slice(10_000, Some(block(8, false, 7)), UDP), Ok(Some((block(8, true, 6), 8192..9216))));
    }

    proptest! {
        #[test]
        fn the_blocks_of_a_body_are_the_body(
            length in 0usize..9000,
            payload in 16usize..2000,
            sizes in prop::collection::vec(0u8..=6, 1..20),
        ) {
            let room = Room { payload, ..UDP };
            let (mut at, mut turn) = (0, 0);
            loop {
                // A client may ask for smaller ones at any time.
                let mut szx = Szx(sizes[turn % sizes.len()]);
                while at % szx.size() != 0 {
                    szx.0 -= 1;
                }
                turn += 1;
                let Some((block, range)) = slice(length, Some(Block::at(at, szx)), room).unwrap() else {
                    prop_assert_eq!(length, 0);
                    break;
                };
                prop_assert_eq!((range.start, block.offset()), (at, at));
                prop_assert!(block.is_length(range.len()) && range.len() <= payload);
                at = range.end;
                if !block.is_more {
                    break;
                }
            }
            prop_assert_eq!(at, length);
        }
    }
}
