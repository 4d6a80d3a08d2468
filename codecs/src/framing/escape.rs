//! How bytes that would end a frame are written within it.

use crate::Fault;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// This byte says that the next one is meant as it is.
    Prefix(u8),
    /// Each of these bytes is written as these two, which all begin with the same byte.
    Pairs(Vec<(u8, [u8; 2])>),
}

impl Escape {
    /// `5c`, or `7e=7d02,7d=7d01`.
    pub(super) fn read(text: &str) -> Result<Escape, String> {
        if !text.contains('=') {
            return match crate::hex::decode(text)?[..] {
                [byte] => Ok(Escape::Prefix(byte)),
                _ => Err("must be one byte, or pairs such as \"7e=7d02,7d=7d01\"".to_owned()),
            };
        }
        let pair = |pair: &str| -> Result<(u8, [u8; 2]), String> {
            let (byte, written) = pair.split_once('=').unwrap_or((pair, ""));
            match (&crate::hex::decode(byte)?[..], &crate::hex::decode(written)?[..]) {
                ([byte], [a, b]) => Ok((*byte, [*a, *b])),
                _ => Err(format!("{pair:?} must be one byte, `=` and the two that are written for it")),
            }
        };
        let pairs = text.split([',', ' ']).filter(|p| !p.is_empty()).map(pair);
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        let first = pairs.first().map_or(0, |(_, [a, _])| *a);
        let is_twice = |i: usize| {
            let (byte, written) = pairs[i];
            pairs[..i].iter().any(|(b, w)| *b == byte || *w == written)
        };
        match () {
            () if pairs.iter().any(|(_, [a, _])| *a != first) => {
                Err("what is written must begin with the same byte for all".to_owned())
            }
            () if !pairs.iter().any(|(byte, _)| *byte == first) => {
                Err(format!("must say how {first:02x} itself is written"))
            }
            () if (0..pairs.len()).any(is_twice) => Err("says the same byte twice".to_owned()),
            () => Ok(Escape::Pairs(pairs)),
        }
    }

    /// Whether this byte never stands in a frame as itself, when `delimiter` is escaped.
    pub(super) fn hides(&self, delimiter: u8) -> bool {
        match self {
            Escape::Prefix(byte) => *byte != delimiter,
            Escape::Pairs(pairs) => {
                let is_written = |(_, [a, b]): &(u8, [u8; 2])| *a == delimiter || *b == delimiter;
                pairs.iter().any(|(byte, _)| *byte == delimiter) && !pairs.iter().any(is_written)
            }
        }
    }

    /// Where `delimiter` first stands in `bytes` and is meant as that.
    pub(super) fn find(&self, bytes: &[u8], delimiter: u8) -> Option<usize> {
        let Escape::Prefix(prefix) = self else { return bytes.iter().position(|b| *b == delimiter) };
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if *byte == delimiter {
                return Some(at);
            }
            at += if byte == prefix { 2 } else { 1 };
        }
        None
    }

    /// Takes it off. Where a fault is, counts in `bytes`.
    pub(super) fn remove(&self, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let first = self.first();
        let mut plain = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if *byte != first {
                plain.push(*byte);
                at += 1;
                continue;
            }
            let Some(next) = bytes.get(at + 1) else {
                return Err(Fault::frame(at, format!("the frame ends after the escape {first:02x}")));
            };
            let meant = match self {
                Escape::Prefix(_) => Some(*next),
                Escape::Pairs(pairs) => pairs.iter().find(|(_, w)| *w == [first, *next]).map(|(b, _)| *b),
            };
            let why = || Fault::frame(at + 1, format!("{first:02x}{next:02x} is the escape of nothing"));
            plain.push(meant.ok_or_else(why)?);
            at += 2;
        }
        Ok(plain)
    }

    /// Where in `bytes` the plain byte of this number is written.
    pub(super) fn written_at(&self, bytes: &[u8], plain: usize) -> usize {
        let first = self.first();
        let mut at = 0;
        for _ in 0..plain {
            at += if bytes.get(at) == Some(&first) { 2 } else { 1 };
        }
        at.min(bytes.len())
    }

    /// What every escape begins with.
    fn first(&self) -> u8 {
        match self {
            Escape::Prefix(byte) => *byte,
            Escape::Pairs(pairs) => pairs.first().map_or(0, |(_, [a, _])| *a),
        }
    }

    /// Puts it on.
    pub(super) fn add(&self, plain: &[u8], delimiter: u8, into: &mut Vec<u8>) {
        for byte in plain {
            match self {
                Escape::Prefix(prefix) if byte == prefix || *byte == delimiter => {
                    into.extend([*prefix, *byte])
                }
                Escape::Prefix(_) => into.push(*byte),
                Escape::Pairs(pairs) => match pairs.iter().find(|(b, _)| b == byte) {
                    Some((_, written)) => into.extend(written),
                    None => into.push(*byte),
                },
            }
        }
    }
}
