//! Bodies of requests that come in blocks (RFC 7959, 2.5), put together until the last one is there.
//!
//! A transfer belongs to one peer and one request: method and options but for those that say nothing about what is asked
//! (NoCacheKey), Block1, Block2, Content-Format and Observe. Request-Tag (RFC 9175, 3) is one of the options that count,
//! so a client tells transfers to the same resource apart with it.
//!
//! ```text
//! block 0, more   -> a transfer begins; one that was there is forgotten
//! the next one    -> appended
//! one that was    -> the same bytes: nothing to do; others: the transfer is over, 4.08
//! one too far on  -> 4.08; the missing one may still come
//! the last one    -> the body is handed on, and nothing is left
//! ```

use std::hash::Hash;

use gateway::Instant;

use crate::block::{Block, Room};
use crate::frame::{Code, Message};
use crate::options::{BLOCK1, BLOCK2, CONTENT_FORMAT, OBSERVE, SIZE1};
use crate::shelf::Shelf;

pub use crate::shelf::{Budget, Limits};

/// Bytes that a transfer costs beside its body.
const OVERHEAD: usize = 256;

/// Where a block came from.
#[derive(Clone, Copy, Debug)]
pub struct From<P> {
    /// Who sent it.
    pub peer: P,
    /// Nobody else can have written that address: the transfer does not make room for those of others.
    pub is_verified: bool,
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// 2.31 with this Block1.
    Continue(Block),
    /// The last one: the whole body.
    Whole(Vec<u8>),
}

/// Why a block was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its payload is not as long as its size says: 4.00.
    Length,
    /// Blocks before it are missing, or it fits nothing that was begun: 4.08 (RFC 7959, 2.9.2).
    Incomplete,
    /// The body is, or will be, larger than the limit: 4.13 with Size1 (2.9.3).
    TooLarge,
    /// There is no room for one more transfer now: 5.03.
    NoRoom,
}

impl Wrong {
    /// The code of the answer.
    pub fn code(self) -> Code {
        match self {
            Wrong::Length => Code::BAD_REQUEST,
            Wrong::Incomplete => Code::INCOMPLETE,
            Wrong::TooLarge => Code::TOO_LARGE,
            Wrong::NoRoom => Code::UNAVAILABLE,
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Wrong::Length => "a block has not the length that it says",
            Wrong::Incomplete => "blocks are missing",
            Wrong::TooLarge => "the body is too large",
            Wrong::NoRoom => "too many bodies are on their way",
        }
    }
}

#[derive(Debug)]
struct Partial {
    /// Content-Format: of one body there is one.
    format: Option<u32>,
    bytes: Vec<u8>,
}

/// Bodies that are on their way, of peers `P`.
#[derive(Debug)]
pub struct Bodies<P> {
    shelf: Shelf<P, Box<[u8]>, Partial>,
}

impl<P: Copy + Ord + Hash> Bodies<P> {
    /// None is on its way. `budget` is what counts against [`Limits::all`].
    pub fn new(limits: Limits, budget: Budget) -> Bodies<P> {
        Bodies { shelf: Shelf::new(limits, budget) }
    }

    /// Takes one block. `room` is what the peer is asked to send in one message from now on.
    pub fn take(
        &mut self,
        now: Instant,
        from: From<P>,
        request: &Message,
        block: Block,
        room: Room,
    ) -> Result<Taken, Wrong> {
        self.expire(now);
        let key = key(request);
        let taken = self.append(now, from, &key, request, block);
        match taken {
            // What cannot become a body any more takes no room.
            Err(Wrong::Incomplete) if self.is_ahead(from.peer, &key, block) => Err(Wrong::Incomplete),
            Err(why) => {
                self.shelf.remove(from.peer, &key[..]);
                Err(why)
            }
            Ok(None) => {
                // Control usage: smaller ones if it is to be so (RFC 7959, 2.3).
                Ok(Taken::Continue(Block { szx: block.szx.min(room.preferred()), ..block }))
            }
            Ok(Some(whole)) => Ok(Taken::Whole(whole)),
        }
    }

    fn is_ahead(&mut self, peer: P, key: &[u8], block: Block) -> bool {
        self.shelf.get(peer, key).is_some_and(|p| block.offset() > p.bytes.len())
    }

