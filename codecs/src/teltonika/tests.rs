use super::*;

const CX: Context<'_> = Context { wall_ms: 0, device: Some("352093081452251"), token: "" };

fn device() -> Box<dyn Codec> {
    (DEF.build)(&Options::default())
}

fn hex(text: &str) -> Vec<u8> {
    crate::hex::decode(text).unwrap()
}

fn decode(codec: &mut dyn Codec, text: &str) -> Result<Option<Frame>, Fault> {
    codec.decode(&CX, &mut BytesMut::from(&hex(text)[..]))
}

/// What `text` says, in the JSON form.
fn says(codec: &mut dyn Codec, text: &str) -> Vec<String> {
    decode(codec, text).unwrap().unwrap().up.iter().map(Up::to_json).collect()
}

fn command(codec: &mut dyn Codec, value: &str) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    let down = Down { kind: "command", value: value.as_bytes() };
    let expect = codec.encode(&CX, &down, &mut bytes)?;
    assert_eq!(expect, Expect::Reply(KEY));
    Ok(crate::hex::encode(&bytes))
}

/// Codec 8 with one record of nothing, and this CRC.
fn packet(crc: &str) -> String {
    format!("00000000 00000021 08 01 {} 01 {crc}", "00".repeat(30))
}

// The vendor's pages.
const GETINFO_ANSWER: &str = "00000000000000900C010600000088494E493A323031392F372F323220373A3232205254433A323031392F372F32\
    3220373A3533205253543A32204552523A312053523A302042523A302043463A302046473A3020464C3A302054553A302F302055543A3020534D53\
    3A30204E4F4750533A303A3330204750533A31205341543A302052533A332052463A36352053463A31204D443A30010000C78F";
const GETVER_ANSWER: &str = "00000000000000AB0E0106000000A303520930814522515665723A30332E31382E31345F3034204750533A41584E5F\
    352E31305F333333332048773A464D42313230204D6F643A313520494D45493A33353230393330383134353232353120496E69743A323031382D31\
    312D323220373A313320557074696D653A3137323334204D41433A363042444430303136323631205350433A312830292041584C3A30204F42443A\
    3020424C3A312E362042543A340100007AAE";
// The page's own CRC, 32AC, is not that of these bytes.
const NACK: &str = "00000000 00000010 0E 01 11 00000008 0352093081452468 01 0000635E";

