//! The versions of one codec, and which of them is used for whom.

use super::Found;

/// Versions that are kept of a codec.
pub const KEPT: usize = 10;

/// One version of a codec.
#[derive(Clone)]
pub struct Version {
    /// Counts from one; never given twice under one name.
    pub number: u32,
    /// Of its source: SHA-256 in hexadecimal.
    pub hash: Box<str>,
    /// When it was read, in milliseconds since 1970.
    pub loaded_ms: u64,
    /// The file that it came from.
    pub from: Box<str>,
    /// How it is used.
    pub found: Found,
}

/// A version that some devices try before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its number.
    pub version: u32,
    /// How many of a hundred devices.
    pub share: u8,
}

/// See the module.
#[derive(Clone, Default)]
pub struct Shelf {
    /// Oldest first, at most [`KEPT`].
    pub versions: Vec<Version>,
    /// The last number given.
    pub last: u32,
    /// What devices use.
    pub current: Option<u32>,
    /// What some of them use.
    pub canary: Option<Canary>,
    /// What was current before, the latest at the end: the way back.
    pub before: Vec<u32>,
}

impl Shelf {
    /// The version of this number.
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.versions.iter().find(|v| v.number == number)
    }

    /// The kept version of this source.
    pub fn by_hash(&self, hash: &str) -> Option<&Version> {
        self.versions.iter().rev().find(|v| *v.hash == *hash)
    }

    /// What this device uses of the codec `name`.
    pub fn version_for(&self, name: &str, device: &str) -> Option<&Version> {
        let chosen = self.canary.filter(|c| !device.is_empty() && draw(name, c.version, device) < c.share);
        self.version(chosen.map(|c| c.version).or(self.current)?)
    }

    /// Adds a version under the next number and uses it: for all devices, or for this share of them if there is a version
    /// for the others. What is not kept any more is given back.
    pub fn add(&mut self, mut version: Version, share: Option<u8>) -> (u32, Vec<Version>) {
        self.last += 1;
        version.number = self.last;
        self.versions.push(version);
        self.choose(self.last, share);
        (self.last, self.tidy())
    }

    /// Uses a kept version, as [`Shelf::add`] does a new one. False if it is not kept.
    pub fn choose(&mut self, number: u32, share: Option<u8>) -> bool {
        if self.version(number).is_none() {
            return false;
        }
        match (share, self.current) {
            (Some(share), Some(current)) if current != number => {
                self.canary = Some(Canary { version: number, share });
            }
            _ => {
                self.canary = None;
                let before = self.current.replace(number).filter(|b| *b != number);
                self.before.extend(before);
            }
        }
        true
    }

    /// The version that some devices try is for all from now on: its number.
    pub fn promote(&mut self) -> Option<u32> {
        let canary = self.canary?;
        self.choose(canary.version, None).then_some(canary.version)
    }

    /// One step back: the trial ends, or what was current before is current again. The number of what is current then.
    pub fn roll_back(&mut self) -> Option<u32> {
        if self.canary.take().is_some() {
            return self.current;
        }
        let before = self.before.pop()?;
        self.current = Some(before);
        Some(before)
    }

    /// Whether devices use this version.
    pub fn is_used(&self, number: u32) -> bool {
        self.current == Some(number) || self.canary.is_some_and(|c| c.version == number)
    }

    fn tidy(&mut self) -> Vec<Version> {
        let mut gone = Vec::new();
        while self.versions.len() > KEPT {
            let Some(at) = self.versions.iter().position(|v| !self.is_used(v.number)) else { break };
            gone.push(self.versions.remove(at));
        }
        let versions = &self.versions;
        self.before.retain(|n| versions.iter().any(|v| v.number == *n));
        let surplus = self.before.len().saturating_sub(KEPT);
        self.before.drain(..surplus);
        gone
    }
}

