//! The PROXY protocol, versions 1 and 2: a load balancer says first whose connection it forwards.
//!
//! ```text
//! 1   PROXY TCP4 192.0.2.1 198.51.100.1 5000 1883\r\n
//! 2   signature(12) version|command(1) family(1) length(2) source destination ports, then TLVs, which are skipped
//! ```
//!
//! The header must come, and be right: on such a port a connection without one comes from somebody who got around the
//! balancer (HAProxy's `proxy-protocol.txt`, section 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};
use gateway::{Close, Now};
use wire::Reader;

use crate::layer::{Layer, Learnt};
use crate::listen::canonical;

/// Section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1 with its end, section 2.1.
const LINE: usize = 107;
/// Most bytes after the length of version 2. Addresses take 216 at most; the rest is for TLVs.
const BLOCK: usize = 2048;

/// See the module.
#[derive(Default)]
pub struct Proxy {
    is_done: bool,
}

impl Layer for Proxy {
    fn open(
        &mut self,
        _: Now,
        wire: &mut BytesMut,
        plain: &mut BytesMut,
        _: &mut Vec<u8>,
        facts: &mut Learnt,
    ) -> Result<(), Close> {
        if !self.is_done {
            let Some((length, address)) = decode(wire).map_err(|Malformed| Close::Proxy)? else {
                return Ok(());
            };
            wire.advance(length);
            facts.address = address;
            self.is_done = true;
        }
        if plain.is_empty() {
            std::mem::swap(plain, wire);
        } else {
            plain.extend_from_slice(wire);
            wire.clear();
        }
        Ok(())
    }

    fn seal(&mut self, _: Now, plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), Close> {
        wire.append(plain);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.is_done
    }

    fn close(&mut self, _: &mut Vec<u8>) {}
}

/// No PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

/// Length of the header and the address it gives, if it gives one; None if more bytes are needed.
fn decode(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if begins(SIGNATURE) {
        decode_2(bytes)
    } else if begins(b"PROXY ") {
        decode_1(bytes)
    } else {
        Err(Malformed)
    }
}

fn decode_1(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let within = &bytes[..bytes.len().min(LINE)];
    let Some(end) = within.windows(2).position(|w| w == b"\r\n") else {
        return if bytes.len() >= LINE { Err(Malformed) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed)?;
    let words: Vec<&str> = line.split(' ').collect();
    let address = match words[..] {
        // Whatever else the line says is to be ignored.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, to, port, to_port] => {
            to.parse::<Ipv4Addr>().map_err(|_| Malformed)?;
            decode_port(to_port)?;
            let source: Ipv4Addr = source.parse().map_err(|_| Malformed)?;
            Some(SocketAddr::from((source, decode_port(port)?)))
        }
        ["PROXY", "TCP6", source, to, port, to_port] => {
            to.parse::<Ipv6Addr>().map_err(|_| Malformed)?;
            decode_port(to_port)?;
            let source: Ipv6Addr = source.parse().map_err(|_| Malformed)?;
            Some(SocketAddr::from((source, decode_port(port)?)))
        }
        _ => return Err(Malformed),
    };
    Ok(Some((end + 2, address.map(canonical))))
}

fn decode_port(text: &str) -> Result<u16, Malformed> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(Malformed)
}

fn decode_2(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let mut r = Reader::new(bytes);
    let (Ok(_), Ok(command)) = (r.take(SIGNATURE.len()), r.u8()) else { return Ok(None) };
    // LOCAL: the balancer itself speaks, such as for a health check; PROXY: it forwards.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed),
    };
    let (Ok(family), Ok(length)) = (r.u8(), r.u16()) else { return Ok(None) };
    let length = usize::from(length);
    if length > BLOCK {
        return Err(Malformed);
    }
    let Ok(block) = r.take(length) else { return Ok(None) };
    let address = match family {
        _ if is_local => None,
        0x11 => Some(decode_address::<4>(block)?),
        0x21 => Some(decode_address::<16>(block)?),
        // Unspecified, or a Unix socket: the connection's own address is the best there is.
        0x00 | 0x31 => None,
        // Datagrams do not come over a stream.
        _ => return Err(Malformed),
    };
    Ok(Some((bytes.len() - r.remaining(), address.map(canonical))))
}

