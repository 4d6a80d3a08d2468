//! Frames of the vendor's pages, and what the pages say of them; and frames of devices in the field, from the tests of an
//! open tracking server.

use crate::{DownSample, Sample};

pub(super) const UP: &[Sample] = &[
    Sample {
        about: "the IMEI that opens a connection (the vendor's pages)",
        hex: "000F 333536333037303432343431303133",
        up: &[r#"{"login":{"device":"356307042441013"}}"#],
        answer: "01",
    },
    Sample {
        about: "Codec 8, one record (the vendor's pages)",
        hex: "00000000 00000036 08 01 0000016B40D8EA30 01 00000000 00000000 0000 0000 00 0000 01 05 02 1503 0101 \
              01 425E0F 01 F10000601A 01 4E0000000000000000 01 0000C7CF",
        up: &[r#"{"kind":"location","data":{"timestamp":"2019-06-10T10:04:46.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":1,"21":3,"66":24079,"78":0,"241":24602}}}"#],
        answer: "00000001",
    },
    Sample {
        about: "Codec 8, two records (the vendor's pages)",
        hex: "00000000 00000043 08 02 0000016B40D57B48 01 00000000 00000000 0000 0000 00 0000 01 01 01 0100 00 00 00 \
              0000016B40D5C198 01 00000000 00000000 0000 0000 00 0000 01 01 01 0101 00 00 00 02 0000252C",
        up: &[
            r#"{"kind":"location","data":{"timestamp":"2019-06-10T10:01:01.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":0}}}"#,
            r#"{"kind":"location","data":{"timestamp":"2019-06-10T10:01:19.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":1}}}"#,
        ],
        answer: "00000002",
    },
    Sample {
        about: "Codec 8 of a device that drives; its eight-byte numbers are text beyond 2^53 (a captured frame)",
        hex: "00000000000000A708010000016269E7D9A8000A5A0F0A1CBF8F3300880046120000001C0801014F005100550F7400730078017901\
              03430000440000426F980B540000000056000045275700000047580000022659000000005D0000000068000003D071000073558700\
              00000288000000008A000045270669584C5241534834336A30304731363538326B3600FFFFFF000000815541205541443030823030\
              3039383236368330303000000000000100008396",
        up: &[r#"{"kind":"location","data":{"timestamp":"2018-03-28T00:00:25.000Z","priority":0,
            "gps":{"lat":48.2316083,"lon":17.367425,"altitude":136,"angle":70,"satellites":18,"speed":0,"valid":true},
            "event":0,"io":{"1":1,"66":28568,"67":0,"68":0,"79":0,"81":0,"84":0,"85":15,"86":17703,"87":71,"88":550,
            "89":0,"93":0,"104":976,"105":"6362550814091260979","106":"3472353589391079474",
            "107":"3891391553008041984","113":29525,"115":0,"116":0,"120":1,"121":1,"129":"6143226917249364016",
            "130":"3472328335016736310","131":"3472328089260785664","135":2,"136":0,"138":17703}}}"#],
        answer: "00000001",
    },
    Sample {
        about: "Codec 8 of a device with an element of sixteen bytes (one record of a captured frame)",
        hex: "000000000000005908010000015AB5642A8800D5DB1769EC01D70A020A00E3040004000E0501010200030004006000060900 \
              100A00010B0000130000422F1318000302C700000000F7000000000001CB00000000000000000000000000000000010000A8 \
              C2",
        up: &[r#"{"kind":"location","data":{"timestamp":"2017-03-09T23:25:25.000Z","priority":0,
            "gps":{"lat":-33.5423734,"lon":-70.7061911,"altitude":522,"angle":227,"satellites":4,"speed":4,"valid":true},
            "event":0,"io":{"1":1,"2":0,"3":0,"4":0,"9":16,"10":1,"11":0,"19":0,"24":3,"66":12051,"96":0,"199":0,
            "203":{"hex":"00000000000000000000000000000000"},"247":0}}}"#],
        answer: "00000001",
    },
    Sample {
        about: "Codec 7: where a GH was, and of another record elements alone (a captured frame)",
        hex: "00000000 00000055 07 04 50AA1432 02 01 F001 50AA17F3 03 1F 42332A4C 4193D68C 008D 00 02 09 01 F001 \
              50AA1B6A 03 1F 423383F5 4193624F 009D 00 00 0A 01 F001 50AA1C23 0F C0 1A 0000552B 04 0164 F400 DD00 F001 \
              01 43100C 01 0500000005 04 00006846",
        up: &[
            r#"{"kind":"location","data":{"timestamp":"2015-11-10T21:35:46.000Z","priority":1,"io":{"240":1}}}"#,
            r#"{"kind":"location","data":{"timestamp":"2015-11-10T21:51:47.000Z","priority":1,
            "gps":{"lat":44.7913055,"lon":18.4797592,"altitude":141,"angle":0.0,"satellites":9,"speed":2,"valid":true},
            "io":{"240":1}}}"#,
            r#"{"kind":"location","data":{"timestamp":"2015-11-10T22:06:34.000Z","priority":1,
            "gps":{"lat":44.8788643,"lon":18.4230022,"altitude":157,"angle":0.0,"satellites":10,"speed":0,"valid":true},
            "io":{"240":1}}}"#,
            r#"{"kind":"location","data":{"timestamp":"2015-11-10T22:09:39.000Z","priority":1,"signal":26,"operator":21803,
            "io":{"1":100,"5":5,"67":4108,"221":0,"240":1,"244":0}}}"#,
        ],
        answer: "00000004",
    },
    Sample {
        about: "Codec 8 Extended (the vendor's pages)",
        hex: "00000000 0000004A 8E 01 0000016B412CEE00 01 00000000 00000000 0000 0000 00 0000 0001 0005 0001 000101 \
              0001 0011001D 0001 0010015E2C88 0002 000B000000003544C87A 000E000000001DD7E06A 0000 01 00002994",
        up: &[r#"{"kind":"location","data":{"timestamp":"2019-06-10T11:36:32.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":1,"11":893700218,"14":500686954,"16":22949000,"17":29}}}"#],
        answer: "00000001",
    },
    Sample {
        about: "Codec 8 Extended with elements of any length: the VIN and fault codes (a captured frame)",
        hex: "00000000000000a38e0100000178b11c9e1000040bbbc91f03190c002100e113001300000010000600ef0100f00100150300c80000\
              4501001e070005004237e00018000a00ce166200430f970024059f000300f10000665900c70000001e00100000a1b5000000020100\
              00115756315a5a5a32455a38363031353338380119002950303239392c50303637352c50303637342c50303637322c50303637312c\
              50303437312c50324241430100001ad8",
        up: &[r#"{"kind":"location","data":{"timestamp":"2021-04-08T10:52:26.000Z","priority":0,
            "gps":{"lat":52.0296716,"lon":6.7877833,"altitude":33,"angle":225,"satellites":19,"speed":19,"valid":true},
            "event":0,"io":{"16":41397,"21":3,"24":10,"30":7,"36":1439,"66":14304,"67":3991,"69":1,"199":30,"200":0,
            "206":5730,"239":1,"240":1,"241":26201,"256":{"hex":"5756315a5a5a32455a3836303135333838"},
            "281":{"hex":"50303239392c50303637352c50303637342c50303637322c50303637312c50303437312c5032424143"}}}}"#],
        answer: "00000001",
    },
    Sample {
        about: "Codec 16, two records (the vendor's pages)",
        hex: "00000000 0000005F 10 02 0000016BDBC78330 00 00000000 00000000 0000 0000 00 0000 000B 05 04 02 000100 \
              000300 02 000B0027 0042563A 00 00 0000016BDBC78718 00 00000000 00000000 0000 0000 00 0000 000B 05 04 02 \
              000100 000300 02 000B0026 0042563A 00 00 02 00005FB3",
        up: &[
            r#"{"kind":"location","data":{"timestamp":"2019-07-10T12:06:54.000Z","priority":0,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":11,"generation":5,"io":{"1":0,"3":0,"11":39,"66":22074}}}"#,
            r#"{"kind":"location","data":{"timestamp":"2019-07-10T12:06:55.000Z","priority":0,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":11,"generation":5,"io":{"1":0,"3":0,"11":38,"66":22074}}}"#,
        ],
        answer: "00000002",
    },
    Sample {
        about: "Codec 8 over UDP (the vendor's pages)",
        hex: "003D CAFE 01 05 000F 333532303933303836343033363535 08 01 0000016B4F815B30 01 00000000 00000000 0000 0000 \
              00 0000 01 03 02 1503 0101 01 425DBC 00 00 01",
        up: &[
            r#"{"login":{"device":"352093086403655"}}"#,
            r#"{"kind":"location","data":{"timestamp":"2019-06-13T06:23:26.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":1,"21":3,"66":23996}}}"#,
        ],
        answer: "0005 CAFE 01 05 01",
    },
    Sample {
        about: "Codec 8 Extended over UDP (the vendor's pages)",
        hex: "005F CAFE 01 07 000F 333532303933303836343033363535 8E 01 0000016B4F831C68 01 00000000 00000000 0000 0000 \
              00 0000 0001 0005 0001 000101 0001 0011009D 0001 0010015E2C88 0002 000B000000003544C87A \
              000E000000001DD7E06A 0000 01",
        up: &[
            r#"{"login":{"device":"352093086403655"}}"#,
            r#"{"kind":"location","data":{"timestamp":"2019-06-13T06:25:21.000Z","priority":1,
            "gps":{"lat":0.0,"lon":0.0,"altitude":0,"angle":0,"satellites":0,"speed":0,"valid":false},
            "event":1,"io":{"1":1,"11":893700218,"14":500686954,"16":22949000,"17":157}}}"#,
        ],
        answer: "0005 CAFE 01 07 01",
    },
    Sample {
        about: "Codec 12 when nothing was asked: a reader of axle loads that is wired to the device (a captured frame)",
        hex: "000000000000004f0c01060000004755555555777730362e343b30342e323b30302e303b30302e303b30302e303b30302e303b3030\
              2e303b30302e303b30312e333b30302e303b31302e373b30302e303b5353530d0a010000e371",
        up: &[r#"{"kind":"message","data":{"codec":12,"type":6,
            "text":"UUUUww06.4;04.2;00.0;00.0;00.0;00.0;00.0;00.0;01.3;00.0;10.7;00.0;SSS\r\n"}}"#],
        answer: "",
    },
    Sample {
        about: "Codec 12 when nothing was asked: Modbus that is wired to the device (a captured frame)",
        hex: "00000000 00000010 0C 01 06 00000008 010300010015D5C5 01 0000D988",
        up: &[r#"{"kind":"message","data":{"codec":12,"type":6,"hex":"010300010015d5c5"}}"#],
        answer: "",
    },
    Sample {
        about: "Codec 13, the time in seconds (the vendor's pages)",
        hex: "00000000 0000001D 0D 01 06 00000015 64E83281 68656C6C6F206C65747320746573740D0A 01 00003548",
        up: &[r#"{"kind":"message","data":{"codec":13,"type":6,"timestamp":"2023-08-25T04:48:01Z",
            "text":"hello lets test\r\n"}}"#],
        answer: "",
    },
    Sample {
        about: "Codec 13, the time in milliseconds (a captured frame)",
        hex: "00000000 00000017 0D 01 05 0000000F 0000016C0A81C320 676574696E666F 01 00006855",
        up: &[r#"{"kind":"message","data":{"codec":13,"type":5,"timestamp":"2019-07-19T13:52:52.000Z",
            "text":"getinfo"}}"#],
        answer: "",
    },
    Sample {
        about: "a byte that keeps the connection open",
        hex: "FF",
        up: &[r#"{"heartbeat":{}}"#],
        answer: "",
    },
];

pub(super) const DOWN: &[DownSample] = &[
    // The vendor's pages.
    DownSample {
        kind: "command",
        value: "getinfo",
        hex: "00000000 0000000F 0C 01 05 00000007 676574696E666F 01 00004312",
    },
    // An open tracking server's tests.
    DownSample {
        kind: "command",
        value: r#"{"command":"setdigout 11\r\n"}"#,
        hex: "00000000 00000016 0C 01 05 0000000E 7365746469676F75742031310D0A 01 0000E258",
    },
    DownSample {
        kind: "command",
        value: r#"{"hex":"03030000000185E8"}"#,
        hex: "00000000 00000010 0C 01 05 00000008 03030000000185E8 01 0000DA8B",
    },
];
