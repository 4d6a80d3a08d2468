//! Long messages, which come in sub-packages (JT/T 808, 4.4.3), and asking for those that are missing (0x8003,
//! 8.4).

use super::frame::Header;
use crate::Fault;

/// Most bytes of a terminal's unfinished messages together. A picture has some tens of thousands.
const BYTES: usize = 1 << 20;

/// Most unfinished messages of a terminal: they come one after another.
const MESSAGES: usize = 4;

/// Most sub-packages of a message: a body of 1,023 bytes each makes this a megabyte.
const PARTS: u16 = 1 << 10;

/// What has not grown for so long is given up.
const AGE_MS: u64 = 10 * 60_000;

/// How long after the last sub-package the missing ones are asked for again, and how often.
const PAUSE_MS: u64 = 15_000;
const REQUESTS: u8 = 3;

/// Most sub-packages that are asked for at once: what a body can name in both texts of the standard.
const NAMED: usize = 125;

/// The unfinished messages of a terminal.
#[derive(Debug, Default)]
pub(super) struct Parts {
    messages: Vec<Message>,
    bytes: usize,
}

/// Serial number and body.
type Part = (u16, Box<[u8]>);

#[derive(Debug)]
struct Message {
    id: u16,
    /// By their place; None where one has not come yet.
    parts: Vec<Option<Part>>,
    missing: usize,
    bytes: usize,
    /// When the newest part came, or the missing ones were asked for.
    touched_ms: u64,
    requests: u8,
}

/// What a sub-package brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// More are to come, or this one had come before.
    Kept,
    /// The whole body.
    Whole(Vec<u8>),
}

/// A body of 0x8003: the serial number of the message's first sub-package, and the places of those that are
/// missing.
pub(super) type Missing = Vec<u8>;

impl Parts {
    /// Keeps a sub-package.
    pub(super) fn add(
        &mut self,
        now_ms: u64,
        header: &Header,
        part: (u16, u16),
        body: &[u8],
    ) -> Result<Added, Fault> {
        let (total, place) = part;
        if place == 0 || place > total {
            return Err(Fault::frame(12, format!("sub-package {place} of {total}")));
        }
        if total > PARTS {
            return Err(Fault::frame(12, format!("{total} sub-packages are more than {PARTS}")));
        }
        let index = usize::from(place - 1);
        let found = self.messages.iter().position(|m| m.has_place_for(header, total, index));
        let at = match found {
            Some(at) if self.messages[at].parts[index].is_some() => return Ok(Added::Kept),
            Some(at) => at,
            None => self.begin(header.msg_id, total),
        };
        if self.bytes + body.len() > BYTES {
            self.give_up(at);
            return Err(Fault::frame(0, format!("unfinished messages have more than {BYTES} bytes")));
        }
        self.bytes += body.len();
        let message = &mut self.messages[at];
        message.parts[index] = Some((header.serial, body.into()));
        message.bytes += body.len();
        message.missing -= 1;
        message.touched_ms = now_ms;
        if message.missing > 0 {
            return Ok(Added::Kept);
        }
        let message = self.give_up(at);
        let bodies: Vec<&[u8]> = message.parts.iter().flatten().map(|(_, body)| &**body).collect();
        Ok(Added::Whole(bodies.concat()))
    }

    /// The missing sub-packages of a message whose last one has come, when it has just come or too long ago.
    pub(super) fn missing(&mut self, now_ms: u64, is_2019: bool) -> Option<Missing> {
        while let Some(old) = self.messages.iter().position(|m| now_ms.saturating_sub(m.touched_ms) > AGE_MS)
        {
            self.give_up(old);
        }
        let message = self.messages.iter_mut().find(|m| m.is_to_be_asked_for(now_ms))?;
        message.requests += 1;
        message.touched_ms = now_ms;
        Some(message.request(is_2019))
    }

    fn begin(&mut self, id: u16, total: u16) -> usize {
        if self.messages.len() == MESSAGES {
            self.give_up(0);
        }
        let total = usize::from(total);
        let parts = vec![None; total];
        self.messages.push(Message { id, parts, missing: total, bytes: 0, touched_ms: 0, requests: 0 });
        self.messages.len() - 1
    }

    fn give_up(&mut self, at: usize) -> Message {
        let message = self.messages.remove(at);
        self.bytes -= message.bytes;
        message
    }
}

impl Message {
    /// Whether this is a sub-package of this message and not of a later one that has as many. Sub-packages have
    /// serial numbers one after another; a terminal that says something else in between leaves some out.
    fn has_place_for(&self, header: &Header, total: u16, index: usize) -> bool {
        let base = |serial: u16, index: usize| serial.wrapping_sub(index as u16);
        let mine = base(header.serial, index);
        let is_in_order = |(i, part): (usize, &Option<Part>)| {
            let Some((serial, _)) = part else { return true };
            let theirs = base(*serial, i);
            let ahead = if i <= index { mine.wrapping_sub(theirs) } else { theirs.wrapping_sub(mine) };
            if i == index { ahead == 0 } else { ahead < 1 << 15 }
        };
        self.id == header.msg_id
            && self.parts.len() == usize::from(total)
            && self.parts.iter().enumerate().all(is_in_order)
    }

