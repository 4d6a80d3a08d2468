use proptest::prelude::*;

use super::*;
use crate::{Costs, hex};

fn options(text: &str) -> Result<FramingOptions, String> {
    let mut options = FramingOptions::default();
    for pair in text.split_whitespace() {
        let (key, value) = pair.split_once('=').unwrap();
        options.set(key, value).map_err(|why| format!("{key}: {why}"))?;
    }
    Ok(options)
}

fn framing(text: &str) -> Framing {
    Framing::new(&options(text).unwrap()).unwrap()
}

/// What each call of `cut` gives until nothing whole is left, faults as `at: why`; then what is left.
fn all(framing: &Framing, bytes: &[u8]) -> (Vec<Result<String, String>>, String) {
    let mut buf = BytesMut::from(bytes);
    let mut seen = Vec::new();
    loop {
        let before = buf.len();
        match framing.cut(&mut buf) {
            Ok(None) => return (seen, hex::encode(&buf)),
            Ok(Some(payload)) => seen.push(Ok(hex::encode(&payload))),
            Err(Fault { costs, at, why }) => {
                seen.push(Err(format!("{at}: {why}")));
                if costs == Costs::Stream {
                    return (seen, hex::encode(&buf));
                }
            }
        }
        assert!(buf.len() < before, "nothing was cut off: {seen:?}");
    }
}

fn frames(text: &str, stream: &str) -> (Vec<Result<String, String>>, String) {
    all(&framing(text), &hex::decode(stream).unwrap())
}

/// One of every kind, and whether its frames can carry any payload.
const EVERY: &[&str] = &[
    "kind=fixed size=12",
    "kind=fixed size=16 begin=aa end=0d0a checksum=sum8",
    "kind=delimiter delimiter=0d0a",
    "kind=delimiter delimiter=7e begin=7e escape=7e=7d02,7d=7d01 checksum=xor checksum_from=1",
    "kind=delimiter delimiter=c0 escape=c0=dbdc,db=dbdd checksum=crc16-x25 checksum_endian=little",
    "kind=delimiter delimiter=0a escape=5c",
    "kind=line",
    "kind=line begin=24 checksum=xor checksum_form=hex checksum_from=1 checksum_to=-3",
    "kind=length length_size=1",
    "kind=length length_size=2 endian=little adjust=-2",
    "kind=length length_size=3 offset=1 checksum=crc32",
    "kind=length length_size=4 offset=4 begin=00000000 checksum=crc16-arc adjust=4",
    "kind=length length_size=1 offset=2 begin=7878 end=0d0a checksum=crc16-x25 checksum_from=2",
    "kind=length length_size=2 offset=1 strip=3 checksum=crc8 checksum_at=0",
    "kind=idle pause=50ms max_frame=512 checksum=crc16-modbus checksum_endian=little",
];

fn any_framing() -> impl Strategy<Value = Framing> {
    (0..EVERY.len()).prop_map(|i| framing(EVERY[i]))
}

