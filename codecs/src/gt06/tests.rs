use super::*;
use crate::Costs;

// 2024-02-29T23:59:58Z.
const CX: Context<'_> = Context { wall_ms: 1_709_251_198_000, device: Some("864717003283581"), token: "" };

fn device() -> Box<dyn Codec> {
    (DEF.build)(&Options::default())
}

fn hex(text: &str) -> Vec<u8> {
    crate::hex::decode(text).unwrap()
}

fn decode(codec: &mut dyn Codec, bytes: &[u8]) -> Frame {
    let mut buf = BytesMut::from(bytes);
    let frame = codec.decode(&CX, &mut buf).unwrap().unwrap();
    assert!(buf.is_empty());
    frame
}

fn says(codec: &mut dyn Codec, bytes: &[u8]) -> String {
    decode(codec, bytes).up.iter().map(Up::to_json).collect()
}

fn command(codec: &mut dyn Codec, value: &str) -> Result<(Expect, Vec<u8>), Fault> {
    let mut bytes = Vec::new();
    let expect = codec.encode(&CX, &Down { kind: "command", value: value.as_bytes() }, &mut bytes)?;
    Ok((expect, bytes))
}

/// A packet of the device.
fn packet_of(number: u8, content: &str) -> Bytes {
    packet(number, &hex(content), [0, 7])
}

#[test]
fn a_device_that_asks_for_the_time_is_told_it() {
    let frame = decode(&mut *device(), &hex("7878058A000688290D0A"));
    assert_eq!(frame.answer, packet(TIME, &[24, 2, 29, 23, 59, 58], [0, 6]));
}

