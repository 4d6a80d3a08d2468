//! Keys: a table, and what is looked for in it.

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

/// Longest text that a key holds as it is; the engine takes no key of more than 65,535 bytes.
const LONGEST: usize = 1024;

/// The tables. Their numbers are the first byte of every key on the disk and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Facts about the store itself.
    Meta = 1,
    /// Sessions by number.
    Sessions = 2,
    /// Subscriptions by session and filter.
    Filters = 3,
    /// Retained messages by topic.
    Retained = 4,
    /// Delayed messages by serial number.
    Delayed = 5,
    /// What gateways keep with a session, by session and name.
    Facts = 6,
    /// Sessions that have ended and whose records are still to be removed.
    Ended = 7,
    /// DTLS associations that go on after a restart, by listener and connection id.
    Associations = 8,
    /// Messages that wait, by session and sequence number.
    Queue = 16,
    /// Messages that wait for more than one session, by number.
    Shared = 17,
    /// Deliveries in flight, by session and packet id.
    Flights = 18,
    /// QoS 2 packet ids received and not released, by session and id.
    Incoming = 19,
    /// Which record numbers such an association has used, by listener and connection id.
    Records = 20,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 13] = [
        Table::Meta,
        Table::Sessions,
        Table::Filters,
        Table::Retained,
        Table::Delayed,
        Table::Facts,
        Table::Ended,
        Table::Associations,
        Table::Queue,
        Table::Shared,
        Table::Flights,
        Table::Incoming,
        Table::Records,
    ];

    /// Tables whose records belong to a session and begin with its number.
    pub(crate) const OF_SESSIONS: [Table; 5] =
        [Table::Filters, Table::Facts, Table::Queue, Table::Flights, Table::Incoming];

    /// Whether its records come and go with every message.
    pub(crate) fn is_busy(first: u8) -> bool {
        first >= Table::Queue as u8
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Sessions => "sessions",
            Table::Filters => "subscriptions",
            Table::Retained => "retained",
            Table::Delayed => "delayed",
            Table::Facts => "facts",
            Table::Ended => "ended",
            Table::Associations => "associations",
            Table::Queue => "queued",
            Table::Shared => "shared",
            Table::Flights => "inflight",
            Table::Incoming => "incoming",
            Table::Records => "records",
        }
    }
}

/// A key, made from its parts; numbers are ordered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(SmallVec<[u8; 24]>);

impl Key {
    /// The first key of a table.
    pub fn new(table: Table) -> Key {
        Key(SmallVec::from_slice(&[table as u8]))
    }

    /// The end of a table: no key of it is as large.
    pub fn end(table: Table) -> Key {
        Key(SmallVec::from_slice(&[table as u8 + 1]))
    }

    /// With a number behind.
    #[must_use]
    pub fn number(mut self, n: u64) -> Key {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// With a packet id behind.
    #[must_use]
    pub fn id(mut self, id: u16) -> Key {
        self.0.extend_from_slice(&id.to_be_bytes());
        self
    }

    /// With text behind; there is nothing after it. Of long text the key holds the beginning and a hash, behind a byte that
    /// no text has: whoever wants the text back has it in the value.
    #[must_use]
    pub fn text(mut self, text: &[u8]) -> Key {
        if Key::is_long(text) {
            self.0.extend_from_slice(&text[..LONGEST]);
            self.0.push(0);
            self.0.extend_from_slice(&Sha256::digest(text));
        } else {
            self.0.extend_from_slice(text);
        }
        self
    }

    /// Whether a key does not hold this text as it is.
    pub fn is_long(text: &[u8]) -> bool {
        text.len() > LONGEST
    }

    /// The key that a scan has visited.
    pub fn of(table: Table, rest: &[u8]) -> Key {
        let mut key = Key::new(table);
        key.0.extend_from_slice(rest);
        key
    }

    /// A key that is given without its table's byte.
    pub(crate) fn at(table: u8, key: &[u8]) -> Key {
        let mut whole = SmallVec::from_slice(&[table]);
        whole.extend_from_slice(key);
        Key(whole)
    }

    /// The first key behind one that is given without its table's byte.
    pub(crate) fn behind(table: u8, key: &[u8]) -> Key {
        let mut next = SmallVec::from_slice(&[table]);
        next.extend_from_slice(key);
        next.push(0);
        Key(next)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The number at the front of a key's or value's bytes, and what follows it.
pub fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_long_texts_are_short_and_different() {
        let long = |last: u8| [vec![b'x'; 65_534], vec![last]].concat();
        let (a, b) =
            (Key::new(Table::Retained).text(&long(b'a')), Key::new(Table::Retained).text(&long(b'b')));
        assert!(a != b && a.as_bytes().len() < 1100);
        let short = Key::new(Table::Retained).text(&[b'x'; LONGEST]);
        assert_eq!(short.as_bytes().len(), 1 + LONGEST);
    }
}
