//! Packets and what they mean. Of this standard there is no public collection of what vehicles have sent: where
//! others' tests had none, these are worked out by its tables.

use crate::{DownSample, Sample};

pub(super) const SAMPLES: &[Sample] = &[
    Sample {
        about: "Login of 2016, as EMQX's tests have it",
        hex: "232301fe314731424c35325037545231313535323001001f0c0c1d0c1314000131323334353637383930313233 \
             3435363738393001014398",
        up: &[
            r#"{"login":{"device":"1G1BL52P7TR115520"}}"#,
            r#"{"kind":"login","data":{"time":"2012-12-29T12:19:20+08:00","serial":1,
                "iccid":"12345678901234567890","batteries":["C"]}}"#,
        ],
        answer: "23230101314731424c3532503754523131353532300100060c0c1d0c13143c",
    },
    Sample {
        about: "Every block of 2016 but those below, by the tables, with numbers of EMQX's tests",
        hex: "232302fe314731424c353250375452313135353230010082100101023b000101010107d0000f423f13883a9832 \
             010517705a00020201017d753061a87d753c79e302017d75f862d4917d0075f80327102ee0afc80002787904e2 \
             0a88b80b01f40c01040107d000c8060c0a1d4c0d0b07d00e0c780f0d28070200010001010000007b020000007b \
             000000df010000007b010000007d800002cafe85",
        up: &[
            r#"{"login":{"device":"1G1BL52P7TR115520"}}"#,
            r#"{"kind":"realtime","data":{"time":"2016-01-01T02:59:00+08:00",
                "vehicle":{"state":"started","charging":"parked","mode":"electric","speed":200.0,
                "mileage_km":99999.9,"voltage":500.0,"current":500.0,"soc":50,"dc_dc":"on",
                "gear":{"gear":5,"is_driving":false,"is_braking":false},"insulation_kohm":6000,
                "accelerator":90,"brake":0},"motors":[{"id":1,"state":"consuming",
                "controller_temperature":85,"rpm":10000,"torque":500.0,"temperature":85,
                "controller_voltage":3001.2,"controller_current":2120.3},{"id":2,"state":"consuming",
                "controller_temperature":85,"rpm":10200,"torque":530.0,"temperature":105,
                "controller_voltage":3200.0,"controller_current":2020.0}],"fuel_cell":{"voltage":1000.0,
                "current":1200.0,"kg_per_100km":450.0,"temperatures":[80,81],
                "hydrogen_temperature":85.0,"hydrogen_temperature_probe":10,"hydrogen_mg_per_kg":35000,
                "hydrogen_sensor":11,"hydrogen_mpa":50.0,"hydrogen_pressure_sensor":12,"dc_dc":"on"},
                "engine":{"state":"on","rpm":2000,"litres_per_100km":2.0},
                "extremes":{"highest_voltage_pack":12,"highest_voltage_cell":10,"highest_voltage":7.5,
                "lowest_voltage_pack":13,"lowest_voltage_cell":11,"lowest_voltage":2.0,
                "highest_temperature_pack":14,"highest_temperature_probe":12,"highest_temperature":80,
                "lowest_temperature_pack":15,"lowest_temperature_probe":13,"lowest_temperature":0},
                "alarms":{"level":2,"flags":65537,"alarms":["temperature_difference",
                "high_voltage_interlock"],"battery_faults":[123],"motor_faults":[123,223],
                "engine_faults":[123],"other_faults":[125]},"custom":[{"id":128,"hex":"cafe"}]}}"#,
        ],
        answer: "23230201314731424c353250375452313135353230010006100101023b0000",
    },
    Sample {
        about: "Cells and probes of 2016, from the tests of a public gateway for batteries",
        hex: "232302fe4f563230323630303031000000000000000100211a09110c1e00080101025a26dd00040001040ccc0c \
             d00cc10cc70901010002474b65",
        up: &[
            r#"{"login":{"device":"OV20260001"}}"#,
            r#"{"kind":"realtime","data":{"time":"2026-09-17T12:30:00+08:00","voltages":[{"pack":1,
                "voltage":60.2,"current":-5.1,"cells":4,"first":1,"voltages":[3.276,3.28,3.265,3.271]}],
                "temperatures":[{"pack":1,"temperatures":[31,35]}]}}"#,
        ],
        answer: "232302014f563230323630303031000000000000000100061a09110c1e000a",
    },
    Sample {
        about: "Where a car was in 2017, from a public log",
        hex: "232302fe31373036303647423036435a4830303435010010110715111f270500069bd42001f13c685a",
        up: &[
            r#"{"login":{"device":"170606GB06CZH0045"}}"#,
            r#"{"kind":"realtime","data":{"time":"2017-07-21T17:31:39+08:00",
                "position":{"is_valid":true,"lat":32.586856,"lon":110.87568}}}"#,
        ],
        answer: "2323020131373036303647423036435a4830303435010006110715111f277b",
    },
    Sample {
        about: "Every block of 2025, from the tests of a public parser",
        hex: "242402fe54455354303030303030303030303030310100b719081b11352601010101006f000a5c2300df753042 \
             42012000020101013e80e800030d413e03003e0103e802006f0304376a04008405010106caa9a8015802680601 \
             00000001020000006400000070030000006f000000de0000014dff02000000420000004d010063070101007b75 \
             ac0005300c307030d43138319c080101000234ff300101000b000b03f303f32a00003102000bffff0001ffff00 \
             01ff3202000207d002000207d00200024902000254ff010000000054",
        up: &[
            r#"{"login":{"device":"TEST0000000000001"}}"#,
            r#"{"kind":"realtime","data":{"time":"2025-08-27T17:53:38+08:00",
                "vehicle":{"state":"started","charging":"parked","mode":"electric","speed":11.1,
                "mileage_km":67894.7,"voltage":22.3,"current":0.0,"soc":66,"dc_dc":66,"gear":{"gear":1,
                "is_driving":false,"is_braking":false},"insulation_kohm":8192},"motors":[{"id":1,
                "state":"consuming","controller_temperature":22,"rpm":1000,"torque":0.1,
                "temperature":22}],"fuel_cell":{"hydrogen_temperature":22,
                "hydrogen_temperature_probe":1,"hydrogen_concentration":0.1,"hydrogen_sensor":2,
                "hydrogen_mpa":11.1,"hydrogen_pressure_sensor":3,"dc_dc":4,"hydrogen_left":55,
                "dc_dc_temperature":66},"engine":{"rpm":132},"position":{"is_valid":false,"lat":22.545,
                "lon":113.945,"system":"wgs84"},"alarms":{"level":1,"flags":1,
                "alarms":["temperature_difference"],"battery_faults":[100,112],
                "motor_faults":[111,222,333],"engine_faults":[],"other_faults":[66,77],
                "levels":[{"alarm":"temperature_difference","level":99}]},"voltages":[{"pack":1,
                "voltage":12.3,"current":12.4,"voltages":[12.3,12.4,12.5,12.6,12.7]}],
                "temperatures":[{"pack":1,"temperatures":[12,null]}],"stacks":[{"id":1,"voltage":1.1,
                "current":1.1,"hydrogen_kpa":1.1,"air_kpa":1.1,"air_temperature":2,"temperatures":[]}],
                "capacitor":{"system":2,"voltage":1.1,"current":null,"voltages":[null],
                "temperatures":[null]},"capacitor_extremes":{"highest_voltage_system":2,
                "highest_voltage_cell":2,"highest_voltage":2.0,"lowest_voltage_system":2,
                "lowest_voltage_cell":2,"lowest_voltage":2.0,"highest_temperature_system":2,
                "highest_temperature_probe":2,"highest_temperature":33,"lowest_temperature_system":2,
                "lowest_temperature_probe":2,"lowest_temperature":44},"signature":{"type":1,"r":"",
                "s":""}}}"#,
        ],
        answer: "24240201544553543030303030303030303030303101000619081b1135262b",
    },
    Sample {
        about: "Login of 2025 by its table 8: two systems with one battery and two",
        hex: "242401fe314731424c353250375452313135353230010067190b150f2800000238393836303030303030303030 \
             303030303030310201024141414141414141414141414141414141414141414141414242424242424242424242 \
             4242424242424242424242424243434343434343434343434343434343434343434343434399",
        up: &[
            r#"{"login":{"device":"1G1BL52P7TR115520"}}"#,
            r#"{"kind":"login","data":{"time":"2025-11-21T15:40:00+08:00","serial":2,
                "iccid":"89860000000000000001","batteries":["AAAAAAAAAAAAAAAAAAAAAAAA",
                "BBBBBBBBBBBBBBBBBBBBBBBB","CCCCCCCCCCCCCCCCCCCCCCCC"]}}"#,
        ],
        answer: "24240101314731424c353250375452313135353230010006190b150f28000a",
    },
    Sample {
        about: "A heartbeat, by the tables",
        hex: "232307fe314731424c353250375452313135353230010000d5",
        up: &[r#"{"login":{"device":"1G1BL52P7TR115520"}}"#, r#"{"heartbeat":{}}"#],
        answer: "23230701314731424c3532503754523131353532300100002a",
    },
    Sample {
        about: "The time is asked for, by the tables",
        hex: "232308fe314731424c353250375452313135353230010000da",
        up: &[r#"{"login":{"device":"1G1BL52P7TR115520"}}"#, r#"{"heartbeat":{}}"#],
        answer: "23230801314731424c353250375452313135353230010006170b0f060d142f",
    },
    Sample {
        about: "Logout, by the tables",
        hex: "232304fe314731424c353250375452313135353230010008190b150f28000002fc",
        up: &[
            r#"{"login":{"device":"1G1BL52P7TR115520"}}"#,
            r#"{"kind":"logout","data":{"time":"2025-11-21T15:40:00+08:00","serial":2}}"#,
            r#"{"logout":{}}"#,
        ],
        answer: "23230401314731424c353250375452313135353230010006190b150f28000f",
    },
    Sample {
        about: "A platform logs in, by the tables of 2016",
        hex: "232305fe504c4154464f524d303030303030303031010029190b150f2800000175736572000000000000000073 \
             6563726574000000000000000000000000000001da",
        up: &[r#"{"login":{"device":"PLATFORM000000001","username":"user","password":"secret"}}"#],
        answer: "23230501504c4154464f524d303030303030303031010006190b150f28000d",
    },
    Sample {
        about: "Of what is encrypted only the VIN is read, by the tables",
        hex: "232302fe314731424c353250375452313135353230030002abcdb6",
        up: &[
            r#"{"login":{"device":"1G1BL52P7TR115520"}}"#,
            r#"{"kind":"raw","data":{"command":2,"encryption":3,"body_hex":"abcd"}}"#,
        ],
        answer: "23230201314731424c3532503754523131353532300100002f",
    },
];

/// By the tables of annex B, at 2023-11-15T06:13:20+08:00.
pub(super) const DOWNS: &[DownSample] = &[
    DownSample {
        kind: "query",
        value: r#"{"params": ["report_interval", "platform"]}"#,
        hex: "232380fe314731424c35325037545231313535323001000a170b0f060d140302040554",
    },
    DownSample {
        kind: "set",
        value: r#"{"params": {"report_interval": 30, "heartbeat_interval": 60, "platform": "a.cn"}}"#,
        hex: "232381fe314731424c353250375452313135353230010013170b0f060d140402001e093c040405612e636e \
             26",
    },
    DownSample {
        kind: "control",
        value: r#"{"command": "reset"}"#,
        hex: "232382fe314731424c353250375452313135353230010007170b0f060d140358",
    },
    DownSample {
        kind: "control",
        value: r#"{"command": "alarm", "level": 3, "text": "stop"}"#,
        hex: "232382fe314731424c35325037545231313535323001000c170b0f060d14060373746f704d",
    },
    DownSample {
        kind: "activation",
        value: r#"{"is_activated": true}"#,
        hex: "23230afe314731424c3532503754523131353532300100020100db",
    },
    DownSample {
        kind: "raw",
        value: r#"{"command": 192, "body_hex": "0102"}"#,
        hex: "2323c0fe314731424c353250375452313135353230010002010213",
    },
];
