//! Frames of devices in the field, most of them from the tests of an open tracking server; their meaning was worked out by
//! hand from the vendor's tables.

use crate::{DownSample, Sample};

pub(super) const UP: &[Sample] = &[
    Sample {
        about: "login",
        hex: "7878 0D 01 0864717003283581 0009 3F04 0D0A",
        up: &[r#"{"login":{"device":"864717003283581"}}"#],
        answer: "7878 05 01 0009 5594 0D0A",
    },
    Sample {
        about: "position: GPS, cell, ignition, upload mode",
        hex: "7878 22 22 0F0C1D023305 C9 027AC818 0C465860 00 1400 01CC 00 287D 001F71 00 00 01 0008 2086 0D0A",
        up: &[r#"{"kind":"location","data":{"timestamp":"2015-12-29T02:51:05Z",
            "gps":{"lat":23.1116933,"lon":114.4092978,"angle":0,"satellites":9,"speed":0,"valid":true},
            "cell":{"mcc":460,"mnc":0,"lac":10365,"cell_id":8049},"acc":false,"upload_mode":0,"reuploaded":true}}"#],
        answer: "7878 05 22 0008 A842 0D0A",
    },
    Sample {
        about: "position, the ignition in the course",
        hex: "7878 1F 12 0F0A140E150B C5 05E51E78 0293A9E8 00 5400 00F6 01 006E 0055DA 0003 5F24 0D0A",
        up: &[r#"{"kind":"location","data":{"timestamp":"2015-10-20T14:21:11Z",
            "gps":{"lat":54.9453467,"lon":24.0176222,"angle":0,"satellites":5,"speed":0,"valid":true},
            "cell":{"mcc":246,"mnc":1,"lac":110,"cell_id":21978},"acc":false}}"#],
        answer: "7878 05 12 0003 903F 0D0A",
    },
    Sample {
        about: "position in the west, with fields of one vendor at the end",
        hex: "7878 2B 12 15050D03041B CF 031FF30A 0BE795BC 00 1C17 014E 14 A065 DD9531 4504B6040000001C00000CD9 0AB8 FB6F \
              0D0A",
        up: &[r#"{"kind":"location","data":{"timestamp":"2021-05-13T03:04:27Z",
            "gps":{"lat":29.1252678,"lon":-110.95918,"angle":23,"satellites":15,"speed":0,"valid":true},
            "cell":{"mcc":334,"mnc":20,"lac":41061,"cell_id":14521649},"rest":"4504b6040000001c00000cd9"}}"#],
        answer: "7878 05 12 0AB8 6617 0D0A",
    },
    Sample {
        about: "position of a vendor with wide cells: the same, with mileage and altitude",
        hex: "7878 2A 31 180613012B39 CC 0274C4DC 050D7CD0 00 1800 02D4 000A C3C7 0DBDC415 01 00 00 00000000 02A6 000E \
              A40B 0D0A",
        up: &[r#"{"kind":"location","data":{"timestamp":"2024-06-19T01:43:57Z",
            "gps":{"lat":-22.89278,"lon":-47.0944444,"angle":0,"satellites":12,"speed":0,"valid":true},
            "cell":{"mcc":724,"mnc":10,"lac":50119,"cell_id":230540309},"acc":true,"upload_mode":0,"reuploaded":false,
            "rest":"0000000002a6"}}"#],
        answer: "7878 05 31 000E A785 0D0A",
    },
    Sample {
        about: "alarm of a vendor with wide cells: the power was cut",
        hex: "7878 27 32 180214123324 CA 0162BDF0 041F45D9 00 190B 0A 02D4 000B C527 0000EC02 52 06 04 02 02 005E 07E1 0D0A",
        up: &[r#"{"kind":"alarm","data":{"timestamp":"2024-02-20T18:51:36Z",
            "gps":{"lat":-12.91576,"lon":-38.4213117,"angle":267,"satellites":10,"speed":0,"valid":true},
            "cell":{"mcc":724,"mnc":11,"lac":50471,"cell_id":60418},
            "terminal":{"cut_off":false,"gps_on":true,"charging":false,"acc":true,"armed":false,
            "alarm":{"code":2,"name":"power-cut"}},
            "voltage_level":6,"gsm":4,"alarm":{"code":2,"name":"power-cut"},"language":2}}"#],
        answer: "7878 05 32 005E 1A64 0D0A",
    },
    Sample {
        about: "alarm: vibration",
        hex: "7878 25 16 0F0C1D0A2B21 C8 027AC804 0C465810 00 146F 09 01CC 00 287D 001F71 48 04 04 03 01 001C 84CF 0D0A",
        up: &[r#"{"kind":"alarm","data":{"timestamp":"2015-12-29T10:43:33Z",
            "gps":{"lat":23.1116822,"lon":114.4092533,"angle":111,"satellites":8,"speed":0,"valid":true},
            "cell":{"mcc":460,"mnc":0,"lac":10365,"cell_id":8049},
            "terminal":{"cut_off":false,"gps_on":true,"charging":false,"acc":false,"armed":false,
            "alarm":{"code":1,"name":"vibration"}},
            "voltage_level":4,"gsm":4,"alarm":{"code":3,"name":"vibration"},"language":1}}"#],
        answer: "7878 05 16 001C 1B28 0D0A",
    },
    Sample {
        about: "alarm of a 4G device, with its fence",
        hex: "7878 2E A4 110C0C02281B F6 026C1872 0C38D228 00 149C 11 81CC 0001 0000260E 000000000615F801 2C 05 04 11 02 \
              FF 0010 58FD 0D0A",
        up: &[r#"{"kind":"alarm","data":{"timestamp":"2017-12-12T02:40:27Z",
            "gps":{"lat":22.5769878,"lon":113.9168933,"angle":156,"satellites":6,"speed":0,"valid":true},
            "cell":{"mcc":460,"mnc":1,"lac":9742,"cell_id":102103041},
            "terminal":{"cut_off":false,"gps_on":false,"charging":true,"acc":false,"armed":false,
            "alarm":{"code":5}},
            "voltage_level":5,"gsm":4,"alarm":{"code":17,"name":"power-off"},"language":2,"fence":255}}"#],
        answer: "7878 05 A4 0010 EEBE 0D0A",
    },
    Sample {
        about: "status",
        hex: "7878 0A 13 C4 06 04 00 02 0129 8F5B 0D0A",
        up: &[r#"{"kind":"status","data":{
            "terminal":{"cut_off":true,"gps_on":true,"charging":true,"acc":false,"armed":false},
            "voltage_level":6,"gsm":4,"alarm":{"code":0,"name":"normal"},"language":2}}"#],
        answer: "7878 05 13 0129 5D63 0D0A",
    },
    Sample {
        about: "heartbeat with the battery's voltage",
        hex: "7878 0B 23 C0 0122 04 0001 0008 1872 0D0A",
        up: &[r#"{"kind":"status","data":{
            "terminal":{"cut_off":true,"gps_on":true,"charging":false,"acc":false,"armed":false},
            "voltage":2.9,"gsm":4,"language":1}}"#],
        answer: "7878 05 23 0008 F29E 0D0A",
    },
    Sample {
        about: "cells and WiFi",
        hex: "7878 41 2C 11030B011C1F 0136 04 CB8A00B17754 CB8A00BEF357 CB8A00B73F5F CB8900B0E25F CB8900B6655F \
              CB8A00B74960 CB8A00B17862 07 01 001801EB403938 00BB BDE1 0D0A",
        up: &[r#"{"kind":"cells","data":{"timestamp":"2017-03-11T01:28:31Z","cells":[
            {"mcc":310,"mnc":4,"lac":52106,"cell_id":45431,"rssi":-84},
            {"mcc":310,"mnc":4,"lac":52106,"cell_id":48883,"rssi":-87},
            {"mcc":310,"mnc":4,"lac":52106,"cell_id":46911,"rssi":-95},
            {"mcc":310,"mnc":4,"lac":52105,"cell_id":45282,"rssi":-95},
            {"mcc":310,"mnc":4,"lac":52105,"cell_id":46693,"rssi":-95},
            {"mcc":310,"mnc":4,"lac":52106,"cell_id":46921,"rssi":-96},
            {"mcc":310,"mnc":4,"lac":52106,"cell_id":45432,"rssi":-98}],
            "timing_advance":7,"wifi":[{"mac":"00:18:01:eb:40:39","rssi":-56}]}}"#],
        answer: "7878 05 2C 00BB 3F49 0D0A",
    },
    Sample {
        about: "a request for the address of where the device is",
        hex: "7878 2E 2A 0F0C1D071139 CA 027AC800 0C465800 00 14D8 313235323031333533323137373037390000000000 0001 002A \
              6ECE 0D0A",
        up: &[r#"{"kind":"address-request","data":{"timestamp":"2015-12-29T07:17:57Z",
            "gps":{"lat":23.11168,"lon":114.4092444,"angle":216,"satellites":10,"speed":0,"valid":true},
            "phone":"1252013532177079","language":1}}"#],
        answer: "7878 05 2A 002A 6C90 0D0A",
    },
    Sample {
        about: "text when no command was sent",
        hex: "7878 2D 15 25 00000000 437574206F666620746865206675656C20737570706C793A205375636365737321 0002 013B 898A \
              0D0A",
        up: &[r#"{"kind":"message","data":{"text":"Cut off the fuel supply: Success!"}}"#],
        answer: "",
    },
    Sample {
        about: "text in UTF-16 in a long packet",
        hex: "7979 0026 21 00000000 02 0043006F006D006D0061006E00640020006500720072006F00720021 0023 6E85 0D0A",
        up: &[r#"{"kind":"message","data":{"text":"Command error!"}}"#],
        answer: "",
    },
    Sample {
        about: "information: voltage of the power from outside",
        hex: "7979 0008 94 00 00ED 0289 D686 0D0A",
        up: &[r#"{"kind":"info","data":{"type":0,"voltage":2.37}}"#],
        answer: "",
    },
    Sample {
        about: "information: IMEI, IMSI, ICCID",
        hex: "7979 0020 94 0A 0359857082366758 0520050218721401 8966051912408052452F 0003 5556 0D0A",
        up: &[r#"{"kind":"info","data":{"type":10,"imei":"359857082366758","imsi":"520050218721401",
            "iccid":"8966051912408052452"}}"#],
        answer: "",
    },
    Sample {
        about: "information: the door",
        hex: "7979 0007 94 05 00 00C9 B63E 0D0A",
        up: &[r#"{"kind":"info","data":{"type":5,"hex":"00"}}"#],
        answer: "",
    },
    Sample {
        about: "what is wired to the device",
        hex: "7979 000E 9B 03 32382E33A1E60D0A 0289 BE49 0D0A",
        up: &[r#"{"kind":"serial","data":{"type":3,"hex":"32382e33a1e60d0a"}}"#],
        answer: "",
    },
    Sample {
        about: "a packet that no document explains",
        hex: "7878 0D 1F 0000000000000002 00B1 96A2 0D0A",
        up: &[r#"{"kind":"other","data":{"protocol":31,"hex":"0000000000000002"}}"#],
        answer: "7878 05 1F 00B1 F9D9 0D0A",
    },
];

// An open tracking server's packet, but with a server flag and a serial number.
pub(super) const DOWN: &[DownSample] = &[
    DownSample {
        kind: "command",
        value: "Relay,1#",
        hex: "7878 12 80 0C 00000001 52656C61792C3123 0001 D9F6 0D0A",
    },
    DownSample {
        kind: "command",
        value: r#"{"command":"STATUS,#","language":2}"#,
        hex: "7878 14 80 0C 00000001 5354415455532C23 0002 0001 7367 0D0A",
    },
];
