//! What a device says, and its JSON form, which samples, scripts and `tidegate codec try` share:
//!
//! ```json
//! {"login": {"device": "d1", "username": "u", "password": "p"}}
//! {"kind": "location", "data": {"lat": 51.5}}
//! {"kind": "data", "hex": "01 ff"}
//! {"reply": {"key": 7, "ok": true, "data": {"interval": 60}}}
//! {"heartbeat": {}}
//! {"logout": {}}
//! ```
//!
//! A login may have `"token": "…"` in place of a password, or `"issue": true`: see [`Credential`].

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a device says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Up {
    /// Who it is. Nothing of a device is published before.
    Login(Login),
    /// A value to publish.
    Data(Data),
    /// Its answer to a command.
    Reply(Reply),
    /// It is there.
    Heartbeat,
    /// It goes.
    Logout,
}

/// See [`Up::Login`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The device's name in topics, and its client id: an IMEI, a phone number.
    pub device: Box<str>,
    /// The user name; the device's name if there is none.
    pub username: Option<Box<str>>,
    /// What it proves itself with.
    pub credential: Credential,
}

/// What a device proves itself with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: the listener's rules say whether that is enough.
    #[default]
    None,
    /// A password.
    Password(Bytes),
    /// What it was issued before.
    Token(Bytes),
    /// Nothing yet, and if it is let in, the token of this call's [`crate::Context`] is its own from now on.
    Issue,
}

/// See [`Up::Data`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// What it is: a topic level, or several.
    pub kind: Cow<'static, str>,
    /// The value.
    pub value: Bytes,
    /// Whether it is JSON; if not, bytes as they came.
    pub is_json: bool,
}

impl Data {
    /// A value that is written as JSON.
    pub fn json(kind: impl Into<Cow<'static, str>>, value: &impl Serialize) -> Data {
        // What codecs make are structs, lists and maps with text for keys: these can always be written.
        let value = serde_json::to_vec(value).unwrap_or_default().into();
        Data { kind: kind.into(), value, is_json: true }
    }
}

/// See [`Up::Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// As [`crate::Expect::Reply`] said.
    pub key: u64,
    /// Whether the device has done what it was told.
    pub is_ok: bool,
    /// What it answered, in JSON; empty is nothing.
    pub value: Bytes,
}

/// What is wrong with the JSON form of an [`Up`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUp(pub String);

impl fmt::Display for BadUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The JSON form; exactly one of the names before `data` is there.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    login: Option<LoginForm<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reply: Option<ReplyForm<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat: Option<Empty>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logout: Option<Empty>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LoginForm<'a> {
    device: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    issue: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReplyForm<'a> {
    key: u64,
    #[serde(default = "yes")]
    ok: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(b: &bool) -> bool {
    !*b
}

fn yes() -> bool {
    true
}

impl Up {
    /// Reads the JSON form.
    pub fn from_json(json: &[u8]) -> Result<Up, BadUp> {
        let form: Form<'_> = serde_json::from_slice(json).map_err(|e| BadUp(e.to_string()))?;
        let bad = |text: &str| Err(BadUp(text.to_owned()));
        match form {
            Form {
                login: Some(l),
                kind: None,
                reply: None,
                heartbeat: None,
                logout: None,
                data: None,
                hex: None,
            } => l.read().map(Up::Login),
            Form { kind: Some(kind), login: None, reply: None, heartbeat: None, logout: None, data, hex } => {
                let (value, is_json) = match (data, hex) {
                    (Some(data), None) => (Bytes::copy_from_slice(data.get().as_bytes()), true),
                    (None, Some(hex)) => (crate::hex::decode(&hex).map_err(BadUp)?.into(), false),
                    _ => return bad("`kind` needs either `data` or `hex`"),
                };
                Ok(Up::Data(Data { kind: kind.into_owned().into(), value, is_json }))
            }
            Form {
                reply: Some(r),
                login: None,
                kind: None,
                heartbeat: None,
                logout: None,
                data: None,
                hex: None,
            } => {
                let value = r.data.map_or(Bytes::new(), |d| Bytes::copy_from_slice(d.get().as_bytes()));
                Ok(Up::Reply(Reply { key: r.key, is_ok: r.ok, value }))
            }
            Form {
                heartbeat: Some(_),
                login: None,
                kind: None,
                reply: None,
                logout: None,
                data: None,
                hex: None,
            } => Ok(Up::Heartbeat),
            Form {
                logout: Some(_),
                login: None,
                kind: None,
                reply: None,
                heartbeat: None,
                data: None,
                hex: None,
            } => Ok(Up::Logout),
            _ => bad("needs exactly one of `login`, `kind`, `reply`, `heartbeat` and `logout`"),
        }
    }

