//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), for enhanced authentication.
//!
//! ```text
//! client                                      server
//! n,,n=user,r=CNONCE                 ->
//!                                    <-       r=CNONCE+SNONCE,s=SALT,i=ITERATIONS
//! c=biws,r=CNONCE+SNONCE,p=PROOF     ->
//!                                    <-       v=SIGNATURE
//! ```
//!
//! No channel binding is offered. An unknown user is answered like a known one, with a salt that is always the same for
//! that name, and fails at the proof.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use gateway::Refusal;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::attempt::Outcome;
use crate::grant::Grant;

/// The method's name (RFC 7677, 4).
pub(crate) const METHOD: &str = "SCRAM-SHA-256";
/// More than the 4096 that RFC 7677, 4 demands at least; the work is the client's, which may be a small device.
const ITERATIONS: u32 = 10_000;
/// Longest message of a client in bytes.
const MAX_MESSAGE: usize = 4096;
/// Bytes of the server's part of the nonce before base64.
const NONCE: usize = 18;

type Hash = [u8; 32];

fn hmac(key: &[u8], data: &[&[u8]]) -> Hash {
    // HMAC takes keys of every length; the error type is that of ciphers.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    data.iter().for_each(|d| mac.update(d));
    mac.finalize().into_bytes().into()
}

/// What the server keeps of a password (RFC 5802, 3): not enough to log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Hash,
    server_key: Hash,
}

impl Verifier {
    /// Of a password, prepared as RFC 4013 says.
    pub(crate) fn new(password: &str, salt: &[u8]) -> Result<Verifier, String> {
        let password = stringprep::saslprep(password)
            .map_err(|_| "the password holds characters that SCRAM-SHA-256 forbids (RFC 4013)".to_owned())?;
        let mut salted: Hash = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, ITERATIONS, &mut salted)
            .map_err(|_| "pbkdf2 failed".to_owned())?;
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        let server_key = hmac(&salted, &[b"Server Key"]);
        Ok(Verifier { salt: salt.to_vec(), iterations: ITERATIONS, stored_key, server_key })
    }

    /// What an unknown user is shown: the same for a name each time. No proof fits its keys but by guessing a hash.
    fn nobody(key: &[u8; 32], name: &str) -> Verifier {
        let salt = hmac(key, &[b"salt", name.as_bytes()])[..16].to_vec();
        let stored_key = hmac(key, &[b"stored", name.as_bytes()]);
        Verifier { salt, iterations: ITERATIONS, stored_key, server_key: stored_key }
    }

    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    pub(crate) fn decode(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix(METHOD)?.strip_prefix('$')?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok().filter(|i| (4096..=10_000_000).contains(i))?;
        let salt = BASE64.decode(salt).ok().filter(|s| !s.is_empty())?;
        Some(Verifier { salt, iterations, stored_key: key(stored)?, server_key: key(server)? })
    }

    pub(crate) fn encode(&self) -> String {
        let Verifier { salt, iterations, stored_key, server_key } = self;
        let (salt, stored, server) =
            (BASE64.encode(salt), BASE64.encode(stored_key), BASE64.encode(server_key));
        format!("{METHOD}${iterations}:{salt}${stored}:{server}")
    }
}

/// What a step of an enhanced authentication brought.
#[derive(Debug)]
pub enum Step {
    /// It goes on: the client answers this.
    Challenge(Bytes),
    /// The client has proven its name; it is told this, which proves the server's.
    Done(Grant, Bytes),
    /// It has not.
    Deny(Refusal),
}

/// An enhanced authentication under way.
pub struct Exchange {
    state: State,
    nonce: [u8; NONCE],
    fallback: [u8; 32],
    outcome: Outcome,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exchange(SCRAM-SHA-256)")
    }
}

enum State {
    Start { asked: bool },
    Proof(Box<Proof>),
    Over,
}

struct Proof {
    username: String,
    /// None for a user that is unknown or has no keys.
    is_known: bool,
    verifier: Verifier,
    header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    pub(crate) fn new(nonce: [u8; NONCE], fallback: [u8; 32], outcome: Outcome) -> Exchange {
        Exchange { state: State::Start { asked: false }, nonce, fallback, outcome }
    }

