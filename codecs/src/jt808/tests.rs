use bytes::BytesMut;
use serde_json::{Value, json};

use super::*;
use crate::{Costs, hex};

const CX: Context<'static> = Context { wall_ms: 1_763_737_200_000, device: None, token: "token" };

/// A frame of a terminal with this number, whose check is right.
fn frame(msg_id: u16, phone: &str, serial: u16, part: Option<(u16, u16)>, body: &[u8]) -> Vec<u8> {
    let phone = hex::decode(phone).unwrap();
    let is_2019 = phone.len() == 10;
    let bit = |is_set: bool, bit: u16| if is_set { 1 << bit } else { 0 };
    let properties = body.len() as u16 | bit(is_2019, 14) | bit(part.is_some(), 13);
    let mut message = [msg_id.to_be_bytes(), properties.to_be_bytes()].concat();
    message.extend(is_2019.then_some(1));
    message.extend(phone);
    message.extend(serial.to_be_bytes());
    message.extend(
        part.into_iter().flat_map(|(total, place)| [total.to_be_bytes(), place.to_be_bytes()].concat()),
    );
    message.extend(body);
    message.push(message.iter().fold(0, |sum, byte| sum ^ byte));
    let escaped = message.into_iter().flat_map(|byte| match byte {
        0x7e => vec![0x7d, 2],
        0x7d => vec![0x7d, 1],
        byte => vec![byte],
    });
    [vec![0x7e], escaped.collect(), vec![0x7e]].concat()
}

const OLD: &str = "013912345678";
const NEW: &str = "00000000013912345678";

fn read(codec: &mut dyn Codec, cx: &Context<'_>, bytes: &[u8]) -> Frame {
    let mut buf = BytesMut::from(bytes);
    let frame = codec.decode(cx, &mut buf).unwrap().unwrap();
    assert!(buf.is_empty(), "all of it is read");
    frame
}

/// A terminal that has logged in.
fn terminal(phone: &str) -> (Box<dyn Codec>, Context<'static>) {
    let mut codec = (DEF.build)(&Options::default());
    read(&mut *codec, &CX, &frame(0x0002, phone, 0, None, &[]));
    (codec, Context { device: Some("13912345678"), ..CX })
}

fn ups(frame: &Frame) -> Vec<Value> {
    frame.up.iter().map(|up| serde_json::from_str(&up.to_json()).unwrap()).collect()
}

fn body(bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    frame::unescape(&bytes[1..bytes.len() - 1], &mut message);
    let (_, mut body) = frame::open(&message).unwrap();
    body.rest().to_vec()
}

fn down(codec: &mut dyn Codec, kind: &str, value: &str) -> Result<(Expect, Vec<u8>), String> {
    let mut into = Vec::new();
    let expect = codec.encode(&CX, &Down { kind, value: value.as_bytes() }, &mut into);
    expect.map(|expect| (expect, into)).map_err(|fault| fault.why.into_owned())
}

#[test]
fn who_is_not_let_in_is_told_in_its_own_words() {
    let mut codec = (DEF.build)(&Options::default());
    let register = read(&mut *codec, &CX, &hex::decode(DEF.samples[2].hex).unwrap());
    assert_eq!(body(&register.refusal), [0, 0x24, 4]);
    let location = read(&mut *codec, &CX, &frame(0x0002, "014130567872", 9, None, &[]));
    assert_eq!(body(&location.refusal), [0, 9, 0, 2, 1]);
    assert_eq!(location.up, [Up::Heartbeat], "who asked to register is not let in by its number");
}

#[test]
fn a_terminal_that_may_speak_says_its_number_until_it_has_a_name() {
    let mut codec = (DEF.build)(&Options::default());
    let beat = frame(0x0002, OLD, 0, None, &[]);
    let (first, second) = (read(&mut *codec, &CX, &beat), read(&mut *codec, &CX, &beat));
    assert_eq!(ups(&first), [json!({"login": {"device": "13912345678"}}), json!({"heartbeat": {}})]);
    assert_eq!(first.up, second.up);
    let known = Context { device: Some("13912345678"), ..CX };
    assert_eq!(read(&mut *codec, &known, &beat).up, [Up::Heartbeat]);
}

