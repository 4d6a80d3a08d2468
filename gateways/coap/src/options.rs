//! Option numbers, and what is done about those that are not known (RFC 7252, 5.4 and 12.2).

use crate::frame::Message;

/// ETag.
pub const ETAG: u16 = 4;
/// Observe (RFC 7641).
pub const OBSERVE: u16 = 6;
/// Location-Path.
pub const LOCATION_PATH: u16 = 8;
/// Uri-Path.
pub const URI_PATH: u16 = 11;
/// Content-Format.
pub const CONTENT_FORMAT: u16 = 12;
/// Max-Age.
pub const MAX_AGE: u16 = 14;
/// Uri-Query.
pub const URI_QUERY: u16 = 15;
/// Accept.
pub const ACCEPT: u16 = 17;
/// Location-Query.
pub const LOCATION_QUERY: u16 = 20;
/// Block2 (RFC 7959).
pub const BLOCK2: u16 = 23;
/// Block1 (RFC 7959).
pub const BLOCK1: u16 = 27;
/// Size2 (RFC 7959, 4).
pub const SIZE2: u16 = 28;
/// Proxy-Uri.
pub const PROXY_URI: u16 = 35;
/// Proxy-Scheme.
pub const PROXY_SCHEME: u16 = 39;
/// Size1 (RFC 7959, 4).
pub const SIZE1: u16 = 60;
/// Echo (RFC 9175).
pub const ECHO: u16 = 252;
/// Request-Tag (RFC 9175, 3).
pub const REQUEST_TAG: u16 = 292;

/// What is wrong with a request's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A critical option that is not known, comes more often than it may, or has a length it may not have: 4.02.
    BadOption,
    /// A proxy is asked for: 5.05.
    Proxying,
}

/// Checks a request's options; unknown elective ones are ignored (5.4.1).
pub fn check(request: &Message) -> Result<(), Wrong> {
    let mut last = None;
    for (number, value) in &request.options {
        let (is_repeatable, longest) = match *number {
            // Uri-Host, Uri-Port: this endpoint serves every name.
            3 => (false, 255),
            7 => (false, 2),
            OBSERVE => (false, 3),
            URI_PATH | URI_QUERY => (true, 255),
            CONTENT_FORMAT | ACCEPT => (false, 2),
            BLOCK1 | BLOCK2 => (false, 3),
            PROXY_URI | PROXY_SCHEME => return Err(Wrong::Proxying),
            number if number & 1 == 1 => return Err(Wrong::BadOption),
            _ => continue,
        };
        let is_again = last == Some(*number) && !is_repeatable;
        // Of an elective option the surplus is ignored (5.4.5).
        if (is_again || value.len() > longest) && number & 1 == 1 {
            return Err(Wrong::BadOption);
        }
        last = Some(*number);
    }
    Ok(())
}

/// The value of Observe; one that is longer than it may be is as none (RFC 7252, 5.4.3; RFC 7641, 2).
pub fn observe(request: &Message) -> Option<u32> {
    request.uint(OBSERVE).filter(|_| request.all(OBSERVE).next().is_some_and(|value| value.len() <= 3))
}

/// Content formats with their media types (RFC 7252, 12.3, and the registry).
const FORMATS: &[(u16, &str)] = &[
    (0, "text/plain;charset=utf-8"),
    (40, "application/link-format"),
    (41, "application/xml"),
    (42, "application/octet-stream"),
    (47, "application/exi"),
    (50, "application/json"),
    (60, "application/cbor"),
    (110, "application/senml+json"),
    (112, "application/senml+cbor"),
    (11542, "application/vnd.oma.lwm2m+tlv"),
    (11543, "application/vnd.oma.lwm2m+json"),
    (11544, "application/vnd.oma.lwm2m+cbor"),
];

/// The MQTT content type of a Content-Format: its media type, or `coap/{number}` for one that is not in the list.
pub fn content_type(format: u16) -> String {
    match FORMATS.iter().find(|(f, _)| *f == format) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("coap/{format}"),
    }
}

/// The Content-Format of an MQTT content type; the reverse of [`content_type`], and a few other ways to write the same.
pub fn content_format(content_type: &str) -> Option<u16> {
    if let Some(number) = content_type.strip_prefix("coap/") {
        return number.parse().ok();
    }
    let written = content_type.to_ascii_lowercase().replace([' ', '"'], "");
    // UTF-8, of which ASCII is a part, is what text without a word is taken for; JSON is always (RFC 8259, 8.1).
    let plain = written.strip_suffix(";charset=utf-8").or_else(|| written.strip_suffix(";charset=us-ascii"));
    let plain = plain.unwrap_or(&written);
    FORMATS
        .iter()
        .find(|(_, name)| name.strip_suffix(";charset=utf-8").unwrap_or(name) == plain)
        .map(|(f, _)| *f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Code, Kind};

    #[test]
    fn content_formats_survive_the_way_through_mqtt() {
        for format in [0, 42, 50, 60, 110, 9999] {
            assert_eq!(content_format(&content_type(format)), Some(format));
        }
        for text in [
            "text/plain",
            "text/plain; charset=UTF-8",
            "text/plain;charset=\"utf-8\"",
            "text/plain;charset=us-ascii",
        ] {
            assert_eq!(content_format(text), Some(0), "{text}");
        }
        assert_eq!(content_format("application/json; charset=utf-8"), Some(50));
        assert_eq!(content_format("application/xml;charset=iso-8859-1"), None);
        assert_eq!(content_format("image/x-unknown"), None);
    }

    #[test]
    fn an_unknown_critical_option_is_bad_and_an_elective_one_ignored() {
        let mut m = Message { code: Code::GET, ..Message::empty(Kind::Con, 1) };
        m.add(2000, b"x");
        assert_eq!(check(&m), Ok(()));
        m.add(2001, b"x");
        assert_eq!(check(&m), Err(Wrong::BadOption));
    }

    #[test]
    fn a_critical_option_that_may_come_once_is_bad_twice() {
        let mut m = Message { code: Code::GET, ..Message::empty(Kind::Con, 1) };
        m.add_uint(ACCEPT, 50);
        assert_eq!(check(&m), Ok(()));
        m.add_uint(ACCEPT, 60);
        assert_eq!(check(&m), Err(Wrong::BadOption));
    }

    #[test]
    fn a_proxy_is_not_to_be_had() {
        let mut m = Message { code: Code::GET, ..Message::empty(Kind::Con, 1) };
        m.add(PROXY_URI, b"coap://elsewhere/");
        assert_eq!(check(&m), Err(Wrong::Proxying));
    }
}