/// A number below 100 that is always the same for this device and this version, and evenly spread over devices: FNV-1a of
/// both, with the last step of MurmurHash3, since FNV's low bits follow the last character.
fn draw(name: &str, version: u32, device: &str) -> u8 {
    let bytes = name.bytes().chain([0]).chain(version.to_be_bytes()).chain(device.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    ((hash ^ (hash >> 33)) % 100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Shape;

    fn version(id: u64) -> Version {
        let hash = id.to_string().into();
        Version {
            number: 0,
            hash,
            loaded_ms: 0,
            from: "x.js".into(),
            found: Found::Script(id, Shape::Payload),
        }
    }

    fn shelf(versions: u64) -> Shelf {
        let mut shelf = Shelf::default();
        (1..=versions).for_each(|id| drop(shelf.add(version(id), None)));
        shelf
    }

    fn number(shelf: &Shelf, device: &str) -> Option<u32> {
        shelf.version_for("x", device).map(|v| v.number)
    }

    #[test]
    fn the_newest_version_is_used_until_somebody_rolls_back_and_the_way_back_has_an_end() {
        let mut shelf = shelf(3);
        assert_eq!(number(&shelf, "d"), Some(3));
        assert_eq!((shelf.roll_back(), number(&shelf, "d")), (Some(2), Some(2)));
        // The next one is a new number, and the way back from it leads to what was used, not to what was taken back.
        assert_eq!(shelf.add(version(4), None).0, 4);
        assert_eq!(shelf.roll_back(), Some(2));
        assert_eq!((shelf.roll_back(), shelf.roll_back()), (Some(1), None));
        assert_eq!(number(&shelf, "d"), Some(1));
    }

    #[test]
    fn a_share_of_the_devices_tries_a_version_first_always_the_same_ones() {
        let mut shelf = shelf(1);
        shelf.add(version(2), Some(10));
        let devices: Vec<String> = (0..10_000).map(|n| format!("8612345{n:08}")).collect();
        let trying =
            |s: &Shelf| devices.iter().filter(|d| number(s, d) == Some(2)).cloned().collect::<Vec<_>>();
        let first = trying(&shelf);
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_eq!(trying(&shelf), first);
        assert_eq!(number(&shelf, ""), Some(1), "who has not said who it is uses what the others use");
        // More devices: those that tried it go on.
        shelf.choose(2, Some(50));
        let more = trying(&shelf);
        assert!((4700..5300).contains(&more.len()) && first.iter().all(|d| more.contains(d)));
        assert_eq!((shelf.promote(), number(&shelf, "d"), shelf.canary), (Some(2), Some(2), None));
        assert_eq!(shelf.roll_back(), Some(1));
    }

    #[test]
    fn a_trial_ends_without_a_step_back() {
        let mut shelf = shelf(2);
        shelf.add(version(3), Some(100));
        assert_eq!(number(&shelf, "d"), Some(3));
        assert_eq!((shelf.roll_back(), number(&shelf, "d")), (Some(2), Some(2)));
        assert_eq!(shelf.promote(), None);
    }

    #[test]
    fn the_first_version_of_all_is_for_everybody_whatever_share_was_asked_for() {
        let mut shelf = Shelf::default();
        shelf.add(version(1), Some(10));
        assert_eq!((number(&shelf, "d"), shelf.canary), (Some(1), None));
        assert!(!shelf.choose(7, None), "there is no such version");
    }

    #[test]
    fn old_versions_go_but_never_one_that_is_used() {
        let mut shelf = shelf(1);
        let gone: Vec<u32> =
            (2..=30).flat_map(|id| shelf.add(version(id), Some(5)).1).map(|v| v.number).collect();
        assert_eq!((shelf.versions.len(), shelf.current), (KEPT, Some(1)));
        assert_eq!(gone, (2..=21).collect::<Vec<_>>());
        let mut shelf = self::shelf(30);
        assert_eq!((shelf.versions.first().map(|v| v.number), shelf.before.len()), (Some(21), KEPT - 1));
        assert_eq!(shelf.by_hash("25").map(|v| v.number), Some(25));
        assert_eq!(std::iter::from_fn(|| shelf.roll_back()).last(), Some(21));
    }
}
