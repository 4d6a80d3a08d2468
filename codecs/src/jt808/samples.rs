//! Frames of real terminals, found in the tests of others' software, and what they mean; where the standard's
//! tables were all there is, it says so.

use crate::{DownSample, Sample};

pub(super) const SAMPLES: &[Sample] = &[
    Sample {
        about: "A location, from the README of the JT808 library of SmallChi, with an escape in its serial number",
        hex: "7e02000026123456789012007d02000000010000000200ba7f0e07e4f11c0028003c0000181015101010010400 \
             0000640202007d01137e",
        up: &[
            r#"{"login":{"device":"123456789012"}}"#,
            r#"{"kind":"location","data":{"time":"2018-10-15T10:10:10+08:00","lat":12.222222,
                "lon":132.444444,"altitude":40,"speed":6.0,"heading":0,"positioned":true,"acc":false,
                "load":"empty","alarm":1,"alarms":["sos"],"status":2,"states":[],"mileage_km":10.0,
                "fuel_l":12.5}}"#,
        ],
        answer: "7e800100051234567890120000007d02020000727e",
    },
    Sample {
        about: "A location with items of a terminal of 2017, from EMQX's tests",
        hex: "7e0200003c01887663897200e5000000000004000001317a6706936851000e0000002717101919353801040000 \
             3fb2030200002504000000002a0200002b040000000030011f310100ab7e",
        up: &[
            r#"{"login":{"device":"18876638972"}}"#,
            r#"{"kind":"location","data":{"time":"2017-10-19T19:35:38+08:00","lat":20.019815,
                "lon":110.323793,"altitude":14,"speed":0.0,"heading":39,"positioned":false,"acc":false,
                "load":"empty","alarm":0,"alarms":[],"status":262144,"states":["gps"],
                "mileage_km":1630.6,"recorder_speed":0.0,"signals":[],"io":[],"analog":[0,0],
                "signal":31,"satellites":0}}"#,
        ],
        answer: "7e80010005018876638972000000e5020000047e",
    },
    Sample {
        about: "Register, from Traccar's tests: a plate in GBK",
        hex: "7e0100002d0141305678720024002c012f373031313142534a2d41362d42440000000000000000000000303536 \
             3738373201d4c14238383838386d7e",
        up: &[
            r#"{"login":{"device":"14130567872","issue":true}}"#,
            r#"{"kind":"register","data":{"province":44,"city":303,"manufacturer":"70111",
                "model":"BSJ-A6-BD","terminal_id":"0567872","plate_colour":1,"plate":"粤B88888"}}"#,
        ],
        answer: "7e810000080141305678720000002400746f6b656efa7e",
    },
    Sample {
        about: "Register as in 2011, with a model of 8 bytes and no plate, from Traccar's tests",
        hex: "7e010000190940278494700012000000000000000000000000000000000000094027849470000a7e",
        up: &[
            r#"{"login":{"device":"94027849470","issue":true}}"#,
            r#"{"kind":"register","data":{"province":0,"city":0,"manufacturer":"","model":"",
                "terminal_id":"00094027849470","plate_colour":0,"plate":""}}"#,
        ],
        answer: "7e810000080940278494700000001200746f6b656eee7e",
    },
    Sample {
        about: "Register of 2019, from Traccar's tests",
        hex: "7e0100405c010000086649607758216452180000000000000000000000000000004d4433303000000000000000 \
             000000000000000000000000000000000000383636343936303737353832313634000000000000000000000000 \
             00000004000000000000000000000000000000007a7e",
        up: &[
            r#"{"login":{"device":"866496077582164","issue":true}}"#,
            r#"{"kind":"register","data":{"province":0,"city":0,"manufacturer":"","model":"MD300",
                "terminal_id":"866496077582164","plate_colour":4,"plate":""}}"#,
        ],
        answer: "7e8100400801000008664960775821640000521800746f6b656ed47e",
    },
    Sample {
        about: "Authentication, from Traccar's tests",
        hex: "7e0102000e013511221122000661757468656e7469636174696f6e3f7e",
        up: &[r#"{"login":{"device":"13511221122","token":"authentication"}}"#],
        answer: "7e8001000501351122112200000006010200b57e",
    },
    Sample {
        about: "Authentication of 2019, worked out from its table 14: code, IMEI and version",
        hex: "7e0102402801000000000139123456780001043132333438363735363730343131303037363956312e32000000 \
             00000000000000000000000000117e",
        up: &[
            r#"{"login":{"device":"13912345678","token":"1234"}}"#,
            r#"{"kind":"auth","data":{"imei":"867567041100769","software_version":"V1.2"}}"#,
        ],
        answer: "7e80014005010000000001391234567800000001010200f77e",
    },
    Sample {
        about: "Heartbeat, from Traccar's tests",
        hex: "7e0002000004304832546500b7ca7e",
        up: &[r#"{"login":{"device":"43048325465"}}"#, r#"{"heartbeat":{}}"#],
        answer: "7e80010005043048325465000000b70002004e7e",
    },
    Sample {
        about: "Four kept locations, from Traccar's tests",
        hex: "7e070400f30303000002450064000401003a000000000000000301618ac606c31f200000000000291805142028 \
             47010400000000eb16000c00b28986061708003732585700060089fffffffe003a000000000000000301618ae8 \
             06c31eb800000000009f180514202917010400000000eb16000c00b28986061708003732585700060089ffffff \
             fe003a000000000000000301618ae806c31eb800000000009f180514202947010400000000eb16000c00b28986 \
             061708003732585700060089fffffffe003a000001000000080301618ae806c31eb800000000009f1805142030 \
             06010400000000eb16000c00b28986061708003732585700060089fffffffed77e",
        up: &[
            r#"{"login":{"device":"30300000245"}}"#,
            r#"{"kind":"location","data":{"time":"2018-05-14T20:28:47+08:00","lat":23.169734,
                "lon":113.450784,"altitude":0,"speed":0.0,"heading":41,"positioned":true,"acc":true,
                "load":"empty","alarm":0,"alarms":[],"status":3,"states":[],"batch":"blind",
                "mileage_km":0.0,"items":[{"id":235,
                "hex":"000c00b28986061708003732585700060089fffffffe"}]}}"#,
            r#"{"kind":"location","data":{"time":"2018-05-14T20:29:17+08:00","lat":23.169768,
                "lon":113.45068,"altitude":0,"speed":0.0,"heading":159,"positioned":true,"acc":true,
                "load":"empty","alarm":0,"alarms":[],"status":3,"states":[],"batch":"blind",
                "mileage_km":0.0,"items":[{"id":235,
                "hex":"000c00b28986061708003732585700060089fffffffe"}]}}"#,
            r#"{"kind":"location","data":{"time":"2018-05-14T20:29:47+08:00","lat":23.169768,
                "lon":113.45068,"altitude":0,"speed":0.0,"heading":159,"positioned":true,"acc":true,
                "load":"empty","alarm":0,"alarms":[],"status":3,"states":[],"batch":"blind",
                "mileage_km":0.0,"items":[{"id":235,
                "hex":"000c00b28986061708003732585700060089fffffffe"}]}}"#,
            r#"{"kind":"location","data":{"time":"2018-05-14T20:30:06+08:00","lat":23.169768,
                "lon":113.45068,"altitude":0,"speed":0.0,"heading":159,"positioned":true,"acc":true,
                "load":"empty","alarm":256,"alarms":["power_lost"],"status":2051,"states":["power_cut"],
                "batch":"blind","mileage_km":0.0,"items":[{"id":235,
                "hex":"000c00b28986061708003732585700060089fffffffe"}]}}"#,
        ],
        answer: "7e8001000503030000024500000064070400a47e",
    },
    Sample {
        about: "A kept location of 2019, from Traccar's tests",
        hex: "7e0704402d0100000866496077582164881d0001000028000000000000000701a00192091f2a47001600000002 \
             26050916422701040000258230010031010e507e",
        up: &[
            r#"{"login":{"device":"866496077582164"}}"#,
            r#"{"kind":"location","data":{"time":"2026-05-09T16:42:27+08:00","lat":-27.263378,
                "lon":153.037383,"altitude":22,"speed":0.0,"heading":2,"positioned":true,"acc":true,
                "load":"empty","alarm":0,"alarms":[],"status":7,"states":[],"batch":"normal",
                "mileage_km":960.2,"signal":0,"satellites":14}}"#,
        ],
        answer: "7e8001400501000008664960775821640000881d0704007d027e",
    },
    Sample {
        about: "A location with items that only its maker knows, from Traccar's tests",
        hex: "7e020000220014012499170007000000000000400e012af16f02cbd2ba00000000000015010119425701040000 \
             0077a97e",
        up: &[
            r#"{"login":{"device":"1401249917"}}"#,
            r#"{"kind":"location","data":{"time":"2015-01-01T19:42:57+08:00","lat":-19.591535,
                "lon":-46.912186,"altitude":0,"speed":0.0,"heading":0,"positioned":true,"acc":false,
                "load":"empty","alarm":0,"alarms":[],"status":16398,"states":["door_2"],
                "mileage_km":11.9}}"#,
        ],
        answer: "7e80010005001401249917000000070200003e7e",
    },
    Sample {
        about: "Attributes, from Traccar's tests",
        hex: "7e0107004904546000563500030000584300000043354c00000000000000000000000000000000003938383731 \
             323589883030000131882455001943354c5f56322e3620323032362f30362f30342031353a33310301f47e",
        up: &[
            r#"{"login":{"device":"45460005635"}}"#,
            r#"{"kind":"attributes","data":{"type":0,"manufacturer":"XC","model":"C5L",
                "terminal_id":"9887125","iccid":"89883030000131882455","hardware":"",
                "firmware":"C5L_V2.6 2026/06/04 15:31","gnss":3,"link":1}}"#,
        ],
        answer: "7e8001000504546000563500000003010700d27e",
    },
    Sample {
        about: "A driver's card, from Traccar's tests",
        hex: "7e0702002201827061151401bc0125100915075100003030323962383835000000000000000000000000000000 \
             00002b7e",
        up: &[
            r#"{"login":{"device":"18270611514"}}"#,
            r#"{"kind":"driver","data":{"status":"inserted","time":"2025-10-09T15:07:51+08:00",
                "card":"ok","name":"","certificate":"0029b885","organisation":"","expires":"00000000"}}"#,
        ],
        answer: "7e80010005018270611514000001bc070200af7e",
    },
    Sample {
        about: "What a serial line said, from Traccar's tests",
        hex: "7e0900001b41305888975883194000184754534c7c367c317c307c31303231383039347c317c0d0ab47e",
        up: &[
            r#"{"login":{"device":"413058889758"}}"#,
            r#"{"kind":"transparent","data":{"type":64,"base64":"ABhHVFNMfDZ8MXwwfDEwMjE4MDk0fDF8DQo="}}"#,
        ],
        answer: "7e8001000541305888975800008319090000797e",
    },
    Sample {
        about: "A message of its maker's, from Traccar's tests",
        hex: "7e10070004045460002319090640000000567e",
        up: &[
            r#"{"login":{"device":"45460002319"}}"#,
            r#"{"kind":"raw","data":{"msg_id":4103,"body_hex":"40000000"}}"#,
        ],
        answer: "7e8001000504546000231900000906100700967e",
    },
];