    fn is_to_be_asked_for(&self, now_ms: u64) -> bool {
        let has_last = self.parts.last().is_some_and(Option::is_some);
        let is_late = now_ms.saturating_sub(self.touched_ms) >= PAUSE_MS;
        self.requests < REQUESTS && (is_late || (has_last && self.requests == 0))
    }

    fn request(&self, is_2019: bool) -> Missing {
        let first = self.parts.iter().enumerate().find_map(|(i, part)| {
            let (serial, _) = part.as_ref()?;
            Some(serial.wrapping_sub(i as u16))
        });
        let places = self.parts.iter().zip(1u16..).filter(|(part, _)| part.is_none()).map(|(_, place)| place);
        let places: Vec<u16> = places.take(NAMED).collect();
        let mut body = first.unwrap_or_default().to_be_bytes().to_vec();
        // A BYTE in 2013, a WORD in 2019.
        if is_2019 {
            body.push(0);
        }
        body.push(places.len() as u8);
        body.extend(places.iter().flat_map(|place| place.to_be_bytes()));
        body
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Phone;
    use super::*;

    fn header(serial: u16) -> Header {
        Header { msg_id: 0x0801, encryption: 0, version: None, phone: Phone::default(), serial, part: None }
    }

    fn add(parts: &mut Parts, serial: u16, total: u16, place: u16, body: &str) -> Added {
        parts.add(1000, &header(serial), (total, place), body.as_bytes()).unwrap()
    }

    fn whole(text: &str) -> Added {
        Added::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn sub_packages_make_the_message_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2]] {
            let mut parts = Parts::default();
            let mut last = Added::Kept;
            for place in order {
                assert_eq!(last, Added::Kept);
                // The serial numbers go over the end.
                last = add(
                    &mut parts,
                    0xfffe_u16.wrapping_add(place),
                    3,
                    place,
                    &"abc"[usize::from(place) - 1..][..1],
                );
            }
            assert_eq!(last, whole("abc"), "{order:?}");
            assert_eq!(parts.bytes, 0);
        }
    }

    #[test]
    fn one_that_comes_twice_counts_once() {
        let mut parts = Parts::default();
        assert_eq!(add(&mut parts, 7, 2, 1, "a"), Added::Kept);
        assert_eq!(add(&mut parts, 7, 2, 1, "a"), Added::Kept);
        assert_eq!(add(&mut parts, 8, 2, 2, "b"), whole("ab"));
    }

    #[test]
    fn another_message_in_between_does_not_matter() {
        let mut parts = Parts::default();
        add(&mut parts, 7, 3, 1, "a");
        add(&mut parts, 9, 3, 2, "b");
        assert_eq!(add(&mut parts, 12, 3, 3, "c"), whole("abc"));
    }

    #[test]
    fn parts_of_two_messages_are_never_mixed() {
        let mut parts = Parts::default();
        add(&mut parts, 7, 3, 2, "b");
        add(&mut parts, 8, 3, 3, "c");
        // The first message gave up without its first part; the second one has as many.
        assert_eq!(add(&mut parts, 20, 3, 1, "A"), Added::Kept);
        assert_eq!(add(&mut parts, 21, 3, 2, "B"), Added::Kept);
        assert_eq!(add(&mut parts, 22, 3, 3, "C"), whole("ABC"));
    }

    #[test]
    fn the_missing_ones_are_asked_for_when_the_last_has_come_and_later_again() {
        let mut parts = Parts::default();
        add(&mut parts, 0x0100, 4, 1, "a");
        assert_eq!(parts.missing(1000, false), None, "more may come");
        add(&mut parts, 0x0103, 4, 4, "d");
        assert_eq!(parts.missing(1000, false), Some(vec![1, 0, 2, 0, 2, 0, 3]));
        assert_eq!(parts.missing(1000, false), None);
        assert_eq!(parts.missing(16_000, true), Some(vec![1, 0, 0, 2, 0, 2, 0, 3]));
        assert_eq!(parts.missing(31_000, false), Some(vec![1, 0, 2, 0, 2, 0, 3]));
        assert_eq!(parts.missing(999_000, false), None, "three times are enough");
        assert_eq!((parts.messages.len(), parts.bytes), (0, 0), "and it is given up");
    }

    #[test]
    fn what_is_kept_has_bounds() {
        let mut parts = Parts::default();
        let add = |parts: &mut Parts, serial, part, body: &[u8]| parts.add(0, &header(serial), part, body);
        assert!(add(&mut parts, 1, (2, 0), b"").is_err());
        assert!(add(&mut parts, 1, (2, 3), b"").is_err());
        assert!(add(&mut parts, 1, (PARTS + 1, 1), b"").is_err());
        for serial in 0..100 {
            add(&mut parts, serial * 100, (2, 1), b"x").unwrap();
        }
        assert_eq!((parts.messages.len(), parts.bytes), (MESSAGES, MESSAGES));
        let (mut place, mut parts) = (0, Parts::default());
        let fault = loop {
            place += 1;
            if let Err(fault) = add(&mut parts, place, (PARTS, place), &[0; 1100]) {
                break fault;
            }
        };
        assert!(fault.why.contains("1048576 bytes"), "{fault:?}");
        assert_eq!(parts.bytes, 0);
    }
}
