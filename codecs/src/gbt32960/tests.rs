use bytes::BytesMut;
use serde_json::{Value, json};

use super::*;
use crate::Costs;

const CX: Context<'static> = Context { wall_ms: 1_700_000_000_000, device: None, token: "token" };
const VIN: &str = "1G1BL52P7TR115520";
/// The head of what [`VIN`] has to do with, from the VIN on, and the time in packets of these tests.
const TIME: [u8; 6] = [25, 11, 21, 15, 40, 0];

fn packet(text: Text, vin: &str, command: u8, answer: u8, unit: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::seal(text, vin.as_bytes().try_into().unwrap(), command, answer, unit, &mut bytes).unwrap();
    bytes
}

fn read(codec: &mut dyn Codec, bytes: &[u8]) -> Frame {
    let mut buf = BytesMut::from(bytes);
    let frame = codec.decode(&Context { device: Some(VIN), ..CX }, &mut buf).unwrap().unwrap();
    assert!(buf.is_empty(), "all of it is read");
    frame
}

fn ups(frame: &Frame) -> Vec<Value> {
    frame.up.iter().map(|up| serde_json::from_str(&up.to_json()).unwrap()).collect()
}

/// A vehicle that has logged in.
fn vehicle(text: Text) -> Box<dyn Codec> {
    let mut codec = (DEF.build)(&Options::default());
    let login = read(&mut *codec, &packet(text, VIN, 1, COMMAND, &login_unit(text)));
    assert_eq!(ups(&login)[0], json!({"login": {"device": VIN}}));
    codec
}

fn login_unit(text: Text) -> Vec<u8> {
    let tail: &[u8] = if text == Text::Of2016 { &[0, 0] } else { &[0] };
    [&TIME[..], &[0, 1], b"89860000000000000001", tail].concat()
}

fn down(codec: &mut dyn Codec, kind: &str, value: &str) -> Result<(Expect, Vec<u8>), String> {
    let mut into = Vec::new();
    let cx = Context { device: Some(VIN), ..CX };
    let expect = codec.encode(&cx, &Down { kind, value: value.as_bytes() }, &mut into);
    expect.map(|expect| (expect, into)).map_err(|fault| fault.why.into_owned())
}

#[test]
fn an_answer_is_the_head_with_another_flag_and_the_time() {
    for (text, flag) in [(Text::Of2016, ERROR), (Text::Of2025, NO_VIN)] {
        let mut codec = (DEF.build)(&Options::default());
        let login = read(&mut *codec, &packet(text, VIN, 1, COMMAND, &login_unit(text)));
        assert_eq!(login.answer, packet(text, VIN, 1, SUCCESS, &TIME));
        assert_eq!(login.refusal, packet(text, VIN, 1, flag, &TIME));
        let told = read(&mut *codec, &packet(text, VIN, 2, COMMAND, &TIME));
        assert_eq!(
            (told.answer, told.refusal),
            (packet(text, VIN, 2, SUCCESS, &TIME).into(), packet(text, VIN, 2, ERROR, &TIME).into(),)
        );
    }
}

#[test]
fn a_vehicle_says_its_vin_once_and_no_other_speaks_for_it() {
    let mut codec = vehicle(Text::Of2016);
    let told = packet(Text::Of2016, VIN, 3, COMMAND, &TIME);
    assert_eq!(
        ups(&read(&mut *codec, &told)),
        [json!({"kind": "reissue", "data": {"time": "2025-11-21T15:40:00+08:00"}})]
    );
    let other = packet(Text::Of2016, "LSJE36096MS140495", 2, COMMAND, &TIME);
    let fault = codec.decode(&CX, &mut BytesMut::from(&other[..])).unwrap_err();
    assert_eq!(fault.why, "LSJE36096MS140495 speaks on the connection of 1G1BL52P7TR115520");
    assert_eq!((fault.costs, fault.at), (Costs::Frame, 4));
}