/// Bytes in which those that mean something somewhere are frequent.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let special =
        prop::sample::select(vec![0x7e, 0x7d, 0x02, 0xc0, 0xdb, 0x0a, 0x0d, 0x5c, 0xaa, 0x78, 0x24]);
    prop::collection::vec(prop_oneof![any::<u8>(), special], 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_wrapped_is_cut_the_same_however_the_bytes_come(
        framing in any_framing(),
        payloads in prop::collection::vec(any_payload(), 1..4),
        split in 1..20_usize,
    ) {
        let mut wire = Vec::new();
        let mut fixed = payloads.clone();
        if let Cut::Fixed(size) = framing.cut {
            fixed.iter_mut().for_each(|p| p.resize(size - framing.least(), 7));
        }
        if framing.idle().is_some() {
            fixed.truncate(1);
        }
        let wrapped = fixed.into_iter().filter(|p| {
            let was = wire.len();
            let is_wrapped = framing.wrap(p, &mut wire).is_ok();
            assert!(is_wrapped || wire.len() == was);
            is_wrapped
        });
        let wrapped: Vec<_> = wrapped.collect();
        let mut buf = BytesMut::new();
        let mut cut = Vec::new();
        for piece in wire.chunks(split) {
            buf.extend_from_slice(piece);
            while let Some(payload) = framing.cut(&mut buf).unwrap() {
                cut.push(payload.to_vec());
            }
        }
        if framing.idle().is_some() {
            cut.extend(framing.rest(&mut buf).unwrap().map(|p| p.to_vec()));
        }
        prop_assert_eq!(cut, wrapped);
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn whatever_comes_is_cut_or_waits_within_its_bound(framing in any_framing(), wire in any_payload()) {
        let (_, left) = all(&framing, &wire);
        prop_assert!(left.len() / 2 < framing.max_frame().max(wire.len() + 1));
        let mut buf = BytesMut::from(&wire[..]);
        while framing.rest(&mut buf).is_err() {}
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn a_bit_turned_over_is_never_the_same_payload_where_there_is_a_checksum(
        framing in any_framing(),
        payload in prop::collection::vec(any::<u8>(), 12),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut wire = Vec::new();
        let payload = if let Cut::Fixed(size) = framing.cut { &payload[..size - framing.least()] } else { &payload };
        if framing.sum.is_some() && framing.wrap(payload, &mut wire).is_ok() {
            let bit = bit.index(8 * wire.len());
            wire[bit / 8] ^= 1 << (bit % 8);
            let right = Ok(hex::encode(payload));
            let (seen, _) = all(&framing, &wire);
            // What a checksum covers says nothing of the bytes around it: `checksum_from` leaves some out.
            prop_assert!(framing.sum.is_some_and(|s| s.is_hex) || !seen.contains(&right), "{:02x?}", wire);
        }
    }
}

/// Framings that say how a frame begins, and whether it is one.
const KNOWN: &[&str] = &[
    "kind=fixed size=16 begin=aa end=0d0a checksum=crc32",
    "kind=delimiter delimiter=0d0a begin=24 checksum=crc32 checksum_form=hex",
    "kind=delimiter delimiter=7e begin=7e escape=7e=7d02,7d=7d01 checksum=crc32",
    "kind=delimiter delimiter=0a begin=02 escape=5c checksum=crc32",
    "kind=line begin=24 checksum=crc32 checksum_form=hex",
    "kind=length length_size=1 offset=2 begin=7878 end=0d0a checksum=crc32",
    "kind=length length_size=2 offset=1 endian=little begin=02 checksum=crc32 max_frame=300",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_between_frames_never_costs_a_frame_behind_it(
        at in 0..KNOWN.len(),
        garbage in prop::collection::vec(any_payload(), 1..4),
        begins in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        let framing = framing(KNOWN[at]);
        let (mut wire, mut good) = (Vec::new(), Vec::new());
        for (mut garbage, begin) in garbage.into_iter().zip(begins) {
            // It has in it what looks like the beginning of a frame.
            let begin = begin.index(garbage.len() + 1);
            garbage.splice(begin..begin, framing.begin.iter().copied());
            wire.extend(garbage);
            let payload = vec![b'*' + good.len() as u8; 16 - framing.least().min(15)];
            framing.wrap(&payload, &mut wire).unwrap();
            good.push(payload);
        }
        // As a datagram: what waits for more bytes is at its end.
        let mut buf = BytesMut::from(&wire[..]);
        let mut seen = Vec::new();
        while !buf.is_empty() {
            let cut = framing.cut(&mut buf).and_then(|cut| match cut {
                None => framing.rest(&mut buf),
                cut => Ok(cut),
            });
            seen.extend(cut.ok().flatten().map(|payload| payload.to_vec()));
        }
        prop_assert_eq!(seen, good, "{}: {:02x?}", KNOWN[at], wire);
    }
}

#[test]
fn every_kind_wraps_a_payload() {
    for text in EVERY {
        let framing = framing(text);
        let size = if let Cut::Fixed(size) = framing.cut { size - framing.least() } else { 5 };
        let mut wire = Vec::new();
        assert_eq!(framing.wrap(&vec![b'*'; size], &mut wire), Ok(()), "{text}");
    }
}

fn ok(payload: &str) -> Result<String, String> {
    Ok(payload.to_owned())
}

fn bad(fault: &str) -> Result<String, String> {
    Err(fault.to_owned())
}

#[test]
fn a_length_field_says_what_comes_after_it() {
    // GT06: the login of a real device, from Concox's document, and its answer.
    let gt06 = "kind=length length_size=1 offset=2 begin=7878 end=0d0a adjust=2 \
                checksum=crc16-x25 checksum_from=2 strip=3";
    let login = "78780d01012345678901234500018cdd0d0a";
    assert_eq!(frames(gt06, login), (vec![ok("0101234567890123450001")], String::new()));
    let mut answer = Vec::new();
    framing(gt06).wrap(&[1, 0, 1], &mut answer).unwrap();
    assert_eq!(hex::encode(&answer), "787805010001d9dc0d0a");
    // With its header, as `strip` says.
    assert_eq!(
        frames("kind=length length_size=2 strip=0", "0002aabb00"),
        (vec![ok("0002aabb")], "00".into())
    );
    assert_eq!(frames("kind=length length_size=2 endian=little adjust=-2", "0400aabb").0, [ok("aabb")]);
}

#[test]
fn a_frame_of_modbus_ends_with_its_crc_low_byte_first() {
    // "Modbus over serial line", 6.2.2 has no frame; this is the request of the slave 1 for the registers 0 and 1.
    let modbus = "kind=fixed size=8 checksum=crc16-modbus checksum_endian=little";
    assert_eq!(frames(modbus, "010300000002c40b").0, [ok("010300000002")]);
    let wrong = bad("6: the checksum is c40c, and c40b would be right");
    assert_eq!(frames(modbus, "010300000002c40c").0, [wrong]);
}

#[test]
fn a_sentence_of_nmea_has_its_checksum_in_digits() {
    let nmea = "kind=line begin=24 checksum=xor checksum_form=hex checksum_from=1 checksum_to=-3";
    let line = "$GPGLL,5300.97914,N,00259.98174,E,125926,A*28";
    let stream = hex::encode(format!("{line}\r\n").as_bytes());
    let payload = hex::encode(line.trim_start_matches('$').trim_end_matches("28").as_bytes());
    assert_eq!(frames(nmea, &stream).0, [Ok(payload)]);
}

#[test]
fn escapes_are_taken_off_before_the_checksum_is_looked_at() {
    // JT/T 808-2019, 4.4.2: 30 7e 08 7d 55 is written as 7e 30 7d 02 08 7d 01 55 7e.
    let jt808 = "kind=delimiter delimiter=7e begin=7e escape=7e=7d02,7d=7d01";
    assert_eq!(frames(jt808, "7e307d02087d01557e").0, [ok("307e087d55")]);
    let with = format!("{jt808} checksum=xor checksum_from=1");
    let wrong = bad("7: the checksum is 55, and 3b would be right");
    assert_eq!(frames(&with, "7e307d02087d01557e").0[0], wrong);
    assert_eq!(frames(jt808, "7e307d03557e").0[0], bad("3: 7d03 is the escape of nothing"));
    assert_eq!(frames("kind=delimiter delimiter=0a escape=5c", "415c0a5c5c0a").0, [ok("410a5c")]);
}

#[test]
fn after_garbage_the_next_frame_is_found_by_how_it_begins() {
    let text = "kind=length length_size=1 offset=2 begin=7878 end=0d0a adjust=2 max_frame=40";
    let (one, two) = ("787802aabb0d0a", "787801cc0d0a");
    let garbage = bad("0: 00 is not how a frame begins: 7878");
    let both = [garbage, ok("aabb"), ok("cc")];
    assert_eq!(frames(text, &format!("00117800{one}{two}")).0, both);
    // A length that is too large, and one that takes in the next frame.
    let large = bad("2: the length 200 makes a frame of 205 bytes, and at most 40 are allowed");
    assert_eq!(frames(text, &format!("7878c8{one}")).0, [large, ok("aabb")]);
    assert_eq!(frames(text, &format!("787808{one}{two}")).0[1..], [ok("aabb"), ok("cc")]);
}

#[test]
fn where_the_next_frame_cannot_be_found_the_stream_is_at_its_end() {
    let length = "kind=length length_size=2 max_frame=10";
    let large = bad("0: the length 9 makes a frame of 11 bytes, and at most 10 are allowed");
    assert_eq!(frames(length, "0009"), (vec![large], "0009".into()));
    let line = bad("4: no end of the frame within 4 bytes");
    assert_eq!(frames("kind=line max_frame=4", "410a41414141").0, [ok("41"), line]);
    let short = bad("0: the length 0 is less than every frame has");
    assert_eq!(frames("kind=length length_size=1 adjust=-1", "0042").0, [short]);
}

#[test]
fn two_delimiters_in_a_row_cost_the_first_one() {
    let jt808 = "kind=delimiter delimiter=7e begin=7e";
    let empty = bad("1: nothing between where a frame begins and where it ends");
    assert_eq!(frames(jt808, "7e7e417e").0, [empty, ok("41")]);
}

#[test]
fn a_datagram_need_not_end_as_a_line_does() {
    let line = framing("kind=line");
    assert_eq!(line.rest(&mut BytesMut::from("abc")), Ok(Some(Bytes::from("abc"))));
    assert_eq!(line.rest(&mut BytesMut::new()), Ok(None));
    let length = framing("kind=length length_size=1");
    let short = Fault::frame(2, "the bytes end within a frame");
    assert_eq!(length.rest(&mut BytesMut::from(&[5, 1][..])), Err(short));
}

#[test]
fn what_cannot_be_carried_is_not_wrapped() {
    for (text, payload, why) in [
        ("kind=line", "a\nb", "1: the payload has in it what ends a frame"),
        ("kind=line", "a\r", "1: a line must not end with a carriage return"),
        ("kind=delimiter delimiter=616261", "ab", "0: the payload has in it what ends a frame"),
        ("kind=fixed size=4", "abc", "0: a frame of 3 bytes, and all have 4"),
        ("kind=length length_size=1 adjust=-250", "abcdef", "0: a length that its field cannot say"),
        ("kind=length length_size=2 max_frame=4", "abc", "0: a frame of 5 bytes, and at most 4 are allowed"),
        ("kind=length length_size=2 strip=0", "a", "0: the payload does not begin with"),
    ] {
        let mut into = b"before".to_vec();
        let fault = framing(text).wrap(payload.as_bytes(), &mut into).unwrap_err();
        assert!(format!("{}: {}", fault.at, fault.why).starts_with(why), "{text}: {fault:?}");
        assert_eq!(into, b"before");
    }
}

#[test]
fn options_that_make_no_sense_say_what_would() {
    for (text, why) in [
        ("", "needs `kind`: fixed, delimiter, length, line, idle"),
        ("kind=chunk", "kind: must be one of fixed, delimiter, length, line, idle"),
        ("kind=fixed", "kind \"fixed\" needs `size`"),
        ("kind=fixed size=0", "size: must be a whole number from 1 to 16777216"),
        ("kind=fixed size=1 checksum=crc16-x25", "`size` must be at least 2"),
        ("kind=delimiter", "kind \"delimiter\" needs `delimiter`"),
        ("kind=delimiter delimiter=0g", "delimiter: 'g' at 1 is no hexadecimal digit"),
        ("kind=delimiter delimiter=0d0a escape=5c", "`escape` must hide a `delimiter` of one byte"),
        ("kind=delimiter delimiter=7e escape=7d=7d01", "`escape` must hide a `delimiter` of one byte"),
        ("kind=delimiter delimiter=7e escape=7e=7d02", "escape: must say how 7d itself is written"),
        ("kind=line size=3", "`size` means nothing for kind \"line\""),
        ("kind=line checksum_at=0", "`checksum_at` means nothing without `checksum`"),
        ("kind=length", "kind \"length\" needs `length_size`"),
        ("kind=length length_size=5", "length_size: must be a whole number from 1 to 4"),
        ("kind=length length_size=1 begin=7878", "`begin` must not be longer than `offset`"),
        ("kind=length length_size=1 strip=2", "`strip` must not be more than"),
        ("kind=idle", "kind \"idle\" needs `pause`, such as \"50ms\""),
        ("kind=idle pause=5", "pause: must be a time from \"1ms\" to \"60s\""),
        ("kind=line checksum=crc9", "checksum: must be one of xor, sum8"),
        ("kind=line checksum=xor checksum_to=3", "`checksum_to` must leave the checksum out"),
        (
            "kind=line checksum=xor checksum_at=2 checksum_from=0",
            "`checksum_from` to `checksum_to` must leave the checksum out",
        ),
        ("speed=9600", "speed: there is no such key; there are kind, size"),
    ] {
        let found = options(text).and_then(|options| Framing::new(&options)).unwrap_err();
        assert!(found.starts_with(why), "{text}: {found}");
    }
}
