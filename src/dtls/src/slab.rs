//! Where parked associations lie: slots of a few sizes in large pages, so that a hundred thousand of them leave no
//! holes in the heap (parked one by one between live ones they held 4.7 kB each, not 0.4).

use zeroize::Zeroize;

/// Slots are multiples of this.
const STEP: usize = 32;
/// Large enough that malloc maps it by itself: the heap around it can shrink.
const PAGE: usize = 1024 * 1024;

/// A filled slot. Whoever holds it gives it back with `remove`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    class: u16,
    len: u16,
    slot: u32,
}

#[derive(Default)]
struct Class {
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
    used: u32,
}

/// The slots, by size.
#[derive(Default)]
pub(crate) struct Slab {
    classes: Vec<Class>,
}

/// Page and offset of a slot.
fn place(class: u16, slot: u32) -> (usize, usize) {
    let size = usize::from(class) * STEP;
    let per_page = (PAGE / size).max(1);
    let slot = slot as usize;
    (slot / per_page, slot % per_page * size)
}

impl Slab {
    /// Keep these bytes. `None` if they are none, or more than 64 kB.
    pub(crate) fn insert(&mut self, bytes: &[u8]) -> Option<Handle> {
        let len = u16::try_from(bytes.len()).ok().filter(|&n| n > 0)?;
        let class = len.div_ceil(STEP as u16);
        let size = usize::from(class) * STEP;
        if self.classes.len() <= usize::from(class) {
            self.classes.resize_with(usize::from(class) + 1, Class::default);
        }
        let c = self.classes.get_mut(usize::from(class))?;
        let slot = match c.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = c.used;
                c.used = slot.checked_add(1)?;
                slot
            }
        };
        let (page, at) = place(class, slot);
        if page >= c.pages.len() {
            c.pages.push(vec![0; (PAGE / size).max(1) * size].into_boxed_slice());
        }
        c.pages.get_mut(page)?.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        Some(Handle { class, len, slot })
    }

    /// The bytes.
    pub(crate) fn get(&self, h: &Handle) -> &[u8] {
        let (page, at) = place(h.class, h.slot);
        self.classes
            .get(usize::from(h.class))
            .and_then(|c| c.pages.get(page)?.get(at..at + usize::from(h.len)))
            .unwrap_or_default()
    }

    /// The bytes, to be overwritten.
    pub(crate) fn get_mut(&mut self, h: &Handle) -> &mut [u8] {
        let (page, at) = place(h.class, h.slot);
        self.classes
            .get_mut(usize::from(h.class))
            .and_then(|c| c.pages.get_mut(page)?.get_mut(at..at + usize::from(h.len)))
            .unwrap_or_default()
    }

    /// Wipe the bytes, which hold master secrets, and free the slot. Pages stay: who was parked will be parked again.
    #[expect(clippy::needless_pass_by_value, reason = "the handle is not good any more")]
    pub(crate) fn remove(&mut self, h: Handle) {
        self.get_mut(&h).zeroize();
        if let Some(c) = self.classes.get_mut(usize::from(h.class)) {
            c.free.push(h.slot);
        }
    }

    /// Bytes of the slots in use.
    pub(crate) fn bytes(&self) -> usize {
        self.classes.iter().enumerate().map(|(n, c)| (c.used as usize - c.free.len()) * n * STEP).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_wiped_and_used_again() {
        let mut slab = Slab::default();
        let a = slab.insert(&[7; 100]).unwrap();
        let b = slab.insert(&[8; 120]).unwrap();
        assert_eq!(slab.get(&a), [7; 100]);
        let page = |s: &Slab| s.classes[4].pages[0][..100].to_vec();
        slab.remove(a);
        assert_eq!(page(&slab), [0; 100]);
        let c = slab.insert(&[9; 128]).unwrap();
        assert_eq!((c.class, c.slot), (4, 0));
        assert_eq!(slab.get(&b), [8; 120]);
        assert_eq!(slab.bytes(), 256);
    }

    #[test]
    fn ten_thousand_of_all_sizes_stay_apart() {
        let mut slab = Slab::default();
        let all: Vec<_> = (0..10_000_usize)
            .map(|n| {
                let bytes = vec![n as u8; 1 + n % 5000];
                (slab.insert(&bytes).unwrap(), bytes)
            })
            .collect();
        for (h, bytes) in &all {
            assert_eq!(slab.get(h), &bytes[..]);
        }
        for (h, _) in all {
            slab.remove(h);
        }
        assert_eq!(slab.bytes(), 0);
    }
}