    /// Writes the JSON form.
    pub fn to_json(&self) -> String {
        let none = || Form {
            login: None,
            kind: None,
            reply: None,
            heartbeat: None,
            logout: None,
            data: None,
            hex: None,
        };
        let raw = |value: &Bytes| -> Option<Box<RawValue>> {
            let text = std::str::from_utf8(value).ok()?;
            RawValue::from_string(text.to_owned()).ok()
        };
        let value;
        let form = match self {
            Up::Login(l) => Form { login: Some(LoginForm::write(l)), ..none() },
            Up::Data(d) => {
                value = if d.is_json { raw(&d.value) } else { None };
                let hex = value.is_none().then(|| crate::hex::encode(&d.value).into());
                Form { kind: Some(Cow::Borrowed(&d.kind)), data: value.as_deref(), hex, ..none() }
            }
            Up::Reply(r) => {
                value = raw(&r.value);
                let reply = ReplyForm { key: r.key, ok: r.is_ok, data: value.as_deref() };
                Form { reply: Some(reply), ..none() }
            }
            Up::Heartbeat => Form { heartbeat: Some(Empty {}), ..none() },
            Up::Logout => Form { logout: Some(Empty {}), ..none() },
        };
        serde_json::to_string(&form).unwrap_or_default()
    }
}

impl<'a> LoginForm<'a> {
    fn read(self) -> Result<Login, BadUp> {
        let bytes = |text: Cow<'_, str>| Bytes::copy_from_slice(text.as_bytes());
        let credential = match (self.password, self.token, self.issue) {
            (None, None, false) => Credential::None,
            (Some(password), None, false) => Credential::Password(bytes(password)),
            (None, Some(token), false) => Credential::Token(bytes(token)),
            (None, None, true) => Credential::Issue,
            _ => {
                return Err(BadUp("`login` needs at most one of `password`, `token` and `issue`".to_owned()));
            }
        };
        let username = self.username.map(|u| u.into_owned().into());
        Ok(Login { device: self.device.into_owned().into(), username, credential })
    }

    fn write(l: &'a Login) -> LoginForm<'a> {
        let mut form = LoginForm {
            device: Cow::Borrowed(&l.device),
            username: l.username.as_deref().map(Cow::Borrowed),
            password: None,
            token: None,
            issue: false,
        };
        match &l.credential {
            Credential::None => {}
            Credential::Password(p) => form.password = Some(String::from_utf8_lossy(p)),
            Credential::Token(t) => form.token = Some(String::from_utf8_lossy(t)),
            Credential::Issue => form.issue = true,
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for json in [
            r#"{"login":{"device":"d1"}}"#,
            r#"{"login":{"device":"d1","username":"u","password":"p"}}"#,
            r#"{"login":{"device":"d1","token":"t"}}"#,
            r#"{"login":{"device":"d1","issue":true}}"#,
            r#"{"kind":"a/b","data":{"b": 1, "a": 1.50}}"#,
            r#"{"kind":"data","hex":"01ff"}"#,
            r#"{"reply":{"key":7,"ok":false,"data":[1]}}"#,
            r#"{"heartbeat":{}}"#,
            r#"{"logout":{}}"#,
        ] {
            assert_eq!(Up::from_json(json.as_bytes()).map(|up| up.to_json()), Ok(json.to_owned()));
        }
    }

    #[test]
    fn what_is_no_up_says_what_is_wrong() {
        for (json, why) in [
            ("7", "invalid type"),
            ("{}", "exactly one of"),
            (r#"{"kind":"a"}"#, "either `data` or `hex`"),
            (r#"{"kind":"a","hex":"0g"}"#, "hexadecimal"),
            (r#"{"kind":"a","data":1,"logout":{}}"#, "exactly one of"),
            (r#"{"login":{"device":"d","token":"t","issue":true}}"#, "at most one of"),
            (r#"{"knid":"a","data":1}"#, "unknown field `knid`"),
        ] {
            let BadUp(text) = Up::from_json(json.as_bytes()).unwrap_err();
            assert!(text.contains(why), "{json}: {text}");
        }
    }
}
