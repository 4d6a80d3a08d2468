//! `gbt32960`: GB/T 32960.3-2016 and -2025, which electric vehicles in China speak to their maker's platform, and
//! such platforms to the authorities.
//!
//! A vehicle logs in with its VIN (0x01) and tells what it measures (0x02; 0x03 of what it could not tell in
//! time). A platform logs in with a name and a password (0x05), and then speaks for any number of vehicles. What
//! is said is answered with the same head, another answer flag and the time of what is answered (6.3.2).

mod down;
mod frame;
mod info;
mod samples;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::read::Reader;
use crate::{
    Codec, Context, Credential, Data, Def, Down, Expect, Fault, Frame, Login, Options, Reply, Up, hex,
};
use frame::{COMMAND, Header, PLAIN, SUCCESS, Text};
use wire::calendar::Calendar;

/// The codec.
pub(crate) const DEF: Def = Def {
    name: "gbt32960",
    about: "GB/T 32960.3-2016 and -2025: electric vehicles in China",
    build: |options| Box::new(Gbt32960::new(options)),
    samples: samples::SAMPLES,
    downs: samples::DOWNS,
};

/// Answer flags (6.3.2, table 4).
const ERROR: u8 = 2;
/// 2025 only: no such vehicle.
const NO_VIN: u8 = 4;

/// All times are those of Beijing.
const ZONE_MS: u64 = 8 * 3_600_000;

/// A vehicle's or a platform's connection.
struct Gbt32960 {
    max_frame: usize,
    /// Who it is, from its first packet on.
    peer: Option<(Text, [u8; 17])>,
    /// Whether it speaks for others.
    is_platform: bool,
    /// Whether it has logged in by a packet for that.
    has_asked: bool,
}

/// Six bytes of a time as ISO 8601; null if it is none.
fn time(bytes: [u8; 6]) -> Value {
    let text = |time: Calendar| time.to_string().replace('Z', "+08:00");
    Calendar::from_bytes(bytes).map_or(Value::Null, |time| text(time).into())
}

