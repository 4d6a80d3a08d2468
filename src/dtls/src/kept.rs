//! What the durable store keeps of an association: a sealed record when it opens, and small authenticated ones as its
//! record numbers move. A blob holds a master secret, and one that was tampered with is a danger to memory (loading it
//! is Mbed TLS parsing), so nothing is loaded that is not authentic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ring::{aead, hmac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::engine::{self, Numbers};
use crate::event::{Id, Identity};

/// Of both kinds of record. A change of the layout below changes it.
const FORMAT: u8 = 1;
const NONCE: usize = 12;
const MAC: usize = 16;
const ADDRESS: usize = 23;

/// Seals and opens records, with keys made from the one that the operator's store holds.
pub(crate) struct Sealer {
    keep: aead::LessSafeKey,
    numbers: hmac::Key,
}

/// What `Keep` holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) identity: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) has_cid: bool,
    pub(crate) suite: u16,
    pub(crate) opened_wall_ms: u64,
    pub(crate) blob: Zeroizing<Vec<u8>>,
}

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Option<Sealer> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let keep = hmac::sign(&root, b"tidegate dtls keep");
        let numbers = hmac::sign(&root, b"tidegate dtls numbers");
        let keep = aead::UnboundKey::new(&aead::AES_256_GCM, keep.as_ref()).ok()?;
        Some(Sealer {
            keep: aead::LessSafeKey::new(keep),
            numbers: hmac::Key::new(hmac::HMAC_SHA256, numbers.as_ref()),
        })
    }

    /// Format byte, nonce, then encrypted. Nonces are random: one record an association leaves their number far below
    /// the 2^32 that a key may see.
    pub(crate) fn seal(&self, id: Id, kept: &Kept) -> Option<Vec<u8>> {
        let mut record = vec![FORMAT];
        record.resize(1 + NONCE, 0);
        if !engine::random(record.get_mut(1..)?) {
            return None;
        }
        let nonce: [u8; NONCE] = record.get(1..)?.try_into().ok()?;
        let mut plain = Vec::with_capacity(64 + kept.blob.len());
        plain.extend_from_slice(&engine::version());
        plain.push(u8::from(kept.has_cid));
        plain.extend_from_slice(&kept.suite.to_be_bytes());
        plain.extend_from_slice(&kept.opened_wall_ms.to_be_bytes());
        plain.extend_from_slice(&encode_address(kept.address));
        encode_identity(&kept.identity, &mut plain);
        plain.extend_from_slice(&kept.blob);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let tag = self.keep.seal_in_place_separate_tag(nonce, aead::Aad::from(aad(id)), &mut plain).ok()?;
        record.extend_from_slice(&plain);
        record.extend_from_slice(tag.as_ref());
        Some(record)
    }

    /// `None` if it is not a record of this id, sealed with this key, of this format.
    pub(crate) fn open(&self, id: Id, record: &[u8]) -> Option<Kept> {
        let (&FORMAT, rest) = record.split_first()? else { return None };
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let plain = self.keep.open_in_place(nonce, aead::Aad::from(aad(id)), &mut sealed).ok()?;
        let (head, rest) = plain.split_at_checked(3 + 1 + 2 + 8)?;
        let [_, _, _, has_cid, s0, s1, wall @ ..] = head else { return None };
        let (address, rest) = rest.split_at_checked(ADDRESS)?;
        let (identity, blob) = decode_identity(rest)?;
        Some(Kept {
            identity,
            address: decode_address(address)?,
            has_cid: *has_cid == 1,
            suite: u16::from_be_bytes([*s0, *s1]),
            opened_wall_ms: u64::from_be_bytes(wall.try_into().ok()?),
            blob: Zeroizing::new(blob.to_vec()),
        })
    }

    /// Format byte, reserved number, window, address, MAC over these and the id. `next_out` is what is reserved.
    pub(crate) fn numbers(&self, id: Id, n: Numbers, address: SocketAddr) -> [u8; 64] {
        let mut record = [0; 64];
        record[0] = FORMAT;
        record[1..9].copy_from_slice(&n.next_out.to_be_bytes());
        record[9..17].copy_from_slice(&n.window_top.to_be_bytes());
        record[17..25].copy_from_slice(&n.window.to_be_bytes());
        record[25..48].copy_from_slice(&encode_address(address));
        let mac = self.mac(id, &record[..48]);
        record[48..].copy_from_slice(&mac);
        record
    }

    pub(crate) fn open_numbers(&self, id: Id, record: &[u8]) -> Option<(Numbers, SocketAddr)> {
        let record: &[u8; 64] = record.try_into().ok()?;
        let (plain, mac) = record.split_at(48);
        if !bool::from(self.mac(id, plain)[..].ct_eq(mac)) {
            return None;
        }
        let field = |at: usize| Some(u64::from_be_bytes(plain.get(at..at + 8)?.try_into().ok()?));
        if plain.first() != Some(&FORMAT) {
            return None;
        }
        let n = Numbers { next_out: field(1)?, window_top: field(9)?, window: field(17)? };
        Some((n, decode_address(plain.get(25..)?)?))
    }

    fn mac(&self, id: Id, plain: &[u8]) -> [u8; MAC] {
        let mut mac = hmac::Context::with_key(&self.numbers);
        mac.update(&id.0);
        mac.update(plain);
        let mut short = [0; MAC];
        short.copy_from_slice(&mac.sign().as_ref()[..MAC]);
        short
    }
}