/// By the tables of the standard.
pub(super) const DOWNS: &[DownSample] = &[
    DownSample {
        kind: "text",
        value: r#"{"text": "hello"}"#,
        hex: "7e8300000612345678901200000c68656c6c6f617e",
    },
    DownSample {
        kind: "set_params",
        value: r#"{"params": {"heartbeat_interval": 60, "server": "10.0.0.1", "0xf001": {"hex": "0102"}}}"#,
        hex: "7e8103001e12345678901200000300000001040000003c000000130831302e302e302e310000f001020102d97e",
    },
    DownSample { kind: "query_params", value: "", hex: "7e8104000012345678901200000f7e" },
    DownSample {
        kind: "query_params",
        value: r#"{"params": ["report_interval", "0x0055"]}"#,
        hex: "7e8106000912345678901200000200000029000000557a7e",
    },
    DownSample { kind: "query_location", value: "", hex: "7e820100001234567890120000097e" },
    DownSample {
        kind: "track",
        value: r#"{"interval": 5, "seconds": 600}"#,
        hex: "7e820200061234567890120000000500000258537e",
    },
    DownSample { kind: "control", value: r#"{"command": "reset"}"#, hex: "7e810500011234567890120000040b7e" },
    DownSample { kind: "vehicle", value: r#"{"lock": true}"#, hex: "7e850000011234567890120000010f7e" },
    DownSample {
        kind: "photo",
        value: r#"{"channel": 2, "count": 3, "interval": 10}"#,
        hex: "7e8801000c1234567890120000020003000a0001057f3f3f7f007e",
    },
    DownSample {
        kind: "circles",
        value: r#"{"areas": [{"id": 7, "lat": -22.5, "lon": -43.25, "radius": 500, "max_speed": 60}]}"#,
        hex: "7e86000017123456789012000000010000000700ea015752a00293f150000001f4003c00aa7e",
    },
    DownSample {
        kind: "raw",
        value: r#"{"msg_id": 33027, "body_hex": "7e7d"}"#,
        hex: "7e8103000212345678901200007d027d01097e",
    },
];