#[test]
fn what_comes_after_a_command_is_its_answer_and_what_comes_later_is_not() {
    let mut codec = device();
    command(&mut *codec, "getinfo").unwrap();
    let text = "INI:2019/7/22 7:22 RTC:2019/7/22 7:53 RST:2 ERR:1 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 UT:0 SMS:0 \
                NOGPS:0:30 GPS:1 SAT:0 RS:3 RF:65 SF:1 MD:0";
    let reply = format!(r#"{{"reply":{{"key":0,"ok":true,"data":{{"text":"{text}"}}}}}}"#);
    assert_eq!(says(&mut *codec, GETINFO_ANSWER), [reply]);
    let message = format!(r#"{{"kind":"message","data":{{"codec":12,"type":6,"text":"{text}"}}}}"#);
    assert_eq!(says(&mut *codec, GETINFO_ANSWER), [message]);
}

#[test]
fn two_commands_have_two_answers_though_the_second_waits() {
    let mut codec = device();
    command(&mut *codec, "getinfo").unwrap();
    command(&mut *codec, "getver").unwrap();
    for _ in 0..2 {
        assert!(says(&mut *codec, GETINFO_ANSWER)[0].starts_with(r#"{"reply":"#));
    }
    assert!(says(&mut *codec, GETINFO_ANSWER)[0].starts_with(r#"{"kind":"message","#));
}

#[test]
fn records_between_a_command_and_its_answer_are_no_answer() {
    let mut codec = device();
    command(&mut *codec, "getinfo").unwrap();
    let sample = &DEF.samples[2];
    assert_eq!(says(&mut *codec, sample.hex).len(), 2);
    assert!(says(&mut *codec, GETINFO_ANSWER)[0].starts_with(r#"{"reply":{"key":0,"ok":true"#));
}

#[test]
fn codec_14_carries_the_imei_and_another_devices_command_is_refused() {
    let mut codec = device();
    let getver = "00000000000000160e01050000000e0352093081452251676574766572010000d2c1";
    assert_eq!(command(&mut *codec, r#"{"command":"getver","codec":14}"#).as_deref(), Ok(getver));
    let text = "Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:352093081452251 Init:2018-11-22 7:13 \
                Uptime:17234 MAC:60BDD0016261 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4";
    let reply = format!(r#"{{"reply":{{"key":0,"ok":true,"data":{{"text":"{text}"}}}}}}"#);
    assert_eq!(says(&mut *codec, GETVER_ANSWER), [reply]);
    command(&mut *codec, r#"{"command":"getver","codec":14}"#).unwrap();
    let nack = r#"{"reply":{"key":0,"ok":false,"data":{"imei":"352093081452468","text":""}}}"#;
    assert_eq!(says(&mut *codec, NACK), [nack]);
}

#[test]
fn a_command_that_cannot_be_sent_says_why_and_appends_nothing() {
    let mut codec = device();
    for (value, why) in [
        ("", "empty"),
        ("{", "EOF"),
        (r#"{"command":"a","hex":"00"}"#, "either"),
        (r#"{"codec":14}"#, "either"),
        (r#"{"command":"a","codec":13}"#, "12 or 14"),
        (r#"{"hex":"0"}"#, "hexadecimal"),
    ] {
        let fault = command(&mut *codec, value).unwrap_err();
        assert!(fault.why.contains(why), "{value}: {}", fault.why);
    }
    let mut bytes = Vec::new();
    let cx = Context { device: Some("tractor"), ..CX };
    let down = Down { kind: "command", value: br#"{"command":"a","codec":14}"# };
    assert!(codec.encode(&cx, &down, &mut bytes).unwrap_err().why.contains("IMEI"));
    assert!(codec.encode(&CX, &Down { kind: "interval", value: b"9" }, &mut bytes).is_err());
    assert!(bytes.is_empty());
}

#[test]
fn who_uses_udp_logs_in_once_and_has_no_commands() {
    let udp = DEF.samples.iter().find(|s| s.answer == "0005 CAFE 01 05 01").unwrap().hex;
    let mut codec = device();
    let frame = decode(&mut *codec, udp).unwrap().unwrap();
    assert_eq!((frame.up.len(), &frame.refusal[..]), (2, &[][..]));
    let cx = Context { device: Some("352093086403655"), ..CX };
    let frame = codec.decode(&cx, &mut BytesMut::from(&hex(udp)[..])).unwrap().unwrap();
    assert_eq!(frame.up.len(), 1);
    assert!(command(&mut *codec, "getinfo").unwrap_err().why.contains("UDP"));
}

#[test]
fn who_is_not_let_in_is_told_zero_and_records_that_are_refused_are_not_answered() {
    let refusal = |text| decode(&mut *device(), text).unwrap().unwrap().refusal;
    assert_eq!(refusal(DEF.samples[0].hex), &[0][..]);
    assert!(refusal(DEF.samples[1].hex).is_empty());
}

#[test]
fn a_wrong_crc_costs_the_packet_and_no_more() {
    let mut codec = device();
    let mut buf = BytesMut::from(&hex(&packet("00001234"))[..]);
    buf.extend_from_slice(&hex(DEF.samples[1].hex));
    let fault = codec.decode(&CX, &mut buf).unwrap_err();
    assert_eq!((fault.costs, fault.at), (crate::Costs::Frame, 8 + 0x21));
    assert_eq!(codec.decode(&CX, &mut buf).unwrap().unwrap().up.len(), 1);
    assert!(buf.is_empty());
}

#[test]
fn what_can_be_no_packet_ends_the_stream_at_once() {
    for (bytes, at) in [
        (&b"\0\0\0\x01"[..], 3),
        (b"\0\0\0\0\0\x01\0\0", 4),
        (b"\0\0\0\0\0\0\0\x02", 4),
        (b"\0\0\0\0\xff\xff\xff\xff", 4),
        (b"\0\x0f35x", 4),
        (b"\0\x03", 0),
        (b"GET /", 4),
    ] {
        let fault = device().decode(&CX, &mut BytesMut::from(bytes)).unwrap_err();
        assert_eq!((fault.costs, fault.at), (crate::Costs::Stream, at), "{bytes:?}");
    }
}

#[test]
fn a_packet_whose_counts_do_not_fit_is_not_counted() {
    // Codec 8 with the CRC of what is there: elements announced, but none there; two counts that differ; an unknown codec.
    let record = |all: &str| format!("{}00 {all} 00000000", "00".repeat(24));
    for (data, why) in [
        (format!("08 01 {} 01", record("01")), "announced"),
        (format!("08 01 {} 02", record("00")), "comes their number"),
        (format!("08 01 {} 01 00", record("00")), "comes their number"),
        (format!("08 02 {} 02", record("00")), "ends before"),
        (format!("09 01 {} 01", record("00")), "no codec 0x09"),
    ] {
        let mut bytes = Vec::new();
        wrap(&hex(&data), &mut bytes);
        let fault = device().decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap_err();
        assert!(fault.costs == crate::Costs::Frame && fault.why.contains(why), "{data}: {}", fault.why);
    }
}

#[test]
fn no_records_are_answered_with_none() {
    let mut bytes = Vec::new();
    wrap(&[8, 0, 0], &mut bytes);
    let frame = device().decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap().unwrap();
    assert_eq!((&frame.up[..], &frame.answer[..]), (&[Up::Heartbeat][..], &[0, 0, 0, 0][..]));
}

#[test]
fn a_gh_says_where_its_cell_is_and_nothing_that_is_not_on_earth() {
    // Two of the same, with altitude, angle, speed, satellites and cell (an open tracking server's tests).
    let said = says(
        &mut *device(),
        "00000000 00000031 07 02 4C61410B 01 3F 4231C2C1 41D0BEB9 003D 00 00 05 0064 83FF \
         4C6140EB 01 3F 4231C2C1 41D0BEB9 003D 00 00 05 0064 83FF 02 000041DF",
    );
    assert_eq!(
        said[0],
        r#"{"kind":"location","data":{"timestamp":"2013-07-31T22:30:35.000Z","priority":1,"gps":{"lat":44.4401894,"lon":26.0931263,"altitude":61,"angle":0.0,"satellites":5,"speed":0,"valid":true},"cell":{"lac":100,"cell_id":33791},"io":{}}}"#
    );
    let mut data = hex("07 01 4C61410B 01 01 7FC00000 41D0BEB9 01");
    let mut bytes = Vec::new();
    wrap(&data, &mut bytes);
    let fault = device().decode(&CX, &mut BytesMut::from(&bytes[..])).unwrap_err();
    assert_eq!((fault.costs, fault.at), (crate::Costs::Frame, HEAD + 8));
    // An angle is a part of 256.
    data.truncate(7);
    data.extend([4, 64, 1]);
    bytes.clear();
    wrap(&data, &mut bytes);
    assert!(says(&mut *device(), &crate::hex::encode(&bytes))[0].contains(r#""angle":90.0"#));
}
