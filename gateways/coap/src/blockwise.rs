//! Block-wise transfers of the resources here (RFC 7959): what of a request's body is missing, and which part of an answer
//! goes into one message.
//!
//! The rest of an answer is fetched with requests of their own. So that they all get parts of one representation, however
//! often the value changes meanwhile and whether or not it is retained, the representation is kept for the peer until it
//! was not asked for in EXCHANGE_LIFETIME, or the room is needed.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use gateway::{Action, DeliveryId, Instant, Message as Published, Now, Outbox, Peer, Settle};

use crate::block::{Asked, Block, PastEnd, Room, Szx, slice};
use crate::body::{self, Budget, Taken, Wrong};
use crate::exchange::EXCHANGE_LIFETIME;
use crate::frame::{Code, Message};
use crate::options::{BLOCK1, BLOCK2, CONTENT_FORMAT, ETAG, OBSERVE, SIZE1, SIZE2};
use crate::request::Operation;
use crate::resource::uint;
use crate::{Coap, Config, Response};

/// Memory for options and what else a representation costs beside its payload.
const OVERHEAD: usize = 256;

/// What a representation is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// A topic, or what a filter found last.
    Topic(String),
    /// `/.well-known/core` with this query.
    Links(Option<(String, String)>),
}

/// A representation whose first block was sent, and what it is fetched as.
pub(crate) type Rest = ([Resource; 2], Response);

/// A delivery of QoS 1 or 2 whose first block was sent: it is settled, and the next one comes, when the client has the last
/// block or does not ask for more. Otherwise the next one would take its place before anybody could have fetched it.
#[derive(Clone, Debug)]
pub(crate) struct Fetching {
    delivery: DeliveryId,
    of: [Resource; 2],
    /// How long the next request for a part is waited for; for ever until the first block is acknowledged.
    pub(crate) due: Instant,
}

/// ACK_TIMEOUTs without a request for the next part after which the client does not seem to want it: one that is lost is
/// sent again after at most one and a half (RFC 7252, 4.8). Longer, those who never fetch it would hear of the next one late.
const PATIENCE: u32 = 2;

impl AsRef<Resource> for Resource {
    fn as_ref(&self) -> &Resource {
        self
    }
}

/// What the machines of a gateway have together for bodies that come, and for those that go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budgets {
    pub(crate) bodies: Budget,
    pub(crate) served: Budget,
}

/// The bounds of bodies that come.
pub(crate) fn limits(config: &Config) -> body::Limits {
    body::Limits {
        body: config.max_body_size,
        // One of the largest with its options.
        peer: config.max_body_size + 65_536,
        all: config.max_reassembly,
        unverified: config.max_reassembly / 2,
        lifetime: EXCHANGE_LIFETIME,
    }
}

/// The bounds of bodies that go: all of them make room for each other.
pub(crate) fn limits_served(config: &Config) -> body::Limits {
    body::Limits { unverified: config.max_reassembly, ..limits(config) }
}

/// Whether the operation takes a body, which may come in blocks.
pub(crate) fn takes_body(operation: &Operation) -> bool {
    matches!(operation, Operation::Publish { is_delete: false, .. })
}

impl Coap {
    /// What one message to the peer may carry.
    pub(crate) fn room(&self, _: Peer) -> Room {
        match &self.stream {
            Some(stream) => stream.room(),
            None => Room { payload: self.config.max_payload, szx: Szx::LARGEST },
        }
    }

    /// What one message from the peer may carry.
    fn room_here(&self) -> Room {
        match &self.stream {
            Some(_) => Room { payload: self.config.max_message_size, szx: Szx::BERT },
            None => Room { payload: self.config.max_payload, szx: Szx::LARGEST },
        }
    }

    /// The request's whole body, or what is answered as long as it is not there.
    pub(crate) fn body(&mut self, now: Now, peer: Peer, request: &mut Message) -> Result<Bytes, Response> {
        let Some(block) = Block::of(request, BLOCK1) else {
            if request.payload.len() > self.config.max_body_size {
                return Err(self.not_taken(Wrong::TooLarge));
            }
            return Ok(std::mem::take(&mut request.payload).into());
        };
        let from = body::From { peer, is_verified: !self.is_open_to_spoofing(peer) };
        let room = self.room_here();
        match self.bodies.take(now.instant, from, request, block, room) {
            Ok(Taken::Whole(whole)) => Ok(whole.into()),
            Ok(Taken::Continue(block)) => {
                let options = vec![(BLOCK1, uint(block.encode()))];
                Err(Response { options, ..Response::new(Code::CONTINUE) })
            }
            Err(why) => Err(self.not_taken(why)),
        }
    }

    fn not_taken(&self, why: Wrong) -> Response {
        let mut response = Response::error(why.code(), why.text());
        if why == Wrong::TooLarge {
            let most = u32::try_from(self.config.max_body_size).unwrap_or(u32::MAX);
            response.options.push((SIZE1, uint(most)));
        }
        response
    }

    /// What was sent a part of before, if a later part of it is asked for.
    pub(crate) fn later_part(
        &mut self,
        now: Now,
        peer: Peer,
        request: &Message,
        of: &Resource,
        out: &mut Outbox,
    ) -> Option<Response> {
        let asked = Block::of(request, BLOCK2).filter(|b| b.number > 0)?;
        self.served.touch(now.instant, peer, of, 0, false);
        let whole = self.served.get(peer, of).cloned()?;
        let part = slice(whole.payload.len(), Some(asked), self.room(peer));
        let is_last = matches!(part, Ok(Some((block, _))) if !block.is_more);
        self.fetched(now, peer, of, is_last, out);
        Some(whole)
    }