#[test]
fn another_terminal_has_nothing_to_say_on_this_connection() {
    let (mut codec, cx) = terminal(OLD);
    let other = frame(0x0002, "013900000000", 0, None, &[]);
    let fault = codec.decode(&cx, &mut BytesMut::from(&other[..])).unwrap_err();
    assert_eq!((fault.costs, fault.at), (Costs::Frame, 5));
    assert_eq!(fault.why, "13900000000 speaks on the connection of 13912345678");
}

#[test]
fn numbers_lose_what_fills_them_up_and_may_be_hexadecimal() {
    for (phone, name) in [
        (OLD, "13912345678"),
        (NEW, "13912345678"),
        ("000000000000", "000000000000"),
        ("4f07788ef676", "4f07788ef676"),
    ] {
        let mut codec = (DEF.build)(&Options::default());
        let up = ups(&read(&mut *codec, &CX, &frame(0x0002, phone, 0, None, &[])));
        assert_eq!(up[0], json!({"login": {"device": name}}));
    }
}

#[test]
fn a_fault_is_at_its_byte_of_what_came_with_all_escapes() {
    let mut bytes = hex::decode(DEF.samples[0].hex).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    let fault = (DEF.build)(&Options::default()).decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap_err();
    assert_eq!((fault.at, fault.why.as_ref()), (last, "check is 12, and it should be 13"));

    let (mut codec, cx) = terminal(OLD);
    for (bytes, at, why) in [
        (frame(0x0200, OLD, 0x7e, None, &[0; 20]), 34, "the frame ends before its content does"),
        (vec![0x7e, 1, 0x7e], 1, "check is 01, and it should be 00"),
        (vec![0x7e, 1, 0, 1, 0x7e], 3, "the frame ends before its content does"),
        (vec![9, 9, 0x7e], 0, "a frame begins with 7e"),
    ] {
        let fault = codec.decode(&cx, &mut BytesMut::from(&bytes[..])).unwrap_err();
        assert_eq!(
            (fault.costs, fault.at, fault.why.as_ref()),
            (Costs::Frame, at, why),
            "{}",
            hex::encode(&bytes)
        );
    }
}

#[test]
fn a_body_is_as_long_as_the_header_says() {
    let mut message = hex::decode("0002 0001 013912345678 0000").unwrap();
    message.push(message.iter().fold(0, |sum, byte| sum ^ byte));
    let bytes = [&[0x7e][..], &message, &[0x7e]].concat();
    let fault = (DEF.build)(&Options::default()).decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap_err();
    assert_eq!(fault.why, "the header says 1 bytes of body, and there are 0");
}

#[test]
fn a_7d_that_was_forgotten_to_be_escaped_is_one() {
    let (mut codec, cx) = terminal(OLD);
    let mut message = hex::decode("0900 0004 013912345678 0001 417d2b7d").unwrap();
    message.push(message.iter().fold(0, |sum, byte| sum ^ byte));
    let up = ups(&read(&mut *codec, &cx, &[&[0x7e][..], &message, &[0x7e]].concat()));
    assert_eq!(up, [json!({"kind": "transparent", "data": {"type": 65, "base64": "fSt9", "text": "}+}"}})]);
}

#[test]
fn delimiters_without_a_frame_and_garbage_between_frames_lose_nothing() {
    let beat = frame(0x0002, OLD, 3, None, &[]);
    let bytes = [&[0x7e, 0x7e][..], &beat, b"garbage", &beat, &[0x7e], &beat].concat();
    let (mut codec, cx) = terminal(OLD);
    let mut buf = BytesMut::from(&bytes[..]);
    assert_eq!(codec.decode(&cx, &mut buf).unwrap().unwrap().up, [Up::Heartbeat]);
    assert_eq!(codec.decode(&cx, &mut buf).unwrap_err().at, 0);
    assert_eq!(codec.decode(&cx, &mut buf).unwrap().unwrap().up, [Up::Heartbeat]);
    assert_eq!(codec.decode(&cx, &mut buf).unwrap().unwrap().up, [Up::Heartbeat]);
    assert_eq!(codec.decode(&cx, &mut buf), Ok(None));
}

