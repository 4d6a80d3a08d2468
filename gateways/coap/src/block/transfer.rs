//! The client's side of a transfer (RFC 7959, 2.5 and 2.4): a body that is sent in blocks, and one that is collected.
//!
//! Both are told each answer and say what comes next; messages, tokens and retransmission are their owner's.

use bytes::Bytes;

use super::{Block, Room, Szx};
use crate::frame::{Code, Message};
use crate::options::{BLOCK1, BLOCK2, ETAG};

/// What is to be done after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One more request.
    More,
    /// This was the last answer.
    Done,
}

/// Why a transfer cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The server answered for a block that it was not asked about, or with a length that cannot be.
    Mismatch,
    /// The body became another one on the way; it can be fetched again from its first block.
    Changed,
    /// The body is larger than allowed.
    TooLarge,
}

/// A request's body, sent in blocks if it needs more than one.
#[derive(Clone, Debug)]
pub struct Upload {
    body: Bytes,
    room: Room,
    szx: Szx,
    begin: usize,
}

impl Upload {
    /// Nothing of it was sent.
    pub fn new(body: Bytes, room: Room) -> Upload {
        Upload { body, room, szx: room.preferred(), begin: 0 }
    }

    /// The whole body's bytes, for Size1.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// What the next request carries: Block1, None if the body goes as it is, and the payload.
    pub fn block(&self) -> (Option<Block>, Bytes) {
        if self.body.len() <= self.room.payload && self.szx == self.room.preferred() {
            return (None, self.body.clone());
        }
        let end = (self.begin + self.room.of(self.szx)).min(self.body.len());
        let block = Block { is_more: end < self.body.len(), ..Block::at(self.begin, self.szx) };
        (Some(block), self.body.slice(self.begin..end))
    }

    /// Takes the answer to the request that carried [`Upload::block`]. After [`Progress::Done`] the answer is the whole
    /// request's, an error or not.
    pub fn answered(&mut self, response: &Message) -> Result<Progress, Broken> {
        let (sent, payload) = self.block();
        let wanted = Block::of(response, BLOCK1);
        if response.code == Code::TOO_LARGE {
            return Ok(self.smaller(wanted));
        }
        let Some(sent) = sent.filter(|b| b.is_more && response.code.class() == 2) else {
            return Ok(Progress::Done);
        };
        let wanted = match wanted {
            // Servers answer with a smaller size under the number of the larger block, or under their own (2.5).
            Some(b) if b.number == sent.number || b.offset() == sent.offset() => b,
            Some(_) => return Err(Broken::Mismatch),
            // A final answer before all was sent: the server wants no more.
            None if response.code != Code::CONTINUE => return Ok(Progress::Done),
            None => sent,
        };
        self.begin += payload.len();
        self.szx = self.szx.min(wanted.szx);
        Ok(Progress::More)
    }

    /// 4.13: from the beginning in smaller blocks if the answer names a smaller size (2.9.3), otherwise it is too large.
    fn smaller(&mut self, wanted: Option<Block>) -> Progress {
        match wanted {
            Some(b) if self.begin == 0 && b.szx < self.szx => {
                self.szx = b.szx;
                Progress::More
            }
            _ => Progress::Done,
        }
    }
}

/// A response's body, collected from blocks if it comes in more than one.
#[derive(Clone, Debug)]
pub struct Download {
    body: Vec<u8>,
    etag: Option<Vec<u8>>,
    szx: Szx,
    most: usize,
}

impl Download {
    /// Nothing of it came; it may have `most` bytes, in blocks of at most this size.
    pub fn new(most: usize, szx: Szx) -> Download {
        Download { body: Vec::new(), etag: None, szx, most }
    }

    /// Block2 of the next request. The first one may go without.
    pub fn block(&self) -> Block {
        Block::at(self.body.len(), self.szx)
    }