    fn append(
        &mut self,
        now: Instant,
        from: From<P>,
        key: &[u8],
        request: &Message,
        block: Block,
    ) -> Result<Option<Vec<u8>>, Wrong> {
        let most = self.shelf.limits().body;
        let payload = &request.payload[..];
        if !block.is_length(payload.len()) {
            return Err(Wrong::Length);
        }
        let end = block.offset() + payload.len();
        if end > most || request.uint(SIZE1).is_some_and(|size| size as usize > most) {
            return Err(Wrong::TooLarge);
        }
        let format = request.uint(CONTENT_FORMAT);
        if block.number == 0 {
            self.shelf.remove(from.peer, key);
            if !block.is_more {
                return Ok(Some(payload.to_vec()));
            }
            let partial = Partial { format, bytes: payload.to_vec() };
            let cost = OVERHEAD + key.len() + partial.bytes.capacity();
            let is_kept = self.shelf.insert(now, from.peer, key.into(), partial, cost, from.is_verified);
            return if is_kept { Ok(None) } else { Err(Wrong::NoRoom) };
        }
        let partial = self.shelf.get(from.peer, key).ok_or(Wrong::Incomplete)?;
        if partial.format != format {
            return Err(Wrong::Incomplete);
        }
        let have = partial.bytes.len();
        if block.offset() < have {
            // It came before, in a message of its own; then it is not the last one.
            let is_same = partial.bytes.get(block.offset()..end) == Some(payload) && block.is_more;
            let is_kept = is_same && self.shelf.touch(now, from.peer, key, 0, from.is_verified);
            return if is_kept { Ok(None) } else { Err(Wrong::Incomplete) };
        }
        if block.offset() > have {
            return Err(Wrong::Incomplete);
        }
        if !block.is_more {
            let mut bytes = self.shelf.remove(from.peer, key).map(|p| p.bytes).unwrap_or_default();
            bytes.reserve_exact(payload.len());
            bytes.extend_from_slice(payload);
            return Ok(Some(bytes));
        }
        let capacity = partial.bytes.capacity();
        // Doubled, so that it is not copied for each block, but never past the limit.
        let wanted = if end > capacity { (2 * capacity).clamp(end, most.max(end)) } else { capacity };
        if !self.shelf.touch(now, from.peer, key, wanted - capacity, from.is_verified) {
            return Err(Wrong::NoRoom);
        }
        if let Some(partial) = self.shelf.get(from.peer, key) {
            partial.bytes.reserve_exact(wanted - have);
            partial.bytes.extend_from_slice(payload);
        }
        Ok(None)
    }

    /// Forgets the transfers of a peer.
    pub fn forget(&mut self, peer: P) {
        self.shelf.forget(peer);
    }

    /// Forgets transfers that did not go on in time.
    pub fn expire(&mut self, now: Instant) {
        self.shelf.expire(now);
    }

    /// When the next one is forgotten.
    pub fn next(&self) -> Option<Instant> {
        self.shelf.next()
    }

    /// Bytes that they take.
    pub fn used(&self) -> usize {
        self.shelf.used()
    }

    /// Bytes that the transfers of a peer take.
    pub fn used_by(&self, peer: P) -> usize {
        self.shelf.used_by(peer)
    }
}

/// What makes requests parts of one transfer.
fn key(request: &Message) -> Box<[u8]> {
    let counts = |number: u16| {
        // NoCacheKey (RFC 7252, 5.4.2), such as Size1 and Echo.
        let is_no_cache_key = number & 0x1E == 0x1C;
        !is_no_cache_key && ![BLOCK1, BLOCK2, CONTENT_FORMAT, OBSERVE].contains(&number)
    };
    let mut key = vec![request.code.0];
    for (number, value) in request.options.iter().filter(|(number, _)| counts(*number)) {
        key.extend_from_slice(&number.to_be_bytes());
        // A datagram is shorter than 64 KiB, and options that come by TCP are bounded by their own lengths.
        key.extend_from_slice(&(value.len() as u32).to_be_bytes());
        key.extend_from_slice(value);
    }
    key.into()
}

#[cfg(test)]
mod tests;