#[test]
fn a_platform_speaks_for_its_vehicles() {
    let platform = "PLATFORM000000001";
    let mut codec = (DEF.build)(&Options::default());
    let unit =
        [&TIME[..], &[0, 1], b"user\0\0\0\0\0\0\0\0", b"secret\0\0\0\0\0\0\0\0\0\0\0\0\0\0", &[1]].concat();
    let login = read(&mut *codec, &packet(Text::Of2016, platform, 5, COMMAND, &unit));
    let meant = json!({"login": {"device": platform, "username": "user", "password": "secret"}});
    assert_eq!(ups(&login), [meant]);
    let vehicle = read(&mut *codec, &packet(Text::Of2016, VIN, 1, COMMAND, &login_unit(Text::Of2016)));
    assert_eq!(ups(&vehicle)[0]["kind"], "1G1BL52P7TR115520/login");
    assert_eq!(vehicle.up.len(), 1, "it is the platform that is logged in");
    let told = ups(&read(&mut *codec, &packet(Text::Of2016, VIN, 2, COMMAND, &TIME)));
    assert_eq!(told[0]["kind"], "1G1BL52P7TR115520/realtime");
    let left =
        ups(&read(&mut *codec, &packet(Text::Of2016, VIN, 4, COMMAND, &[&TIME[..], &[0, 1]].concat())));
    assert_eq!(left.len(), 1, "a vehicle's logout is not the platform's");
    let (_, bytes) = down(&mut *codec, "1G1BL52P7TR115520/control", r#"{"command": "reset"}"#).unwrap();
    assert_eq!(&bytes[4..21], VIN.as_bytes());
    assert!(down(&mut *codec, "me/control", r#"{"command": 1}"#).unwrap_err().contains("no VIN"));
    let over =
        ups(&read(&mut *codec, &packet(Text::Of2016, platform, 6, COMMAND, &[&TIME[..], &[0, 1]].concat())));
    assert_eq!(over.last(), Some(&json!({"logout": {}})));
}

#[test]
fn what_came_of_a_command_is_its_outcome() {
    let mut codec = vehicle(Text::Of2016);
    let query =
        down(&mut *codec, "query", r#"{"id": 7, "params": ["firmware", "public_platform"]}"#).unwrap();
    assert_eq!((query.0, &query.1[30..34]), (Expect::Reply(0x80), &[3, 8, 13, 14][..]));
    let unit = [&TIME[..], &[3, 8], b"1.0.0", &[13, 4, 14], b"a.cn"].concat();
    let said = read(&mut *codec, &packet(Text::Of2016, VIN, 0x80, SUCCESS, &unit));
    let data = json!({"answer": 1, "time": "2025-11-21T15:40:00+08:00",
        "params": {"firmware": "1.0.0", "public_platform": "a.cn"}});
    assert_eq!(ups(&said), [json!({"reply": {"key": 0x80, "ok": true, "data": data}})]);
    assert!(said.answer.is_empty(), "an answer is not answered");
    let said = read(&mut *codec, &packet(Text::Of2016, VIN, 0x82, ERROR, &TIME));
    assert_eq!(ups(&said), [json!({"reply": {"key": 0x82, "ok": false, "data": {"answer": 2}}})]);
}

#[test]
fn parameters_that_nobody_knows_are_given_as_they_came() {
    let mut codec = vehicle(Text::Of2025);
    let unit = [&TIME[..], &[3, 2, 10, 0x77, 1, 2]].concat();
    let said = ups(&read(&mut *codec, &packet(Text::Of2025, VIN, 0x80, SUCCESS, &unit)));
    assert_eq!(said[0]["reply"]["data"]["params"], json!({"report_interval": 10, "rest": "770102"}));
}

#[test]
fn numbers_that_say_that_there_is_none_are_null() {
    let mut codec = vehicle(Text::Of2016);
    // A vehicle of which nothing is known, and a block that the standard keeps for later.
    let unit = [&TIME[..], &[1], &[0xff; 3], &[0xff; 14], &[0, 0xff, 0xff], &[0x0a, 1, 2]].concat();
    let data = &ups(&read(&mut *codec, &packet(Text::Of2016, VIN, 2, COMMAND, &unit)))[0]["data"];
    for name in [
        "state",
        "charging",
        "mode",
        "speed",
        "mileage_km",
        "voltage",
        "current",
        "soc",
        "dc_dc",
        "accelerator",
    ] {
        assert_eq!(data["vehicle"][name], Value::Null, "{name}");
    }
    assert_eq!(data["rest"], json!({"id": 10, "hex": "0102"}));
    let unit = [&[25, 13, 1, 0, 0, 0][..], &[5, 0b110], &22_500_000u32.to_be_bytes(), &[0xff; 4]].concat();
    let data = &ups(&read(&mut *codec, &packet(Text::Of2016, VIN, 2, COMMAND, &unit)))[0]["data"];
    let position = json!({"is_valid": true, "lat": null, "lon": -22.5});
    assert_eq!(data, &json!({"time": null, "position": position}));
}

#[test]
fn a_block_that_ends_early_is_a_fault_at_its_end() {
    let mut codec = vehicle(Text::Of2016);
    for block in [
        &[1, 1][..],
        &[2, 1, 1],
        &[8, 1, 1, 0, 0, 0, 0, 0, 9, 0, 1, 200, 1],
        &[9, 1, 1, 0xff, 0],
        &[0x80, 0, 9, 1],
    ] {
        let bytes = packet(Text::Of2016, VIN, 2, COMMAND, &[&TIME[..], block].concat());
        let fault = codec.decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap_err();
        assert_eq!((fault.costs, fault.at), (Costs::Frame, bytes.len() - 1), "{block:?}");
    }
}

#[test]
fn a_start_that_is_none_costs_no_more_than_itself() {
    let good = packet(Text::Of2016, VIN, 7, COMMAND, &[]);
    let mut spoilt = good.clone();
    spoilt[22] = 1;
    let mut codec = vehicle(Text::Of2016);
    for garbage in [&b"##"[..], b"#", b"$$##", &spoilt, &[0xff; 9]] {
        // A length that was spoilt is noticed once as many bytes have come.
        let mut buf = BytesMut::from(&[garbage, &good.repeat(12)].concat()[..]);
        let mut heard = 0;
        while !buf.is_empty() {
            match codec.decode(&CX, &mut buf) {
                Ok(Some(frame)) => heard += frame.up.iter().filter(|up| **up == Up::Heartbeat).count(),
                Ok(None) => break,
                Err(fault) => assert_eq!(fault.costs, Costs::Frame),
            }
        }
        assert_eq!((heard, buf.len()), (12, 0), "{garbage:02x?}");
    }
}

#[test]
fn the_time_is_told_and_an_activation_is_decided_on_by_others() {
    let mut codec = vehicle(Text::Of2025);
    let time = read(&mut *codec, &packet(Text::Of2025, VIN, 8, COMMAND, &[]));
    assert_eq!(time.answer, packet(Text::Of2025, VIN, 8, SUCCESS, &[23, 11, 15, 6, 13, 20]));
    let unit = [&TIME[..], &[7; 16], &[0, 1, 9], VIN.as_bytes(), &[1, 0, 1, 2, 0, 1, 3]].concat();
    let asked = read(&mut *codec, &packet(Text::Of2025, VIN, 9, COMMAND, &unit));
    let data = json!({"time": "2025-11-21T15:40:00+08:00", "chip": "07".repeat(16), "public_key": "09", "vin": VIN,
        "signature": {"type": 1, "r": "02", "s": "03"}});
    assert_eq!((ups(&asked), asked.answer.len()), (vec![json!({"kind": "activation", "data": data})], 0));
    let unit = [&[2, 0, 2, 8, 9], &TIME[..], &TIME].concat();
    let key = ups(&read(&mut *codec, &packet(Text::Of2025, VIN, 0x0b, COMMAND, &unit)));
    let time = "2025-11-21T15:40:00+08:00";
    assert_eq!(
        key,
        [json!({"kind": "key", "data": {"type": 2, "key": "0809", "begins": time, "ends": time}})]
    );
}

#[test]
fn a_command_that_cannot_be_said_says_why() {
    let mut codec = vehicle(Text::Of2025);
    for (kind, value, why) in [
        ("dance", "{}", "no command"),
        ("query", "{}", "missing field `params`"),
        ("query", r#"{"params": ["warp"]}"#, "no parameter"),
        ("set", r#"{"params": {"report_interval": 300}}"#, "needs a number"),
        ("set", r#"{"params": {"firmware": "1.0"}}"#, "five characters"),
        ("control", r#"{"command": "dance"}"#, "one of"),
        ("control", r#"{"command": "alarm"}"#, "needs its `level`"),
        ("raw", r#"{"command": 300}"#, "u8"),
    ] {
        let said = down(&mut *codec, kind, value).unwrap_err();
        assert!(said.contains(why), "{kind} {value}: {said}");
    }
    let mut nobody = (DEF.build)(&Options::default());
    let tell = Down { kind: "control", value: br#"{"command": 2}"# };
    assert!(nobody.encode(&CX, &tell, &mut Vec::new()).unwrap_err().why.contains("not said anything"));
}