/// Source address of `N` bytes, destination of as many, source port, destination port.
fn decode_address<const N: usize>(block: &[u8]) -> Result<SocketAddr, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let mut r = Reader::new(block);
    let source: [u8; N] = r.take(N).ok().and_then(|s| s.try_into().ok()).ok_or(Malformed)?;
    r.take(N).map_err(|_| Malformed)?;
    let (port, _) = r.u16().and_then(|p| Ok((p, r.u16()?))).map_err(|_| Malformed)?;
    Ok(SocketAddr::from((IpAddr::from(source), port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 1883\r\n";

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = [&SIGNATURE[..], &[command, family]].concat();
        bytes.extend_from_slice(&(block.len() as u16).to_be_bytes());
        bytes.extend_from_slice(block);
        bytes
    }

    fn open(pieces: &[&[u8]]) -> (Result<(), Close>, Vec<u8>, Learnt, bool) {
        let (mut layer, mut wire, mut plain) = (Proxy::default(), BytesMut::new(), BytesMut::new());
        let (mut reply, mut facts) = (Vec::new(), Learnt::default());
        let mut result = Ok(());
        for piece in pieces {
            wire.extend_from_slice(piece);
            result = result.and(layer.open(Now::default(), &mut wire, &mut plain, &mut reply, &mut facts));
        }
        assert!(reply.is_empty());
        (result, plain.to_vec(), facts, layer.is_ready())
    }

    #[test]
    fn a_line_gives_the_address_and_what_follows_goes_on() {
        let (result, plain, facts, is_ready) = open(&[V1, b"more", b" and more"]);
        assert_eq!((result, plain.as_slice(), is_ready), (Ok(()), &b"more and more"[..], true));
        assert_eq!(facts.address, Some("192.0.2.1:5000".parse().unwrap()));
    }

    #[test]
    fn both_versions_wait_for_their_end_at_every_byte() {
        let block = [192, 0, 2, 1, 198, 51, 100, 1, 19, 136, 7, 91, 3, 0, 1, 9];
        for header in [V1.to_vec(), v2(0x21, 0x11, &block)] {
            for at in 0..header.len() {
                let (head, tail) = header.split_at(at);
                assert!(!open(&[head]).3, "ready after {at} bytes");
                let (result, plain, facts, is_ready) = open(&[head, tail, b"x"]);
                assert_eq!((result, plain.as_slice(), is_ready), (Ok(()), &b"x"[..], true));
                assert_eq!(facts.address, Some("192.0.2.1:5000".parse().unwrap()));
            }
        }
    }

    #[test]
    fn ipv6_and_mapped_ipv4_are_known() {
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n";
        assert_eq!(open(&[line]).2.address, Some("[2001:db8::1]:1".parse().unwrap()));
        let mut block = [0; 36];
        block[10..16].copy_from_slice(&[255, 255, 10, 0, 0, 1]);
        assert_eq!(open(&[&v2(0x21, 0x21, &block)]).2.address, Some("10.0.0.1:0".parse().unwrap()));
    }

    #[test]
    fn local_unknown_and_unix_keep_the_connections_own_address() {
        for header in [
            v2(0x20, 0x00, b""),
            v2(0x20, 0x11, b"odd"),
            v2(0x21, 0x00, b"tlv"),
            v2(0x21, 0x31, &[0; 216]),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::1 1 1\r\n".to_vec(),
        ] {
            let (result, _, facts, is_ready) = open(&[&header]);
            assert_eq!((result, facts.address, is_ready), (Ok(()), None, true));
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let too_long = [b"PROXY TCP4 ", &[b'1'; 96][..]].concat();
        for bytes in [
            &b"\x10\x0c\x00\x04MQTT"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +5000 1883\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 65536\r\n",
            b"PROXY TCP4 ::1 198.51.100.1 5000 1883\r\n",
            b"PROXY  TCP4 192.0.2.1 198.51.100.1 5000 1883\r\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.1 5000 1883\r\n",
            b"PROXY TCP4 \xff 198.51.100.1 5000 1883\r\n",
            b"proxy ",
            &too_long,
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; BLOCK + 1])[..16],
        ] {
            assert_eq!(open(&[bytes]).0, Err(Close::Proxy), "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