    /// Keeps a representation whose later parts may be asked for.
    fn keep_served(&mut self, now: Now, peer: Peer, of: Resource, mut whole: Response) {
        // Only the first block belongs to an observation (RFC 7959, 2.6).
        whole.options.retain(|(number, _)| *number != OBSERVE);
        let cost = OVERHEAD + whole.payload.len();
        self.served.insert(now.instant, peer, of, whole, cost, false);
    }

    /// Keeps what a notification is the first block of: what is observed and its topic, which are fetched alike.
    pub(crate) fn keep_rest(
        &mut self,
        now: Now,
        peer: Peer,
        rest: Option<Rest>,
        delivery: Option<DeliveryId>,
    ) {
        let Some((of, whole)) = rest else { return };
        if let (Some(delivery), Some(c)) = (delivery, self.peers.get_mut(&peer)) {
            c.fetching = Some(Fetching { delivery, of: of.clone(), due: Instant::NEVER });
        }
        let [observed, topic] = of;
        if topic != observed {
            self.keep_served(now, peer, topic, whole.clone());
        }
        self.keep_served(now, peer, observed, whole);
    }

    /// The first block of a delivery was acknowledged or refused; whether the rest is waited for.
    pub(crate) fn awaits_rest(&mut self, now: Now, peer: Peer, delivery: DeliveryId, how: Settle) -> bool {
        let Some(c) = self.peers.get_mut(&peer) else { return false };
        let Some(mut fetching) = c.fetching.take_if(|f| f.delivery == delivery) else { return false };
        if how == Settle::Done {
            fetching.due = now.instant + PATIENCE * self.config.ack_timeout;
            c.fetching = Some(fetching);
        }
        how == Settle::Done
    }

    /// Settles the delivery whose rest nobody asked for in time.
    pub(crate) fn give_up_rest(&mut self, now: Now, peer: Peer, out: &mut Outbox) {
        let Some(c) = self.peers.get_mut(&peer) else { return };
        if let Some(fetching) = c.fetching.take_if(|f| f.due <= now.instant) {
            out.act(Action::Settle(peer, fetching.delivery, Settle::Done));
        }
    }

    /// A part of a representation is sent, the last one perhaps.
    fn fetched(&mut self, now: Now, peer: Peer, of: &Resource, is_last: bool, out: &mut Outbox) {
        let patience = PATIENCE * self.config.ack_timeout;
        let Some(c) = self.peers.get_mut(&peer) else { return };
        let Some(fetching) = c.fetching.as_mut().filter(|f| f.of.contains(of)) else { return };
        let is_acknowledged = fetching.due != Instant::NEVER;
        if is_acknowledged {
            fetching.due = now.instant + patience;
        }
        if is_last && let Some(done) = c.fetching.take()
            // Otherwise the acknowledgement settles it.
            && is_acknowledged
        {
            out.act(Action::Settle(peer, done.delivery, Settle::Done));
        }
    }

    /// The response as one message carries it: the part of its payload that was asked for, or that fits.
    pub(crate) fn fit(&mut self, now: Now, peer: Peer, asked: Asked, mut response: Response) -> Response {
        if let Some(block) = asked.block1
            && response.code.class() == 2
            && response.code != Code::CONTINUE
        {
            response.options.push((BLOCK1, uint(block.encode())));
        }
        // Anything else has no parts that could be asked for.
        let block2 = asked.block2.filter(|_| response.code == Code::CONTENT);
        let length = response.payload.len();
        let (block, range) = match slice(length, block2, self.room(peer)) {
            Ok(Some(part)) => part,
            Ok(None) => {
                response.resource = None;
                return response;
            }
            Err(PastEnd) => return Response::error(Code::BAD_OPTION, "the body has no such block"),
        };
        let is_part = range.len() < length;
        if is_part && response.options.iter().all(|(number, _)| *number != ETAG) {
            response.options.push((ETAG, etag(&response)));
        }
        if let Some(of) = response.resource.take().filter(|_| is_part) {
            self.keep_served(now, peer, of, response.clone());
        }
        if asked.wants_size && block.number == 0 {
            response.options.push((SIZE2, uint(u32::try_from(length).unwrap_or(u32::MAX))));
        }
        response.options.push((BLOCK2, uint(block.encode())));
        response.payload = response.payload.slice(range);
        response
    }
}

/// An entity tag that changes with payload and Content-Format (RFC 7252, 5.10.6).
pub(crate) fn etag(response: &Response) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    response.payload.hash(&mut hasher);
    response.options.iter().find(|(number, _)| *number == CONTENT_FORMAT).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}

/// A message's payload, which is not copied if it is large.
pub(crate) fn payload(message: &Published) -> Bytes {
    struct Payload(Published);
    impl AsRef<[u8]> for Payload {
        fn as_ref(&self) -> &[u8] {
            self.0.payload()
        }
    }
    match message.payload().len() {
        0..=1024 => Bytes::copy_from_slice(message.payload()),
        _ => Bytes::from_owner(Payload(message.clone())),
    }
}