    /// Takes the answer to the request for [`Download::block`].
    pub fn answered(&mut self, response: &Message) -> Result<Progress, Broken> {
        let etag = response.all(ETAG).next();
        let block = Block::of(response, BLOCK2);
        let is_first = self.body.is_empty();
        let Some(block) = block else {
            // Whole, or an error; in the midst of a transfer neither belongs to what came before.
            if !is_first {
                return Err(if response.code.class() == 2 { Broken::Changed } else { Broken::Mismatch });
            }
            return self.take(&response.payload).map(|()| Progress::Done);
        };
        if block.offset() != self.body.len() || !block.is_length(response.payload.len()) {
            return Err(Broken::Mismatch);
        }
        if !is_first && self.etag.as_deref() != etag {
            return Err(Broken::Changed);
        }
        self.etag = etag.map(<[u8]>::to_vec);
        self.take(&response.payload)?;
        self.szx = self.szx.min(block.szx);
        Ok(if block.is_more { Progress::More } else { Progress::Done })
    }

    /// What came.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    fn take(&mut self, payload: &[u8]) -> Result<(), Broken> {
        if self.body.len() + payload.len() > self.most {
            return Err(Broken::TooLarge);
        }
        self.body.extend_from_slice(payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::slice;
    use crate::frame::Kind;

    const UDP: Room = Room { payload: 1024, szx: Szx::LARGEST };

    fn answer(code: Code, option: u16, block: Option<Block>, payload: &[u8]) -> Message {
        let mut m = Message { code, payload: payload.to_vec(), ..Message::empty(Kind::Ack, 1) };
        if let Some(block) = block {
            m.add_uint(option, block.encode());
        }
        m
    }

    fn szx(number: u8) -> Szx {
        Szx::new(number).unwrap()
    }

    #[test]
    fn a_body_that_fits_goes_without_an_option() {
        let mut upload = Upload::new(Bytes::from(vec![1; 1024]), UDP);
        assert_eq!(upload.block(), (None, Bytes::from(vec![1; 1024])));
        assert_eq!(upload.answered(&answer(Code::CHANGED, BLOCK1, None, b"")), Ok(Progress::Done));
    }

    #[test]
    fn smaller_blocks_are_sent_from_where_the_server_asks_for_them() {
        // RFC 7959, 3.2, figure 9, with 1024 and 256 bytes.
        let mut upload = Upload::new(Bytes::from(vec![1; 1400]), UDP);
        let (first, payload) = upload.block();
        assert_eq!((first.unwrap().is_more, payload.len()), (true, 1024));
        let wanted = Block { number: 0, is_more: true, szx: szx(4) };
        assert_eq!(upload.answered(&answer(Code::CONTINUE, BLOCK1, Some(wanted), b"")), Ok(Progress::More));
        let (second, payload) = upload.block();
        assert_eq!(second, Some(Block { number: 4, is_more: true, szx: szx(4) }));
        assert_eq!(payload.len(), 256);
        assert_eq!(upload.answered(&answer(Code::CONTINUE, BLOCK1, second, b"")), Ok(Progress::More));
        let (last, payload) = upload.block();
        assert_eq!(last, Some(Block { number: 5, is_more: false, szx: szx(4) }));
        assert_eq!(payload.len(), 120);
        assert_eq!(upload.answered(&answer(Code::CHANGED, BLOCK1, last, b"")), Ok(Progress::Done));
    }

    #[test]
    fn a_block_that_is_too_large_is_sent_again_as_smaller_ones() {
        let mut upload = Upload::new(Bytes::from(vec![1; 100]), UDP);
        let wanted = Block { number: 0, is_more: false, szx: szx(1) };
        assert_eq!(upload.answered(&answer(Code::TOO_LARGE, BLOCK1, Some(wanted), b"")), Ok(Progress::More));
        let (first, payload) = upload.block();
        assert_eq!(first, Some(Block { number: 0, is_more: true, szx: szx(1) }));
        assert_eq!(payload.len(), 32);
        // Refused again without another size, it is too large.
        assert_eq!(upload.answered(&answer(Code::TOO_LARGE, BLOCK1, None, b"")), Ok(Progress::Done));
    }

    #[test]
    fn an_answer_for_another_block_ends_the_transfer() {
        let mut upload = Upload::new(Bytes::from(vec![1; 3000]), UDP);
        let other = Block { number: 1, is_more: true, szx: szx(6) };
        assert_eq!(upload.answered(&answer(Code::CONTINUE, BLOCK1, Some(other), b"")), Err(Broken::Mismatch));
        let mut download = Download::new(9000, szx(6));
        let of_another = answer(Code::CONTENT, BLOCK2, Some(other), &[0; 1024]);
        assert_eq!(download.answered(&of_another), Err(Broken::Mismatch));
        let short = Block { number: 0, is_more: true, szx: szx(6) };
        assert_eq!(
            download.answered(&answer(Code::CONTENT, BLOCK2, Some(short), b"x")),
            Err(Broken::Mismatch)
        );
    }

    #[test]
    fn a_body_that_changes_on_the_way_is_noticed() {
        let mut download = Download::new(9000, szx(0));
        let mut first =
            answer(Code::CONTENT, BLOCK2, Some(Block { is_more: true, ..Block::at(0, szx(0)) }), &[1; 16]);
        first.add(ETAG, b"1");
        assert_eq!(download.answered(&first), Ok(Progress::More));
        let mut second = answer(Code::CONTENT, BLOCK2, Some(download.block()), &[2; 5]);
        second.add(ETAG, b"2");
        assert_eq!(download.answered(&second), Err(Broken::Changed));
    }

    #[test]
    fn a_body_that_is_larger_than_allowed_is_not_collected() {
        let mut download = Download::new(20, szx(0));
        let first =
            answer(Code::CONTENT, BLOCK2, Some(Block { is_more: true, ..Block::at(0, szx(0)) }), &[1; 16]);
        assert_eq!(download.answered(&first), Ok(Progress::More));
        let second =
            answer(Code::CONTENT, BLOCK2, Some(Block { is_more: true, ..download.block() }), &[1; 16]);
        assert_eq!(download.answered(&second), Err(Broken::TooLarge));
        assert_eq!(
            Download::new(20, szx(0)).answered(&answer(Code::CONTENT, BLOCK2, None, &[0; 21])),
            Err(Broken::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn what_is_sent_in_blocks_comes_together(
            body in prop::collection::vec(any::<u8>(), 0..5000),
            payload in 16usize..1500,
            wishes in prop::collection::vec(0u8..=6, 1..10),
        ) {
            let mut upload = Upload::new(Bytes::from(body.clone()), Room { payload, ..UDP });
            let (mut got, mut turn) = (Vec::new(), 0);
            loop {
                let (block, part) = upload.block();
                if let Some(b) = block {
                    prop_assert_eq!(b.offset(), got.len());
                    prop_assert!(b.is_length(part.len()));
                }
                got.extend_from_slice(&part);
                let wish = block.map(|b| Block { szx: szx(wishes[turn % wishes.len()]).min(b.szx), ..b });
                turn += 1;
                let code = if block.is_some_and(|b| b.is_more) { Code::CONTINUE } else { Code::CHANGED };
                if upload.answered(&answer(code, BLOCK1, wish, b"")).unwrap() == Progress::Done {
                    break;
                }
            }
            prop_assert_eq!(got, body);
        }

        #[test]
        fn what_is_fetched_in_blocks_comes_together(
            body in prop::collection::vec(any::<u8>(), 0..5000),
            asked in 0u8..=6,
            rooms in prop::collection::vec(16usize..1500, 1..10),
            is_early: bool,
        ) {
            let (mut download, mut turn) = (Download::new(5000, szx(asked)), 0);
            loop {
                let room = Room { payload: rooms[turn % rooms.len()], ..UDP };
                let wanted = (is_early || turn > 0).then(|| download.block());
                turn += 1;
                let (block, range) = match slice(body.len(), wanted, room).unwrap() {
                    Some((block, range)) => (Some(block), range),
                    None => (None, 0..body.len()),
                };
                let response = answer(Code::CONTENT, BLOCK2, block, &body[range]);
                if download.answered(&response).unwrap() == Progress::Done {
                    break;
                }
            }
            prop_assert_eq!(download.into_body(), body);
        }
    }
}