fn aad(id: Id) -> [u8; 9] {
    let mut a = [FORMAT; 9];
    a[..8].copy_from_slice(&id.0);
    a
}

/// Family, address, port, scope (a link-local address is nothing without it).
pub(crate) fn encode_address(a: SocketAddr) -> [u8; ADDRESS] {
    let mut b = [0; ADDRESS];
    match a {
        SocketAddr::V4(a) => {
            b[0] = 4;
            b[1..5].copy_from_slice(&a.ip().octets());
        }
        SocketAddr::V6(a) => {
            b[0] = 6;
            b[1..17].copy_from_slice(&a.ip().octets());
            b[19..].copy_from_slice(&a.scope_id().to_be_bytes());
        }
    }
    b[17..19].copy_from_slice(&a.port().to_be_bytes());
    b
}

pub(crate) fn decode_address(b: &[u8]) -> Option<SocketAddr> {
    let b: &[u8; ADDRESS] = b.try_into().ok()?;
    let port = u16::from_be_bytes([b[17], b[18]]);
    match b[0] {
        4 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(b[1], b[2], b[3], b[4])), port)),
        6 => {
            let ip: [u8; 16] = b[1..17].try_into().ok()?;
            let scope = u32::from_be_bytes([b[19], b[20], b[21], b[22]]);
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope)))
        }
        _ => None,
    }
}

/// Kind, length, bytes; of a certificate the fingerprint, then the name.
pub(crate) fn encode_identity(identity: &Identity, into: &mut Vec<u8>) {
    let mut put = |kind: u8, parts: [&[u8]; 2]| {
        // Lengths fit: identities are cut off at 1,024 bytes when they come in.
        let len = parts.iter().map(|p| p.len()).sum::<usize>() as u16;
        into.push(kind);
        into.extend_from_slice(&len.to_be_bytes());
        parts.iter().for_each(|p| into.extend_from_slice(p));
    };
    match identity {
        Identity::Nobody => put(0, [b"", b""]),
        Identity::Psk(id) => put(1, [id, b""]),
        Identity::Certificate { common_name: None, fingerprint } => put(2, [fingerprint, b""]),
        Identity::Certificate { common_name: Some(n), fingerprint } => put(3, [fingerprint, n.as_bytes()]),
    }
}

/// The identity at the front, and what follows it.
pub(crate) fn decode_identity(b: &[u8]) -> Option<(Identity, &[u8])> {
    let (head, rest) = b.split_at_checked(3)?;
    let [kind, l0, l1] = *head else { return None };
    let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
    let identity = match kind {
        0 => Identity::Nobody,
        1 => Identity::Psk(body.into()),
        2 | 3 => {
            let (fingerprint, name) = body.split_at_checked(32)?;
            let fingerprint = fingerprint.try_into().ok()?;
            let name = std::str::from_utf8(name).ok()?;
            Identity::Certificate { common_name: (kind == 3).then(|| name.into()), fingerprint }
        }
        _ => return None,
    };
    Some((identity, rest))
}
