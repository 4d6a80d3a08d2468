//! What a script finds beside ECMAScript. Expected values are Node 20's.

use super::*;

#[test]
fn a_buffer_is_made_of_what_node_makes_it_of() {
    for (expression, expected) in [
        ("Buffer.from(bytes).toString('hex')", r#""00ff41""#),
        ("Buffer.from('00ff41', 'hex')", r#"{"type":"Buffer","data":[0,255,65]}"#),
        ("Buffer.from('0g', 'hex').length", "0"),
        ("Buffer.from('AP9B', 'base64').equals(Buffer.from(bytes))", "true"),
        ("Buffer.from('_-8', 'base64url').toString('hex')", r#""ffef""#),
        ("Buffer.from('h\u{e9}llo').toString('hex')", r#""68c3a96c6c6f""#),
        ("Buffer.from('h\u{e9}', 'latin1').toString('hex')", r#""68e9""#),
        ("Buffer.from('ab', 'utf16le').toString('hex')", r#""61006200""#),
        ("Buffer.from(new Uint8Array([1, 2]).buffer, 1).length", "1"),
        ("Buffer.from(JSON.parse(JSON.stringify(Buffer.from([7]))))[0]", "7"),
        ("Buffer.alloc(3, 1).toString('hex')", r#""010101""#),
        ("Buffer.alloc(5).fill('ab').toString()", r#""ababa""#),
        ("Buffer.concat([Buffer.from([1]), new Uint8Array([2, 3])]).toString('hex')", r#""010203""#),
        ("new Buffer('41', 'hex').toString()", r#""A""#),
        ("Buffer.isBuffer(Buffer.alloc(1)) && !Buffer.isBuffer(new Uint8Array(1))", "true"),
        ("Buffer.byteLength('h\u{e9}')", "3"),
        ("Buffer.compare(Buffer.from([1]), Buffer.from([1, 2]))", "-1"),
    ] {
        assert_eq!(value(expression, &[0, 255, 65]), format!("{{\"data\":{expected}}}"), "{expression}");
    }
}

#[test]
fn a_buffer_reads_and_writes_numbers() {
    let bytes: Vec<u8> = (0x81..0x89).collect();
    for (expression, expected) in [
        ("readUInt8(1)", "130"),
        ("readInt8(0)", "-127"),
        ("readUint16BE()", "33154"),
        ("readUInt16LE(1)", "33666"),
        ("readInt16BE(2)", "-31868"),
        ("readUInt32BE(0)", "2172814212"),
        ("readInt32LE(4)", "-2004384123"),
        ("readUIntBE(1, 3)", "8553348"),
        ("readIntLE(0, 3)", "-8158591"),
        ("readUIntBE(0, 6)", "142397552231814"),
        ("readFloatBE(0)", "-4.794317366894298e-38"),
        ("readDoubleLE(0)", "-1.4249914579614907e-267"),
        ("readBigUInt64BE(0).toString()", "\"9332165983064197000\""),
        ("slice(1, 3).toString('hex')", "\"8283\""),
        ("subarray(-2).toString('base64')", "\"h4g=\""),
        ("swap16().toString('hex', 0, 4)", "\"82818483\""),
        ("indexOf(0x83)", "2"),
        ("indexOf(Buffer.from('8485', 'hex'))", "3"),
        ("includes('zz')", "false"),
    ] {
        let found = value(&format!("Buffer.from(bytes).{expression}"), &bytes);
        assert_eq!(found, format!("{{\"data\":{expected}}}"), "{expression}");
    }
    let written =
        "(b => { let at = b.writeInt16BE(-2); at = b.writeUInt8(7, at); at = b.writeFloatLE(1.5, at);
        at = b.writeIntLE(-3, at, 3); b.write('hi', at); return b.toString('hex') })(Buffer.alloc(12))";
    assert_eq!(value(written, &[]), "{\"data\":\"fffe070000c03ffdffff6869\"}");
    let outside = "function Decoder(bytes) { return Buffer.from(bytes).readUInt16LE(1) }";
    assert!(uplink(outside, &[1, 2]).is_err());
}

#[test]
fn text_is_coded_as_the_encoding_standard_says() {
    for (expression, expected) in [
        ("atob('aGk=') + btoa('hi')", r#""hiaGk=""#),
        ("Array.from(new TextEncoder().encode('\u{20ac}\u{1f600}'))", "[226,130,172,240,159,152,128]"),
        ("new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 0x41]))", r#""A""#),
        ("new TextDecoder('latin1').decode(new Uint8Array([0xe9]))", "\"\u{e9}\""),
        // One replacement for each maximal part of a character.
        (
            "Buffer.from([0x41, 0xc0, 0x80, 0xe2, 0x82, 0x41, 0xf0]).toString()",
            "\"A\u{fffd}\u{fffd}\u{fffd}A\u{fffd}\"",
        ),
        ("Buffer.from([0xed, 0xa0, 0x80]).toString()", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        ("Buffer.from('\\ud800').toString('hex')", r#""efbfbd""#),
    ] {
        assert_eq!(value(expression, &[]), format!("{{\"data\":{expected}}}"), "{expression}");
    }
    let fatal = "function Decoder(bytes) { return new TextDecoder('utf-8', {fatal: true}).decode(new Uint8Array(bytes)) }";
    assert!(uplink(fatal, &[0xff]).is_err());
}

#[test]
fn nothing_reaches_outside() {
    let names =
        ["require", "process", "fetch", "XMLHttpRequest", "setTimeout", "setInterval", "std", "os", "Worker"];
    for name in names {
        assert_eq!(value(&format!("typeof {name}"), &[]), r#"{"data":"undefined"}"#, "{name}");
    }
    assert_eq!(value("typeof Date.now() + typeof Math.random()", &[]), r#"{"data":"numbernumber"}"#);
}
