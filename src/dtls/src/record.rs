//! The header of a record (RFC 6347, 4.1; with a connection id RFC 9146, 4).

use crate::event::Id;

/// Bytes of a header without a connection id.
pub(crate) const HEADER: usize = 13;
/// Record types. `CCS` is change_cipher_spec.
pub(crate) const CCS: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;
pub(crate) const TLS12_CID: u8 = 25;

/// The first record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) epoch: u16,
    pub(crate) number: u64,
    /// Of a tls12_cid record: ours have eight bytes.
    pub(crate) id: Option<Id>,
    /// Bytes of the record behind its header.
    pub(crate) len: usize,
}

impl Header {
    /// Bytes of the record with its header.
    pub(crate) fn whole_len(&self) -> usize {
        HEADER + self.id.map_or(0, |id| id.0.len()) + self.len
    }

    /// Read one. `None` if the datagram does not begin with a whole record of a type and version that we speak.
    pub(crate) fn decode(datagram: &[u8]) -> Option<Header> {
        let fixed: [u8; 11] = datagram.get(..11)?.try_into().ok()?;
        let [kind, 0xfe, 0xfd | 0xff, e0, e1, n0, n1, n2, n3, n4, n5] = fixed else { return None };
        let (id, at) = match kind {
            TLS12_CID => (Some(Id(datagram.get(11..19)?.try_into().ok()?)), 19),
            CCS | ALERT | HANDSHAKE | APPLICATION_DATA => (None, 11),
            _ => return None,
        };
        let len = usize::from(u16::from_be_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
        if len == 0 || datagram.len() < at + 2 + len {
            return None;
        }
        let number = u64::from_be_bytes([0, 0, n0, n1, n2, n3, n4, n5]);
        Some(Header { kind, epoch: u16::from_be_bytes([e0, e1]), number, id, len })
    }
}
