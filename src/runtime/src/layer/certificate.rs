//! What is read from a client's certificate once its chain is verified: the subject's common name, and a fingerprint.
//!
//! ```text
//! Certificate { TBSCertificate { [0] version, serialNumber, signature, issuer, validity, subject, … }, … }
//! subject = SEQUENCE OF SET OF { type OID, value string }          (RFC 5280, 4.1; DER)
//! ```

use gateway::Certificate;
use sha2::{Digest, Sha256};
use wire::{Reader, Short};

/// Tags of DER (X.690, 8).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// Strings that are UTF-8 or a part of it: UTF8String, PrintableString, IA5String.
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// Reads a certificate in DER.
pub(super) fn decode(der: &[u8]) -> Certificate {
    let common_name = subject(der).and_then(common_name).ok().flatten();
    Certificate { common_name, fingerprint: Sha256::digest(der).into() }
}

fn subject(der: &[u8]) -> Result<&[u8], Short> {
    let mut tbs = Reader::new(expect(&mut Reader::new(expect(&mut Reader::new(der), SEQUENCE)?), SEQUENCE)?);
    // The version is left out in version 1: the serial number comes first then.
    if element(&mut tbs)?.0 == VERSION {
        element(&mut tbs)?;
    }
    let (_signature, _issuer, _validity) = (element(&mut tbs)?, element(&mut tbs)?, element(&mut tbs)?);
    expect(&mut tbs, SEQUENCE)
}

/// The last common name, which is the most specific; None if it is no text or holds control characters.
fn common_name(subject: &[u8]) -> Result<Option<Box<str>>, Short> {
    let mut found = None;
    let mut subject = Reader::new(subject);
    while !subject.is_empty() {
        let mut set = Reader::new(expect(&mut subject, SET)?);
        while !set.is_empty() {
            let mut attribute = Reader::new(expect(&mut set, SEQUENCE)?);
            if expect(&mut attribute, OID)? == COMMON_NAME {
                let (tag, value) = element(&mut attribute)?;
                let text = std::str::from_utf8(value).ok().filter(|_| TEXTS.contains(&tag));
                found = text.filter(|t| !t.is_empty() && !t.contains(char::is_control)).map(Box::from);
            }
        }
    }
    Ok(found)
}

fn expect<'a>(r: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], Short> {
    let (found, value) = element(r)?;
    if found == tag { Ok(value) } else { Err(Short) }
}

/// The next element's tag and contents. Lengths of up to two bytes are enough for what is walked here.
fn element<'a>(r: &mut Reader<'a>) -> Result<(u8, &'a [u8]), Short> {
    let tag = r.u8()?;
    let length = match r.u8()? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(r.u8()?),
        0x82 => usize::from(r.u16()?),
        _ => return Err(Short),
    };
    Ok((tag, r.take(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(common_names: &[&str]) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Works");
        for name in common_names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_and_the_fingerprint_are_read() {
        let der = der(&["Gerät 7"]);
        let certificate = decode(&der);
        assert_eq!(certificate.common_name.as_deref(), Some("Gerät 7"));
        assert_eq!(certificate.fingerprint, <[u8; 32]>::from(Sha256::digest(&der)));
    }

    #[test]
    fn a_name_that_is_missing_or_holds_control_characters_is_none() {
        assert_eq!(decode(&der(&[])).common_name, None);
        assert_eq!(decode(&der(&["root\0x"])).common_name, None);
    }

    #[test]
    fn half_a_certificate_or_a_broken_one_gives_no_panic() {
        let der = der(&["device"]);
        for end in 0..der.len() {
            assert_eq!(decode(&der[..end]).common_name, None);
        }
        for bit in 0..der.len() * 8 {
            let mut broken = der.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            decode(&broken);
        }
    }
}
