//! Checksums of device protocols. The CRCs are named as in the catalogue of parametrised CRC algorithms
//! (reveng.sourceforge.io), which the `crc` crate implements.

use crc::{Crc, Table};

/// How a checksum is worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// All bytes, exclusive or.
    Xor,
    /// All bytes added up, modulo 256.
    Sum8,
    /// What makes the sum of all bytes zero: Modbus ASCII's LRC.
    Lrc,
    /// All bytes added up, modulo 65,536.
    Sum16,
    /// CRC-8/SMBUS: polynomial 07.
    Crc8,
    /// CRC-8/MAXIM-DOW: 1-Wire.
    Crc8Maxim,
    /// CRC-16/ARC: Teltonika.
    Crc16Arc,
    /// CRC-16/MODBUS.
    Crc16Modbus,
    /// CRC-16/IBM-3740: "CCITT-FALSE".
    Crc16CcittFalse,
    /// CRC-16/XMODEM.
    Crc16Xmodem,
    /// CRC-16/KERMIT.
    Crc16Kermit,
    /// CRC-16/IBM-SDLC: X.25, and what GT06 calls CRC-ITU.
    Crc16X25,
    /// CRC-32/ISO-HDLC: Ethernet, zip.
    Crc32,
}

/// Names in configuration.
pub(super) const NAMES: [(&str, Checksum); 13] = [
    ("xor", Checksum::Xor),
    ("sum8", Checksum::Sum8),
    ("lrc", Checksum::Lrc),
    ("sum16", Checksum::Sum16),
    ("crc8", Checksum::Crc8),
    ("crc8-maxim", Checksum::Crc8Maxim),
    ("crc16-arc", Checksum::Crc16Arc),
    ("crc16-modbus", Checksum::Crc16Modbus),
    ("crc16-ccitt-false", Checksum::Crc16CcittFalse),
    ("crc16-xmodem", Checksum::Crc16Xmodem),
    ("crc16-kermit", Checksum::Crc16Kermit),
    ("crc16-x25", Checksum::Crc16X25),
    ("crc32", Checksum::Crc32),
];

// One lookup a byte; the tables are made when this is compiled.
static SMBUS: Crc<u8, Table<1>> = Crc::<u8, Table<1>>::new(&crc::CRC_8_SMBUS);
static MAXIM: Crc<u8, Table<1>> = Crc::<u8, Table<1>>::new(&crc::CRC_8_MAXIM_DOW);
static ARC: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_ARC);
static MODBUS: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_MODBUS);
static CCITT_FALSE: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_IBM_3740);
static XMODEM: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_XMODEM);
static KERMIT: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_KERMIT);
static X25: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&crc::CRC_16_IBM_SDLC);
static ISO_HDLC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&crc::CRC_32_ISO_HDLC);

impl Checksum {
    /// Of these bytes.
    pub fn of(self, bytes: &[u8]) -> u32 {
        let sum8 = || bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
        match self {
            Checksum::Xor => bytes.iter().fold(0, |sum, b| sum ^ b).into(),
            Checksum::Sum8 => sum8().into(),
            Checksum::Lrc => sum8().wrapping_neg().into(),
            Checksum::Sum16 => bytes.iter().fold(0_u16, |sum, b| sum.wrapping_add(u16::from(*b))).into(),
            Checksum::Crc8 => SMBUS.checksum(bytes).into(),
            Checksum::Crc8Maxim => MAXIM.checksum(bytes).into(),
            Checksum::Crc16Arc => ARC.checksum(bytes).into(),
            Checksum::Crc16Modbus => MODBUS.checksum(bytes).into(),
            Checksum::Crc16CcittFalse => CCITT_FALSE.checksum(bytes).into(),
            Checksum::Crc16Xmodem => XMODEM.checksum(bytes).into(),
            Checksum::Crc16Kermit => KERMIT.checksum(bytes).into(),
            Checksum::Crc16X25 => X25.checksum(bytes).into(),
            Checksum::Crc32 => ISO_HDLC.checksum(bytes),
        }
    }

    /// How many bytes it has.
    pub fn size(self) -> usize {
        match self {
            Checksum::Xor | Checksum::Sum8 | Checksum::Lrc | Checksum::Crc8 | Checksum::Crc8Maxim => 1,
            Checksum::Crc32 => 4,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_check_value_of_the_catalogue() {
        // What "123456789" gives; for the sums worked out by hand: 0x31 to 0x39 add up to 0x1dd.
        for (name, check) in [
            ("xor", 0x31),
            ("sum8", 0xdd),
            ("lrc", 0x23),
            ("sum16", 0x01dd),
            ("crc8", 0xf4),
            ("crc8-maxim", 0xa1),
            ("crc16-arc", 0xbb3d),
            ("crc16-modbus", 0x4b37),
            ("crc16-ccitt-false", 0x29b1),
            ("crc16-xmodem", 0x31c3),
            ("crc16-kermit", 0x2189),
            ("crc16-x25", 0x906e),
            ("crc32", 0xcbf4_3926),
        ] {
            let kind = NAMES.iter().find(|(n, _)| *n == name).unwrap().1;
            assert_eq!(kind.of(b"123456789"), check, "{name}");
            assert!(u64::from(check) < 1 << (8 * kind.size()), "{name}");
        }
    }
}
