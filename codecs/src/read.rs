//! Numbers and bytes off the front of a frame, in network byte order.

use crate::Fault;

/// What is left of a frame. Reading past its end is a fault at the byte that is missing.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, whose first one is at `at` of the frame.
    pub fn new(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { left: bytes, at }
    }

    /// Where in the frame the next byte is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, left)) = self.left.split_at_checked(n) else {
            return Err(Fault::frame(self.at + self.left.len(), "the frame ends before its content does"));
        };
        self.left = left;
        self.at += n;
        Ok(taken)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.at += self.left.len();
        std::mem::take(&mut self.left)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned number of up to eight bytes.
    pub fn uint(&mut self, bytes: usize) -> Result<u64, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_fault_at_its_place() {
        let mut r = Reader::new(&[1, 2, 3, 4, 5, 6], 10);
        assert_eq!((r.u8(), r.u16(), r.uint(2)), (Ok(1), Ok(0x0203), Ok(0x0405)));
        assert_eq!((r.at(), r.left()), (15, 1));
        assert_eq!(r.u32().map_err(|f| f.at), Err(16));
        assert_eq!((r.rest(), r.at(), r.left()), (&[6][..], 16, 0));
    }
}
