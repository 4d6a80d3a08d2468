//! The electricity meter of `etc/codecs/powermeter.js` in Rust: one file without dependencies, built with
//!
//! ```sh
//! rustup target add wasm32-unknown-unknown
//! rustc --edition 2024 --target wasm32-unknown-unknown --crate-type cdylib -C opt-level=s -C panic=abort \
//!     -C strip=symbols -C link-arg=-zstack-size=16384 -o powermeter.wasm etc/codecs/examples/powermeter.rs
//! ```
//!
//! What is exported and imported is the ABI of `codecs/README.md`. Each connection has an instance of its own, so a
//! `static` is what the codec knows of one device.

use std::sync::Mutex;

/// Where the host puts what it hands over, and where the answer lies until the next call.
static INPUT: Mutex<[u8; 65_536]> = Mutex::new([0; 65_536]);
static RESULT: Mutex<String> = Mutex::new(String::new());

const START: u8 = 0x68;

unsafe extern "C" {
    safe fn log(text: *const u8, len: usize);
}

#[unsafe(no_mangle)]
pub extern "C" fn tidegate_abi() -> u32 {
    // The host shows what a module has logged when it fails: a panic's message, from here on.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        log(text.as_ptr(), text.len());
    }));
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    let mut input = INPUT.lock().unwrap();
    if len <= input.len() { input.as_mut_ptr() } else { std::ptr::null_mut() }
}

#[unsafe(no_mangle)]
pub extern "C" fn decode(_at: *const u8, len: usize) -> u64 {
    let input = INPUT.lock().unwrap();
    returned(decoded(&input[..len]))
}

#[unsafe(no_mangle)]
pub extern "C" fn encode(_at: *const u8, len: usize) -> u64 {
    let input = INPUT.lock().unwrap();
    returned(std::str::from_utf8(&input[..len]).ok().map(encoded))
}

/// Where the JSON lies: its address and its length. 0 is: there is no whole frame yet.
fn returned(json: Option<String>) -> u64 {
    let Some(json) = json else { return 0 };
    let mut result = RESULT.lock().unwrap();
    *result = json;
    (result.as_ptr() as u64) << 32 | result.len() as u64
}

fn decoded(buf: &[u8]) -> Option<String> {
    if buf[0] != START {
        let consumed = buf.iter().position(|b| *b == START).unwrap_or(buf.len());
        return Some(error(consumed, 0, "a frame begins with 68"));
    }
    let end = 2 + usize::from(*buf.get(1)?);
    let sum = u16::from_le_bytes([*buf.get(end)?, *buf.get(end + 1)?]);
    let right = crc16(&buf[..end]);
    if sum != right {
        return Some(error(end + 2, end, &format!("the CRC is {sum:x}, and {right:x} would be right")));
    }
    let Some((up, answer, refusal)) = buf.get(2..end).and_then(meaning) else {
        return Some(error(end + 2, 2, "the body is too short for its type"));
    };
    let consumed = end + 2;
    Some(format!(
        r#"{{"consumed":{consumed},"up":[{up}],"answer":"{}","refusal":"{}"}}"#,
        hex(&answer),
        hex(&refusal)
    ))
}

/// What a frame says, and what is sent back for it.
fn meaning(frame: &[u8]) -> Option<(String, Vec<u8>, Vec<u8>)> {
    let (kind, b) = frame.split_first()?;
    let u16_at = |at: usize| Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?));
    Some(match kind {
        0x01 => {
            let up = format!(r#"{{"login":{{"device":"{}"}}}}"#, hex(b.get(..6)?));
            (up, command(0x81, &[0]), command(0x81, &[1]))
        }
        0x02 => {
            let up = format!(
                r#"{{"kind":"reading","data":{{"voltage":{},"current":{},"power":{},"energy":{},"relay":{}}}}}"#,
                f64::from(u16_at(2)?) / 10.0,
                f64::from(u16_at(4)?) / 100.0,
                u32_at(6)? as i32,
                u32_at(10)?,
                b.get(14)? & 1 == 1
            );
            (up, command(0x82, &b[..2]), Vec::new())
        }
        0x03 => {
            let up = match (b.first()?, b.get(1)?) {
                (key, 0) => format!(r#"{{"reply":{{"key":{key},"ok":true}}}}"#),
                (key, code) => {
                    let reason = match code {
                        1 => "not supported",
                        2 => "bad value",
                        3 => "locked",
                        _ => "unknown",
                    };
                    format!(r#"{{"reply":{{"key":{key},"ok":false,"data":{{"reason":"{reason}"}}}}}}"#)
                }
            };
            (up, Vec::new(), Vec::new())
        }
        _ => (format!(r#"{{"kind":"unknown","data":{{"type":{kind}}}}}"#), Vec::new(), Vec::new()),
    })
}

/// A command comes as `{"kind":"relay","device":"…","value":{"on":true}}`, without white space that the publisher has
/// not put there. Two values need no JSON parser; a codec with more of them would take one from a crate.
fn encoded(json: &str) -> String {
    let json: String = json.split_whitespace().collect();
    let number = |name: &str| {
        let after = json.split_once(&format!(r#""{name}":"#))?.1;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
    };
    if json.starts_with(r#"{"kind":"relay""#) {
        if json.contains(r#""on":true"#) {
            return told(&command(0x90, &[1]), 0x90);
        }
        if json.contains(r#""on":false"#) {
            return told(&command(0x90, &[0]), 0x90);
        }
    }
    match number("seconds") {
        Some(seconds @ 1..) if json.starts_with(r#"{"kind":"interval""#) => {
            told(&command(0x91, &seconds.to_be_bytes()), 0x91)
        }
        _ => error(0, 0, r#"a meter takes relay {\"on\": true} and interval {\"seconds\": 1 to 65535}"#),
    }
}

fn told(bytes: &[u8], key: u8) -> String {
    format!(r#"{{"hex":"{}","key":{key}}}"#, hex(bytes))
}

fn error(consumed: usize, at: usize, why: &str) -> String {
    let consumed = if consumed == 0 { String::new() } else { format!(r#""consumed":{consumed},"#) };
    format!(r#"{{{consumed}"error":{{"at":{at},"why":"{why}"}}}}"#)
}

fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![START, 1 + body.len() as u8, kind];
    frame.extend(body);
    let sum = crc16(&frame);
    frame.extend(sum.to_le_bytes());
    frame
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}