    /// The client's next data.
    pub fn step(&mut self, data: &[u8]) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            // The client speaks first; one that does not is asked to, once (RFC 4422, 5).
            State::Start { asked: false } if data.is_empty() => {
                self.state = State::Start { asked: true };
                Step::Challenge(Bytes::new())
            }
            State::Start { .. } => match self.first(data) {
                Some(proof) => {
                    let challenge = Bytes::copy_from_slice(proof.server_first.as_bytes());
                    self.state = State::Proof(Box::new(proof));
                    Step::Challenge(challenge)
                }
                None => Step::Deny(Refusal::BadCredentials),
            },
            State::Proof(proof) => self.last(&proof, data),
            State::Over => Step::Deny(Refusal::BadCredentials),
        }
    }

    /// `gs2-header client-first-message-bare` (RFC 5802, 7).
    fn first(&self, data: &[u8]) -> Option<Proof> {
        let text = text(data)?;
        let (flag, rest) = text.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        // `p=` asks for a channel binding, which was not offered.
        if flag != "n" && flag != "y" {
            return None;
        }
        let mut fields = bare.split(',');
        let username = unescape(fields.next()?.strip_prefix("n=")?)?;
        let client_nonce =
            fields.next()?.strip_prefix("r=").filter(|n| !n.is_empty() && n.bytes().all(is_printable))?;
        let is_self = |a: &str| a.strip_prefix("a=").and_then(unescape).is_some_and(|a| a == username);
        if !(authzid.is_empty() || is_self(authzid)) || !self.outcome.may_be(&username) {
            return None;
        }
        let found = self.outcome.users().scram(&username).cloned();
        let is_known = found.is_some();
        let key = self.outcome.users().key().unwrap_or(self.fallback);
        let nobody = Verifier::nobody(&key, &username);
        let verifier = found.unwrap_or(nobody);
        let nonce = format!("{client_nonce}{}", BASE64.encode(self.nonce));
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let header = format!("{flag},{authzid},");
        let client_first_bare = bare.to_owned();
        Some(Proof { username, is_known, verifier, header, client_first_bare, server_first, nonce })
    }

    fn last(&self, proof: &Proof, data: &[u8]) -> Step {
        let Some(signature) = signature(proof, data).filter(|_| proof.is_known) else {
            self.outcome.failed(Some(&proof.username));
            return Step::Deny(Refusal::BadCredentials);
        };
        match self.outcome.user(&proof.username) {
            Ok(grant) => Step::Done(grant, format!("v={}", BASE64.encode(signature)).into()),
            Err(why) => Step::Deny(why),
        }
    }
}

/// The server's signature, if `data` is a `client-final-message` with the right proof (RFC 5802, 3).
fn signature(proof: &Proof, data: &[u8]) -> Option<Hash> {
    let (without_proof, client_proof) = text(data)?.rsplit_once(",p=")?;
    let mut fields = without_proof.split(',');
    let header = BASE64.decode(fields.next()?.strip_prefix("c=")?).ok()?;
    let nonce = fields.next()?.strip_prefix("r=")?;
    if header != proof.header.as_bytes() || nonce != proof.nonce {
        return None;
    }
    let client_proof: Hash = BASE64.decode(client_proof).ok()?.try_into().ok()?;
    let message: [&[u8]; 5] = [
        proof.client_first_bare.as_bytes(),
        b",",
        proof.server_first.as_bytes(),
        b",",
        without_proof.as_bytes(),
    ];
    let client_signature = hmac(&proof.verifier.stored_key, &message);
    let client_key: Hash = std::array::from_fn(|i| client_proof[i] ^ client_signature[i]);
    let stored_key: Hash = Sha256::digest(client_key).into();
    bool::from(stored_key.ct_eq(&proof.verifier.stored_key))
        .then(|| hmac(&proof.verifier.server_key, &message))
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok().filter(|t| t.len() <= MAX_MESSAGE && !t.contains('\0'))
}

/// `printable` of RFC 5802, 7: ASCII without the comma.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b','
}

/// `saslname`: `=2C` is a comma and `=3D` an equals sign (RFC 5802, 5.1). No other `=` may stand there.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match part {
            _ if part.starts_with("2C") => (',', &part[2..]),
            _ if part.starts_with("3D") => ('=', &part[2..]),
            _ => return None,
        };
        plain.push(c);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_holds() {
        // RFC 7677, 3: user "user", password "pencil".
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let mut salted: Hash = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(b"pencil", &salt, 4096, &mut salted).unwrap();
        let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
        let verifier =
            Verifier { salt, iterations: 4096, stored_key, server_key: hmac(&salted, &[b"Server Key"]) };
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = Proof {
            username: "user".to_owned(),
            is_known: true,
            verifier,
            header: "n,,".to_owned(),
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned(),
            server_first: format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            nonce: nonce.to_owned(),
        };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let signed = signature(&proof, last.as_bytes()).unwrap();
        assert_eq!(BASE64.encode(signed), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        for bad in [
            last.replace("p=d", "p=e"),
            last.replace("biws", "eSws"),
            last.replace("hvYD", "hvYE"),
            "c=biws".to_owned(),
            String::new(),
        ] {
            assert!(signature(&proof, bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_verifier_survives_its_text() {
        let v = Verifier::new("pencil", b"0123456789abcdef").unwrap();
        assert_eq!(Verifier::decode(&v.encode()), Some(v));
        for bad in ["", "SCRAM-SHA-256$1:YQ==$YQ==:YQ==", "SCRAM-SHA-1$4096:YQ==$YQ==:YQ=="] {
            assert_eq!(Verifier::decode(bad), None);
        }
    }

    #[test]
    fn names_are_unescaped_and_nothing_else_is() {
        assert_eq!(unescape("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
        assert_eq!(unescape("a=2c"), None);
        assert_eq!(unescape("a="), None);
        assert_eq!(unescape("a=é"), None);
        assert_eq!(unescape(""), None);
    }

    #[test]
    fn an_unknown_name_has_the_same_salt_each_time_and_its_own() {
        let (a, b) = (Verifier::nobody(&[7; 32], "a"), Verifier::nobody(&[7; 32], "b"));
        assert_eq!(a, Verifier::nobody(&[7; 32], "a"));
        assert_ne!(a.salt, b.salt);
        assert_eq!((a.salt.len(), a.iterations), (16, ITERATIONS));
    }
}