#[test]
fn an_answer_belongs_to_the_command_with_its_server_flag() {
    let mut codec = device();
    assert_eq!(command(&mut *codec, "STATUS#").unwrap().0, Expect::Reply(1));
    assert_eq!(command(&mut *codec, "WHERE#").unwrap().0, Expect::Reply(2));
    // 0x15: length, server flag, text, language.
    let reply = packet_of(0x15, "06 00000002 4f4b 0002");
    assert_eq!(says(&mut *codec, &reply), r#"{"reply":{"key":2,"ok":true,"data":{"text":"OK"}}}"#);
    // Of a device that says no length, and fills up with zeros (an open tracking server's tests have such frames).
    assert_eq!(command(&mut *codec, "DYD#").unwrap().0, Expect::Reply(3));
    let reply = packet_of(0x15, "00 00000003 4459443d5375636365737321 0000000000000000 0001");
    assert_eq!(says(&mut *codec, &reply), r#"{"reply":{"key":3,"ok":true,"data":{"text":"DYD=Success!"}}}"#);
    // 0x21: server flag, encoding, text.
    let reply = packet_of(0x21, "00000001 01 4f4b");
    assert_eq!(says(&mut *codec, &reply), r#"{"reply":{"key":1,"ok":true,"data":{"text":"OK"}}}"#);
    let other = packet_of(0x21, "00000004 01 4f4b");
    assert_eq!(says(&mut *codec, &other), r#"{"kind":"message","data":{"text":"OK"}}"#);
    assert!(decode(&mut *codec, &other).answer.is_empty());
}

#[test]
fn times_are_put_into_utc_from_the_zone_of_the_login() {
    for (zone, utc) in [("3201", "2024-02-29T23:30:00Z"), ("190a", "2024-03-01T11:30:00Z")] {
        let mut codec = device();
        decode(&mut *codec, &packet_of(LOGIN, &format!("0864717003664467 100f {zone}")));
        // 1 March 2024, 07:30 where the device is: eight hours before UTC, and four after.
        let said = says(&mut *codec, &packet_of(0x10, "18 03 01 07 1e 00 c5 00000000 00000000 00 1400"));
        assert!(said.contains(utc), "{said}");
    }
}

#[test]
fn content_that_is_not_as_its_number_promises_is_published_as_it_came_and_answered() {
    let short = hex("787805120099abec0d0a");
    let frame = decode(&mut *device(), &short);
    assert_eq!(frame.up[0].to_json(), r#"{"kind":"other","data":{"protocol":18,"hex":""}}"#);
    assert_eq!(frame.answer, packet(0x12, &[], [0, 0x99]));
    // A cell whose length goes beyond the packet.
    let said = says(&mut *device(), &packet_of(0x16, "0f0c1d0a2b21c8027ac8040c46581000146f ff 01cc"));
    assert!(said.starts_with(r#"{"kind":"other","data":{"protocol":22,"#), "{said}");
}

#[test]
fn a_position_that_is_nowhere_on_earth_is_another_vendors_packet() {
    // Of the tests of an open tracking server, which knows these vendors: an IMEI, or two times, come first.
    for packet in [
        "78783c22 010357789648774484 180c06142038 180c06142038 cb03313ee4061fe98300185e0900000000000000004609 \
         84284c00020000 00000171 01d6f35d 0d0a",
        "78782712 0866703066502297 1a020c0a1e32c601727c1c0f89af002c14fa01366e000100010c 003c1fdd 0d0a",
    ] {
        let mut bytes = hex(packet);
        let end = bytes.len() - 4;
        let crc = Checksum::Crc16X25.of(&bytes[2..end]).to_be_bytes();
        bytes[end..end + 2].copy_from_slice(&crc[2..]);
        let frame = decode(&mut *device(), &bytes);
        assert!(
            frame.up[0].to_json().starts_with(r#"{"kind":"other","data":{"protocol":"#),
            "{:?}",
            frame.up
        );
        assert!(!frame.answer.is_empty());
    }
}

#[test]
fn what_a_status_alarms_of_is_said_in_three_of_its_bits() {
    for (information, alarm) in [
        ("44", ""),
        ("4c", r#","alarm":{"code":1,"name":"vibration"}"#),
        ("54", r#","alarm":{"code":2,"name":"power-cut"}"#),
        ("5c", r#","alarm":{"code":3,"name":"low-battery"}"#),
        ("64", r#","alarm":{"code":4,"name":"sos"}"#),
        ("7c", r#","alarm":{"code":7}"#),
    ] {
        let said = says(&mut *device(), &packet_of(HEARTBEAT, &format!("{information} 0190 04")));
        assert!(said.contains(&format!(r#""acc":false,"armed":false{alarm}}}"#)), "{information}: {said}");
    }
}

#[test]
fn a_clock_that_was_never_set_is_no_time() {
    let said = says(&mut *device(), &packet_of(0x10, "00 00 00 00 00 00 c0 00000000 00000000 00 0000"));
    assert!(said.starts_with(r#"{"kind":"location","data":{"gps":"#), "{said}");
}

#[test]
fn a_login_is_digits() {
    for (content, at) in [("08647170", 4 + 4), ("086471700328358f", 4 + 7)] {
        let fault = device().decode(&CX, &mut BytesMut::from(&packet_of(LOGIN, content)[..])).unwrap_err();
        assert_eq!((fault.costs, fault.at), (Costs::Frame, at), "{content}");
    }
}

#[test]
fn what_is_no_packet_is_skipped_to_the_next_one() {
    let good = hex(DEF.samples[0].hex);
    let longest = [0x79, 0x79, 0xff, 0xff, 0x01];
    for (bad, at) in [
        (&b"hello"[..], 0),
        (&[0x78, 0x78, 0x04, 0x01], 2),
        (&longest, 2),
        // A start in the place of an end: the length was wrong.
        (&[0x78, 0x78, 0x05, 0x01, 0, 1, 2, 3], 8),
    ] {
        let mut buf = BytesMut::from(&[bad, &good].concat()[..]);
        let mut codec = device();
        let fault = codec.decode(&CX, &mut buf).unwrap_err();
        assert_eq!((fault.costs, fault.at), (Costs::Frame, at), "{bad:?}");
        assert_eq!(&buf[..], &good[..], "{bad:?}");
    }
}

#[test]
fn a_beginning_that_is_cut_in_two_is_not_skipped() {
    let mut buf = BytesMut::from(&b"ab\x78"[..]);
    device().decode(&CX, &mut buf).unwrap_err();
    assert_eq!(&buf[..], b"\x78");
    buf = BytesMut::from(&b"abc"[..]);
    device().decode(&CX, &mut buf).unwrap_err();
    assert!(buf.is_empty());
    // Never nothing, or the same bytes would be looked at for ever.
    buf = BytesMut::from(&b"\x78a"[..]);
    device().decode(&CX, &mut buf).unwrap_err();
    assert!(buf.is_empty());
}

#[test]
fn a_wrong_crc_costs_the_packet_and_no_more() {
    let mut good = hex(DEF.samples[0].hex);
    let right = good.clone();
    good[5] ^= 1;
    let mut buf = BytesMut::from(&[&good[..], &right].concat()[..]);
    let mut codec = device();
    let fault = codec.decode(&CX, &mut buf).unwrap_err();
    assert_eq!((fault.costs, fault.at), (Costs::Frame, 14));
    assert_eq!(&buf[..], &right[..]);
}

#[test]
fn a_command_that_cannot_be_sent_says_why() {
    let mut codec = device();
    for (value, why) in [("", "empty"), ("{}", "command"), (&"a".repeat(244), "243 bytes")] {
        let fault = command(&mut *codec, value).unwrap_err();
        assert!(fault.why.contains(why), "{value}: {}", fault.why);
    }
    assert!(codec.encode(&CX, &Down { kind: "interval", value: b"9" }, &mut Vec::new()).is_err());
    let long = format!(r#"{{"command":"{}","language":2}}"#, "a".repeat(243));
    let (_, bytes) = command(&mut *codec, &long).unwrap();
    assert_eq!((bytes.len(), bytes[2]), (2 + 1 + 255 + 2, 255));
}