#[test]
fn a_long_command_goes_in_sub_packages_and_its_outcome_is_the_answer_to_the_last() {
    let long: Vec<u8> = (0..2500_u16).map(|n| n as u8).collect();
    let raw = format!(r#"{{"msg_id":33032,"body_hex":"{}"}}"#, hex::encode(&long));
    for phone in [OLD, NEW] {
        let (mut codec, cx) = terminal(phone);
        let (expect, bytes) = down(&mut *codec, "raw", &raw).unwrap();
        // The general answer to the first message had the number 0.
        assert_eq!(expect, Expect::Reply(3));
        let frames: Vec<&[u8]> = bytes.split(|b| *b == 0x7e).filter(|frame| !frame.is_empty()).collect();
        let mut whole = Vec::new();
        for (n, frame) in (1..).zip(&frames) {
            let mut message = Vec::new();
            frame::unescape(frame, &mut message);
            let (header, mut body) = frame::open(&message).unwrap();
            assert_eq!((header.msg_id, header.serial, header.part), (0x8108, n, Some((3, n))));
            assert_eq!(header.is_2019(), phone == NEW);
            whole.extend_from_slice(body.rest());
        }
        assert_eq!((frames.len(), &whole), (3, &long));
        let mut said = |serial: u8, result| {
            ups(&read(&mut *codec, &cx, &frame(0x0001, phone, 9, None, &[0, serial, 0x81, 8, result])))
        };
        assert!(said(1, 0).is_empty() && said(2, 0).is_empty());
        let outcome = |is_ok: bool, result: &str| {
            let data = json!({"msg_id": 0x8108, "result": result});
            vec![json!({"reply": {"key": 3, "ok": is_ok, "data": data}})]
        };
        assert_eq!(said(3, 0), outcome(true, "ok"));
        assert_eq!(said(2, 1), outcome(false, "failed"));
        // The next command has the next number.
        assert_eq!(down(&mut *codec, "link_test", "{}").unwrap().0, Expect::Reply(4));
    }
}

#[test]
fn bits_that_were_reserved_in_2013_have_no_names_there() {
    // Alarms 15 to 18, states 5 to 7 and 21 to 23, and a latitude of nothing in the south.
    let fixed = hex::decode("00078000 00e000e4 00000000 00000001 0000 0000 0000 260101000000").unwrap();
    for (phone, alarms, states) in [
        (OLD, json!(["daily_driving_exceeded"]), json!(["encrypted", "galileo"])),
        (
            NEW,
            json!(["unlawful_driving", "tire_pressure", "blind_zone", "daily_driving_exceeded"]),
            json!(["encrypted", "forward_collision_warning", "lane_departure_warning", "galileo", "moving"]),
        ),
    ] {
        let (mut codec, cx) = terminal(phone);
        let up = ups(&read(&mut *codec, &cx, &frame(0x0200, phone, 1, None, &fixed)));
        let data = &up[0]["data"];
        assert_eq!((&data["alarms"], &data["states"]), (&alarms, &states));
        assert_eq!(data["lat"].to_string(), "0.0");
    }
}

#[test]
fn a_frame_that_has_lost_its_end_does_not_take_the_next_one_with_it() {
    let beat = frame(0x0002, OLD, 3, None, &[]);
    let mut spoilt = beat.clone();
    spoilt[4] ^= 1;
    for (bad, is_whole) in [(&beat[..9], false), (&beat[..9], true), (&spoilt, false), (&spoilt, true)] {
        let (_, cx) = terminal(OLD);
        let mut codec = (DEF.build)(&Options { is_whole, ..Options::default() });
        let mut buf = BytesMut::from(&[bad, &beat, &beat].concat()[..]);
        assert_eq!(codec.decode(&cx, &mut buf).unwrap_err().costs, Costs::Frame);
        for _ in 0..2 {
            assert_eq!(codec.decode(&cx, &mut buf).unwrap().unwrap().up.last(), Some(&Up::Heartbeat));
        }
        assert_eq!(codec.decode(&cx, &mut buf), Ok(None));
    }
    // A datagram of nothing else is one bad frame, and not two.
    let mut codec = (DEF.build)(&Options { is_whole: true, ..Options::default() });
    let mut buf = BytesMut::from(&spoilt[..]);
    codec.decode(&CX, &mut buf).unwrap_err();
    assert!(buf.is_empty());
}

#[test]
fn a_frame_without_end_is_not_kept_for_ever() {
    let (mut codec, cx) = terminal(OLD);
    let mut buf = BytesMut::from(&[0x7e][..]);
    buf.resize(codec.max_frame() + 2, 1);
    let fault = codec.decode(&cx, &mut buf).unwrap_err();
    assert_eq!((fault.costs, fault.at, buf.len()), (Costs::Frame, codec.max_frame() + 1, 0));
}

#[test]
fn items_of_another_length_are_given_as_they_came() {
    let (mut codec, cx) = terminal(NEW);
    let zeros = [0; 28];
    // Mileage with two bytes, then with four, then again; temperature; pressures; crossing; and half an item.
    let items =
        hex::decode("01020001 010400000064 010400000065 06028005 0602fffb 120602000000070130 05").unwrap();
    let up = ups(&read(&mut *codec, &cx, &frame(0x0200, NEW, 1, None, &[&zeros[..], &items].concat())));
    let data = &up[0]["data"];
    assert_eq!(data["time"], Value::Null);
    assert_eq!((&data["mileage_km"], &data["carriage_temperature"]), (&json!(10.0), &json!(-5)));
    assert_eq!(data["crossing"], json!({"area": "rectangle", "id": 7, "direction": "out"}));
    let others = json!([{"id": 1, "hex": "0001"}, {"id": 1, "hex": "00000065"}, {"id": 6, "hex": "fffb"}]);
    assert_eq!((&data["items"], &data["rest"]), (&others, &json!("3005")));

    let (mut codec, cx) = terminal(OLD);
    let up = ups(&read(&mut *codec, &cx, &frame(0x0200, OLD, 1, None, &[&zeros[..], &items].concat())));
    assert_eq!(up[0]["data"]["carriage_temperature"], Value::Null, "which 2013 did not know");
}

#[test]
fn signs_alarms_and_states_have_names() {
    let (mut codec, cx) = terminal(NEW);
    let mut location =
        hex::decode("c0000001 00403f0f 00989680 01312d00 fff6 0258 005a 251121154000").unwrap();
    location
        .extend(hex::decode("2504000000 11 2a020002 2b0400010002 1301 00 1101 00 110502 00000009").unwrap());
    let up = ups(&read(&mut *codec, &cx, &frame(0x0200, NEW, 1, None, &location)));
    let data = &up[0]["data"];
    assert_eq!((&data["lat"], &data["lon"], &data["altitude"]), (&json!(-10.0), &json!(-20.0), &json!(-10)));
    assert_eq!((&data["speed"], &data["heading"], &data["load"]), (&json!(60.0), &json!(90), &json!("full")));
    assert_eq!(data["alarms"], json!(["sos", "rollover", "unlawful_door"]));
    assert_eq!(data["states"], json!(["fuel_cut", "power_cut", "locked", "door_1", "moving"]));
    assert_eq!(data["signals"], json!(["low_beam", "brake"]));
    assert_eq!((&data["io"], &data["analog"]), (&json!(["sleep"]), &json!([2, 1])));
    assert_eq!(data["overspeed"], json!({"area": "none"}));
    assert_eq!(data["items"], json!([{"id": 0x13, "hex": "00"}, {"id": 0x11, "hex": "0200000009"}]));
}

#[test]
fn messages_of_the_standard_are_json() {
    let text = |words: &str| words.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    for (msg_id, body, kind, data) in [
        (0x0108, "0003".to_owned(), "upgrade", json!({"type": 0, "result": 3})),
        (0x0301, "07".into(), "event", json!({"id": 7})),
        (0x0303, "0501".into(), "info_demand", json!({"type": 5, "is_demanded": true})),
        (0x0701, format!("00000002{}", text("hi")), "waybill", json!({"length": 2, "base64": "aGk="})),
        (
            0x0702,
            "02 251121154000".into(),
            "driver",
            json!({"status": "removed", "time": "2025-11-21T15:40:00+08:00"}),
        ),
        (
            0x0702,
            // Name and organisation in GBK.
            format!("01 251121154000 00 04 d5c5c8fd {} 04 b1b1bea9 20301231", text("CERT1234567890123456")),
            "driver",
            json!({"status": "inserted", "time": "2025-11-21T15:40:00+08:00", "card": "ok", "name": "张三",
                "certificate": "CERT1234567890123456", "organisation": "北京", "expires": "20301231"}),
        ),
        (
            0x0705,
            "0001 1540001234 c0000123 0102030405060708".into(),
            "can",
            json!({"time": "15:40:00.1234", "frames": [{"id": 0x123, "channel": 1, "is_extended": true,
                "is_average": false, "hex": "0102030405060708"}]}),
        ),
        (
            0x0800,
            "00000007 00 00 01 02".into(),
            "media_event",
            json!({"id": 7, "type": "image", "format": "jpeg", "event": 1, "channel": 2}),
        ),
        (0x0901, "00000002 1f8b".into(), "compressed", json!({"length": 2, "base64": "H4s="})),
        (
            0x0a00,
            format!("00010001{}", "ab".repeat(128)),
            "rsa_key",
            json!({"e": 65537, "n": "ab".repeat(128)}),
        ),
        (0x0f01, "0102".into(), "raw", json!({"msg_id": 0x0f01, "body_hex": "0102"})),
    ] {
        let (mut codec, cx) = terminal(OLD);
        let said = read(&mut *codec, &cx, &frame(msg_id, OLD, 5, None, &hex::decode(&body).unwrap()));
        assert_eq!(ups(&said), [json!({"kind": kind, "data": data})], "{msg_id:04x}");
        let [high, low] = msg_id.to_be_bytes();
        assert_eq!(self::body(&said.answer), [0, 5, high, low, 0]);
    }
}

#[test]
fn what_is_encrypted_goes_on_as_it_is() {
    let (mut codec, cx) = terminal(OLD);
    let mut message = hex::decode("0200 0402 013912345678 0001 abcd").unwrap();
    message.push(message.iter().fold(0, |sum, byte| sum ^ byte));
    let up = ups(&read(&mut *codec, &cx, &[&[0x7e][..], &message, &[0x7e]].concat()));
    assert_eq!(up, [json!({"kind": "raw", "data": {"msg_id": 512, "body_hex": "abcd", "encryption": 1}})]);
}

#[test]
fn the_time_is_told_in_utc_and_a_logout_is_one() {
    let (mut codec, cx) = terminal(NEW);
    let time = read(&mut *codec, &cx, &frame(0x0004, NEW, 1, None, &[]));
    assert_eq!(body(&time.answer), [0x25, 0x11, 0x21, 0x15, 0, 0]);
    assert_eq!(read(&mut *codec, &cx, &frame(0x0003, NEW, 2, None, &[])).up, [Up::Logout]);
}

#[test]
fn a_picture_in_sub_packages_is_asked_for_until_it_is_whole() {
    let (mut codec, cx) = terminal(OLD);
    let mut picture = hex::decode("00000009 00 00 01 02").unwrap();
    picture.extend([0; 28]);
    picture.extend([0xff, 0xd8, 0x7e, 0x7d]);
    let part = |place: u16| {
        let bytes = &picture[usize::from(place - 1) * 10..][..10];
        frame(0x0801, OLD, 99 + place, Some((4, place)), bytes)
    };
    let first = read(&mut *codec, &cx, &part(1));
    assert_eq!((first.up.len(), body(&first.answer)), (0, vec![0, 100, 8, 1, 0]));
    read(&mut *codec, &cx, &part(2));
    let last = read(&mut *codec, &cx, &part(4));
    let at = last.answer.iter().skip(1).position(|b| *b == 0x7e).unwrap() + 2;
    assert_eq!(body(&last.answer[..at]), [0, 103, 8, 1, 0]);
    assert_eq!(&last.answer[at + 1..at + 3], [0x80, 0x03]);
    assert_eq!(body(&last.answer[at..]), [0, 100, 1, 0, 3]);
    let whole = read(&mut *codec, &cx, &part(3));
    let up = ups(&whole);
    assert_eq!(up[0]["kind"], "media");
    assert_eq!((&up[0]["data"]["id"], &up[0]["data"]["base64"]), (&json!(9), &json!("/9h+fQ==")));
    assert_eq!(body(&whole.answer), [0, 0, 0, 9]);
    assert_eq!(&whole.answer[1..3], [0x88, 0x00]);
}

#[test]
fn outcomes_are_known_by_the_serial_number() {
    let (mut codec, cx) = terminal(OLD);
    let mut told = |kind: &str, value: &str| match down(&mut *codec, kind, value).unwrap() {
        (Expect::Reply(key), _) => key as u16,
        (Expect::Nothing, _) => panic!("{kind} is answered"),
    };
    let (text, place, params) =
        (told("text", r#"{"text": "a"}"#), told("query_location", ""), told("query_params", ""));
    let (about, photo) = (told("attributes", "{}"), told("photo", "{}"));
    let mut heard =
        |msg_id: u16, body: &[u8]| ups(&read(&mut *codec, &cx, &frame(msg_id, OLD, 1, None, body)));
    let general =
        |serial: u16, id: u16, result: u8| [&serial.to_be_bytes()[..], &id.to_be_bytes(), &[result]].concat();

    let ok = json!({"msg_id": 0x8300, "result": "ok"});
    assert_eq!(
        heard(1, &general(text, 0x8300, 0)),
        [json!({"reply": {"key": text, "ok": true, "data": ok}})]
    );
    assert_eq!(heard(1, &general(place, 0x8201, 0)), [] as [Value; 0], "its own answer is to come");
    let up = heard(0x0201, &[&place.to_be_bytes()[..], &[0; 28]].concat());
    assert_eq!((&up[0]["kind"], &up[1]["reply"]["key"]), (&json!("location"), &json!(place)));
    assert_eq!(up[0]["data"], up[1]["reply"]["data"]);
    let up = heard(
        0x0104,
        &[&params.to_be_bytes()[..], &hex::decode("01 00000001 04 0000001e").unwrap()].concat(),
    );
    assert_eq!(up[1]["reply"]["data"], json!({"params": {"heartbeat_interval": 30}}));
    // Attributes have no serial number.
    let attributes = hex::decode(DEF.samples[11].hex).unwrap();
    let up = heard(0x0107, &body(&attributes));
    assert_eq!((&up[0]["kind"], &up[1]["reply"]["key"]), (&json!("attributes"), &json!(about)));
    let up = heard(1, &general(photo, 0x8801, 3));
    assert_eq!(
        up[0]["reply"],
        json!({"key": photo, "ok": false, "data": {"msg_id": 0x8801, "result": "not_supported"}})
    );
    assert_eq!(heard(0x0107, &body(&attributes)).len(), 1, "nobody has asked");
}

#[test]
fn a_code_counts_without_what_fills_it_up_or_is_missing_behind_it() {
    for (phone, body) in
        [(OLD, &b"1234\0\0\0"[..]), (OLD, b"1234"), (NEW, b"\x041234"), (NEW, b"\x061234\0\0short")]
    {
        let mut codec = (DEF.build)(&Options::default());
        let said = read(&mut *codec, &CX, &frame(0x0102, phone, 1, None, body));
        assert_eq!(ups(&said), [json!({"login": {"device": "13912345678", "token": "1234"}})], "{body:?}");
    }
}

#[test]
fn an_answer_is_not_answered() {
    let (mut codec, cx) = terminal(OLD);
    let said = read(&mut *codec, &cx, &frame(1, OLD, 1, None, &[0, 1, 0x83, 0, 0]));
    assert!(said.answer.is_empty() && said.refusal.is_empty());
}

#[test]
fn parameters_are_read_as_they_are_set() {
    let (mut codec, cx) = terminal(OLD);
    let value = json!({"params": {
        "heartbeat_interval": 60, "apn": "中国移动", "fence_radius": 500, "plate_colour": 2, "0xf000": {"hex": "dead"},
    }});
    let (_, bytes) = down(&mut *codec, "set_params", &value.to_string()).unwrap();
    let told = [&[0, 9][..], &body(&bytes)].concat();
    let up = ups(&read(&mut *codec, &cx, &frame(0x0104, OLD, 1, None, &told)));
    assert_eq!(up[0], json!({"kind": "params", "data": value}));
}

#[test]
fn a_terminal_of_2019_is_told_in_its_own_form() {
    let (mut codec, _) = terminal(NEW);
    let mut told = |kind: &str, value: &str| hex::encode(&body(&down(&mut *codec, kind, value).unwrap().1));
    assert_eq!(told("text", r#"{"text": "你好", "flag": 8, "type": 2}"#), "0802c4e3bac3");
    assert_eq!(told("vehicle", r#"{"lock": false}"#), "0001000101");
    let circle = r#"{"type": 1, "areas": [{"id": 1, "lat": 1, "lon": 2, "radius": 3,
        "start": "2026-01-25T00:00:00",
        "end": "2026-12-31T23:59:59", "max_speed": 60,
        "overspeed_seconds": 10, "night_max_speed": 40, "name": "区"}]}"#;
    assert_eq!(
        told("circles", circle),
        "01 01 00000001 002b 000f4240 001e8480 00000003 260125000000 261231235959 003c 0a 0028 0002 c7f8"
            .replace(' ', "")
    );
    let polygon = r#"{"id": 2, "flag": 0, "points": [[1, 2], [3, 4]]}"#;
    assert_eq!(
        told("polygon", polygon),
        "00000002 0000 0002 000f4240 001e8480 002dc6c0 003d0900 0000".replace(' ', "")
    );
}

#[test]
fn a_command_may_carry_the_id_by_which_its_outcome_is_known() {
    let told = |kind: &str, value: &str| {
        let (mut codec, _) = terminal(OLD);
        body(&down(&mut *codec, kind, value).unwrap().1)
    };
    assert_eq!(told("text", r#"{"text": "a", "id": "x7"}"#), told("text", r#"{"text": "a"}"#));
    assert_eq!(told("attributes", r#"{"id": 7}"#), told("attributes", ""));
    // Where the message has one of its own, it is that.
    let polygon = |id: u8| format!(r#"{{"id": {id}, "points": [[1, 2], [3, 4], [5, 6]]}}"#);
    assert_ne!(told("polygon", &polygon(1)), told("polygon", &polygon(2)));
}

#[test]
fn a_command_that_cannot_be_said_says_why() {
    let (mut codec, _) = terminal(OLD);
    for (kind, value, why) in [
        ("dance", "{}", "no command"),
        ("text", "{}", "missing field `text`"),
        ("text", r#"{"text": "a", "colour": 1}"#, "unknown field `colour`"),
        ("text", r#"{"text": "😀"}"#, "GBK has not"),
        ("query_location", "[1]", "trailing characters"),
        ("set_params", r#"{"params": {"warp": 9}}"#, "no parameter is called"),
        ("set_params", r#"{"params": {"0xf000": 9}}"#, "needs its value as"),
        ("set_params", r#"{"params": {"plate_colour": 256}}"#, "more than 255"),
        ("vehicle", "{}", "needs `lock`"),
        ("control", r#"{"command": "dance"}"#, "one of"),
        ("circles", r#"{"areas": [{"id": 1, "lat": 91, "lon": 0, "radius": 1}]}"#, "no latitude"),
        ("polygon", r#"{"id": 1, "points": [[1, 1], [-1, 1]]}"#, "both sides"),
        ("transparent", r#"{"type": 1, "hex": "00", "text": "a"}"#, "exactly one"),
        ("raw", r#"{"msg_id": 70000}"#, "u16"),
    ] {
        let said = down(&mut *codec, kind, value).unwrap_err();
        assert!(said.contains(why), "{kind} {value}: {said}");
    }
    let long = format!(r#"{{"msg_id": 1, "body_hex": "{}"}}"#, "00".repeat(1 << 20));
    assert_eq!(
        down(&mut *codec, "raw", &long),
        Err("1048576 bytes are more than 1024 sub-packages".to_owned())
    );
    let mut nobody = (DEF.build)(&Options::default());
    assert!(down(&mut *nobody, "query_location", "").unwrap_err().contains("not said anything"));
    let mut into = Vec::new();
    let tell = Down { kind: "link_test", value: b"" };
    for (device, bytes) in [
        ("13912345678", "7e82040000 013912345678 0000 b6 7e"),
        ("8613912345678", "7e82044000 01 00000008613912345678 0001 9e 7e"),
        ("me", ""),
    ] {
        into.clear();
        let _ = nobody.encode(&Context { device: Some(device), ..CX }, &tell, &mut into);
        assert_eq!(hex::encode(&into), bytes.replace(' ', ""), "{device}");
    }
}