/// The time that it is.
fn now(wall_ms: u64) -> [u8; 6] {
    let Calendar { year, month, day, hour, minute, second } = Calendar::at(wall_ms.saturating_add(ZONE_MS));
    [u8::try_from(year.saturating_sub(2000)).unwrap_or(0), month, day, hour, minute, second]
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

impl Gbt32960 {
    fn new(options: &Options) -> Gbt32960 {
        let max_frame = if options.max_frame == 0 { frame::MAX_FRAME } else { options.max_frame };
        Gbt32960 { max_frame, peer: None, is_platform: false, has_asked: false }
    }

    /// What a packet says, and whether it is to be answered.
    fn understand(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        mut unit: Reader<'_>,
    ) -> Result<Frame, Fault> {
        let is_login = matches!(header.command, 0x01 | 0x05) && header.answer == COMMAND;
        let is_let_in = is_login && (header.command == 0x05 || !self.is_platform);
        let mut up = Vec::new();
        if !is_let_in {
            self.know(cx, header, &mut up)?;
        }
        if header.answer != COMMAND {
            up.extend(outcome(header, &mut unit)?);
            return Ok(Frame { up, ..Frame::default() });
        }
        let at = unit.clone();
        let mut values = if header.encryption == PLAIN {
            self.values(header, &mut unit)?
        } else {
            let hex = hex::encode(unit.rest());
            let value = json!({"command": header.command, "encryption": header.encryption, "body_hex": hex});
            vec![Up::Data(Data::json("raw", &value))]
        };
        if is_let_in && !matches!(values.first(), Some(Up::Login(_))) {
            up.push(self.login(header, None, Credential::None));
        }
        up.append(&mut values);
        self.answer(cx, header, at, up)
    }

    /// Makes sure that this is the vehicle of this connection, and logs it in by its VIN if it has not logged in.
    fn know(&mut self, cx: &Context<'_>, header: &Header, up: &mut Vec<Up>) -> Result<(), Fault> {
        match self.peer {
            Some((_, vin)) if vin != header.vin && !self.is_platform => {
                let why = format!("{} speaks on the connection of {}", header.name(), text_of(&vin));
                return Err(Fault::frame(4, why));
            }
            Some(_) if self.has_asked || cx.device.is_some() => {}
            _ => {
                up.push(self.login(header, None, Credential::None));
                self.has_asked = false;
            }
        }
        Ok(())
    }

    fn login(&mut self, header: &Header, username: Option<String>, credential: Credential) -> Up {
        self.peer = Some((header.text, header.vin));
        self.is_platform = username.is_some();
        self.has_asked = true;
        let username = username.map(Into::into);
        Up::Login(Login { device: header.name().into(), username, credential })
    }

    /// A value; of one of a platform's vehicles below its VIN.
    fn data(&self, header: &Header, kind: &'static str, value: &Value) -> Up {
        let is_other = self.peer.is_some_and(|(_, vin)| vin != header.vin);
        if self.is_platform && is_other {
            Up::Data(Data::json(format!("{}/{kind}", header.name()), value))
        } else {
            Up::Data(Data::json(kind, value))
        }
    }

    /// What a command says (6.3.1, table 3).
    fn values(&mut self, header: &Header, r: &mut Reader<'_>) -> Result<Vec<Up>, Fault> {
        Ok(match header.command {
            0x01 => {
                let value = vehicle_login(header.text, r)?;
                let login = (!self.is_platform).then(|| self.login(header, None, Credential::None));
                login.into_iter().chain([self.data(header, "login", &value)]).collect()
            }
            0x02 => vec![self.data(header, "realtime", &info::decode(header.text, r)?)],
            0x03 => vec![self.data(header, "reissue", &info::decode(header.text, r)?)],
            0x04 | 0x06 => {
                let value = json!({"time": time(r.array()?), "serial": r.u16()?});
                let data = self.data(header, "logout", &value);
                // The connection is a platform's for as long as that itself does not leave.
                let is_over = header.command == 0x06 || !self.is_platform;
                if is_over { vec![data, Up::Logout] } else { vec![data] }
            }
            0x05 => {
                let (_time, _serial) = (r.take(6)?, r.u16()?);
                let (username, password) = (text_of(r.take(12)?), text_of(r.take(20)?));
                vec![self.login(header, Some(username), Credential::Password(Bytes::from(password)))]
            }
            0x07 | 0x08 => vec![Up::Heartbeat],
            0x09 => {
                let (time, chip) = (time(r.array()?), hex::encode(r.take(16)?));
                let length = r.u16()?;
                let (key, vin) = (hex::encode(r.take(length.into())?), text_of(r.take(17)?));
                let value = json!({"time": time, "chip": chip, "public_key": key, "vin": vin,
                    "signature": info::signature(r)?});
                vec![self.data(header, "activation", &value)]
            }
            0x0b => {
                let kind = r.u8()?;
                let length = r.u16()?;
                let key = hex::encode(r.take(length.into())?);
                let value =
                    json!({"type": kind, "key": key, "begins": time(r.array()?), "ends": time(r.array()?)});
                vec![self.data(header, "key", &value)]
            }
            command => {
                let value = json!({"command": command, "body_hex": hex::encode(r.rest())});
                vec![self.data(header, "raw", &value)]
            }
        })
    }

    /// The head and the time of what is answered; of the time that is asked for, the time (6.3.2, B.3.5.7).
    fn answer(
        &self,
        cx: &Context<'_>,
        header: &Header,
        mut unit: Reader<'_>,
        up: Vec<Up>,
    ) -> Result<Frame, Fault> {
        let now = now(cx.wall_ms);
        let time = match header.command {
            0x07 | 0x0b => &[],
            0x08 => &now[..],
            _ if header.encryption != PLAIN => &[],
            _ => unit.take(unit.left().min(6))?,
        };
        let flag = if header.text == Text::Of2025 && header.command == 0x01 { NO_VIN } else { ERROR };
        let (mut answer, mut refusal) = (Vec::new(), Vec::new());
        // An activation is answered by a command of its own, when somebody has decided on it.
        if header.command != 0x09 {
            frame::seal(header.text, &header.vin, header.command, SUCCESS, time, &mut answer)?;
            frame::seal(header.text, &header.vin, header.command, flag, time, &mut refusal)?;
        }
        Ok(Frame { up, answer: answer.into(), refusal: refusal.into() })
    }
}

/// 0x01: 2016, table 6; 2025, table 8.
fn vehicle_login(text: Text, r: &mut Reader<'_>) -> Result<Value, Fault> {
    let (time, serial, iccid) = (time(r.array()?), r.u16()?, text_of(r.take(20)?));
    let mut value = json!({"time": time, "serial": serial, "iccid": iccid});
    let count = r.u8()?;
    // 2016: so many codes of the same length. 2025: how many codes, of 24 bytes, for each system.
    let (codes, length) = if text == Text::Of2016 {
        (usize::from(count), usize::from(r.u8()?))
    } else {
        (r.take(count.into())?.iter().map(|n| usize::from(*n)).sum(), 24)
    };
    let codes: Result<Vec<String>, Fault> = (0..codes).map(|_| Ok(text_of(r.take(length)?))).collect();
    value["batteries"] = codes?.into();
    Ok(value)
}

/// What came of a command: there is no serial number, but one of a kind at a time.
fn outcome(header: &Header, r: &mut Reader<'_>) -> Result<Vec<Up>, Fault> {
    if !matches!(header.command, 0x80..=0x82) {
        return Ok(Vec::new());
    }
    let is_ok = header.answer == SUCCESS;
    let mut value = json!({"answer": header.answer});
    if header.command == 0x80 && is_ok && header.encryption == PLAIN {
        value["time"] = time(r.array()?);
        value["params"] = down::params(header.text, r)?.into();
    }
    let value = value.to_string().into_bytes().into();
    Ok(vec![Up::Reply(Reply { key: header.command.into(), is_ok, value })])
}

impl Codec for Gbt32960 {
    fn decode(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        let Some(packet) = frame::cut(buf, self.max_frame)? else { return Ok(None) };
        let (header, unit) = frame::open(&packet)?;
        if header.name().is_empty() {
            return Err(Fault::frame(4, "a packet of nobody"));
        }
        self.understand(cx, &header, unit).map(Some)
    }

    fn encode(&mut self, cx: &Context<'_>, down: &Down<'_>, into: &mut Vec<u8>) -> Result<Expect, Fault> {
        let fault = |why: String| Fault::frame(0, why);
        let named =
            || cx.device.and_then(|name| name.as_bytes().try_into().ok()).map(|vin| (Text::Of2016, vin));
        let (text, mut vin) = self
            .peer
            .or_else(named)
            .ok_or_else(|| fault("the vehicle has not said anything yet".to_owned()))?;
        let mut kind = down.kind;
        // To one of a platform's vehicles.
        if let Some((other, rest)) = kind.split_once('/')
            && self.is_platform
        {
            let wrong = |_| fault(format!("{other:?} is no VIN"));
            (vin, kind) = (other.as_bytes().try_into().map_err(wrong)?, rest);
        }
        let down = Down { kind, ..*down };
        let (command, unit) = down::encode(&down, text, now(cx.wall_ms)).map_err(fault)?;
        frame::seal(text, &vin, command, COMMAND, &unit, into)?;
        let is_answered = matches!(command, 0x80..=0x82);
        Ok(if is_answered { Expect::Reply(command.into()) } else { Expect::Nothing })
    }

    fn max_frame(&self) -> usize {
        self.max_frame
    }
}
