//! Reading and writing bytes from the network: every read is checked and fails with [`Short`] instead of panicking.
//!
//! Numbers are in network byte order. A [`Reader`] borrows; what it returns are slices of what it was given. Dates and times
//! that devices tell, and people read, are in [`calendar`].

pub mod calendar;

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes end before the value does")
    }
}

impl std::error::Error for Short {}

/// A cursor over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(Short)?;
        self.rest = tail;
        Ok(head)
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        let (&byte, tail) = self.rest.split_first().ok_or(Short)?;
        self.rest = tail;
        Ok(byte)
    }

    /// Two bytes, big endian.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big endian.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big endian.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_be_bytes)
    }

    /// A two-byte length and that many bytes (MQTT 5.0, 1.5.6 Binary Data).
    pub fn prefixed16(&mut self) -> Result<&'a [u8], Short> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = tail;
        Ok(*head)
    }
}

/// Appending to a byte buffer in network byte order.
pub trait Writer {
    /// One byte.
    fn put_u8(&mut self, value: u8);
    /// Two bytes, big endian.
    fn put_u16(&mut self, value: u16);
    /// Four bytes, big endian.
    fn put_u32(&mut self, value: u32);
    /// The bytes as they are.
    fn put(&mut self, bytes: &[u8]);
    /// A two-byte length and the bytes; what does not fit in 65,535 bytes is cut, so callers check first.
    fn put_prefixed16(&mut self, bytes: &[u8]);
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_prefixed16(&mut self, bytes: &[u8]) {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.put_u16(length);
        self.extend_from_slice(&bytes[..usize::from(length)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_big_endian_and_the_cursor_moves() {
        let mut r = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 9]);
        assert_eq!((r.u8(), r.u16(), r.u32()), (Ok(1), Ok(2), Ok(3)));
        assert_eq!(r.rest(), [9]);
    }

    #[test]
    fn reading_past_the_end_fails_and_leaves_the_rest() {
        let mut r = Reader::new(&[1]);
        assert_eq!(r.u16(), Err(Short));
        assert_eq!(r.take(2), Err(Short));
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u8(), Err(Short));
    }

    #[test]
    fn a_length_prefix_longer_than_the_rest_is_short() {
        assert_eq!(Reader::new(&[0, 3, b'a', b'b']).prefixed16(), Err(Short));
        assert_eq!(Reader::new(&[0, 2, b'a', b'b']).prefixed16(), Ok(&b"ab"[..]));
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Vec::new();
        out.put_prefixed16(b"topic");
        out.put_u16(7);
        let mut r = Reader::new(&out);
        assert_eq!((r.prefixed16(), r.u16()), (Ok(&b"topic"[..]), Ok(7)));
    }
}
