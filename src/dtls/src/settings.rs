//! What an operator can set, and what of it is wrong.

use std::fmt;
use std::time::Duration;

/// A cipher suite by its number at IANA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suite(pub u16);

/// All that the engine has and that can be parked: AEAD only. In order of preference: forward secrecy first, which a
/// device that offers it can afford; then what a small one most likely has in hardware. Raw public keys and RFC 8442
/// are not in Mbed TLS 3.6, so the one ECDHE_PSK suite is RFC 7905's.
const SUITES: &[(u16, &str)] = &[
    (0xccac, "ECDHE-PSK-CHACHA20-POLY1305"),
    (0xc0a8, "PSK-AES128-CCM8"),
    (0xc0a4, "PSK-AES128-CCM"),
    (0x00a8, "PSK-AES128-GCM"),
    (0xc0a9, "PSK-AES256-CCM8"),
    (0xc0a5, "PSK-AES256-CCM"),
    (0x00a9, "PSK-AES256-GCM"),
    (0xccab, "PSK-CHACHA20-POLY1305"),
    (0xc0ae, "ECDHE-ECDSA-AES128-CCM8"),
    (0xc0ac, "ECDHE-ECDSA-AES128-CCM"),
    (0xc02b, "ECDHE-ECDSA-AES128-GCM"),
    (0xc0af, "ECDHE-ECDSA-AES256-CCM8"),
    (0xc0ad, "ECDHE-ECDSA-AES256-CCM"),
    (0xc02c, "ECDHE-ECDSA-AES256-GCM"),
    (0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (0xc02f, "ECDHE-RSA-AES128-GCM"),
    (0xc030, "ECDHE-RSA-AES256-GCM"),
    (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
];

impl Suite {
    /// Every suite there is, the preferred first.
    pub fn all() -> impl Iterator<Item = Suite> {
        SUITES.iter().map(|&(n, _)| Suite(n))
    }

    /// The suite of this name.
    pub fn named(name: &str) -> Option<Suite> {
        SUITES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|&(n, _)| Suite(n))
    }

    /// Its name, `unknown` if it is none of ours.
    pub fn name(self) -> &'static str {
        SUITES.iter().find(|(n, _)| *n == self.0).map_or("unknown", |(_, name)| name)
    }

    /// Whether the peer proves itself with a pre-shared key.
    pub fn is_psk(self) -> bool {
        self.name().contains("PSK")
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The server's certificate, and whose clients it trusts. PEM, several certificates in a row.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The server's certificate, then those between it and the root.
    pub chain_pem: Vec<u8>,
    /// Its private key, not encrypted.
    pub key_pem: Vec<u8>,
    /// Authorities of client certificates. Without them no certificate is asked for.
    pub client_ca_pem: Option<Vec<u8>>,
    /// Whether a client without a certificate is turned away (one with a PSK suite never needs one).
    pub require: bool,
}

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest datagram sent, without headers of IP and UDP, in bytes. RFC 7252, 4.6: 1,280 less 48.
    pub mtu: u16,
    /// Retransmission of a flight: first after this (RFC 6347, 4.2.4.1).
    pub retransmit_first: Duration,
    /// Doubled until more than this, then the handshake is given up.
    pub retransmit_last: Duration,
    /// A handshake that takes longer than this is given up, whatever comes.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once; the oldest of the host that has most makes room.
    pub max_half_open: usize,
    /// Associations at once; an idle one makes room.
    pub max_associations: usize,
    /// Associations of one identity; the oldest makes room.
    pub max_per_identity: usize,
    /// An association is parked after so much time without a record.
    pub park_after: Duration,
    /// The secret of cookies is changed so often; a cookie is good for one to two such periods.
    pub cookie_rotation: Duration,
    /// Whether `Keep`, `KeepNumbers` and `Forget` are told.
    pub durable: bool,
    /// Outgoing record numbers reserved at a time.
    pub number_block: u64,
    /// Suites, the preferred first. Those with certificates need `certificates`.
    pub suites: Vec<Suite>,
    /// The server's certificate.
    pub certificates: Option<Certificates>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mtu: 1280 - 48,
            retransmit_first: Duration::from_secs(1),
            retransmit_last: Duration::from_secs(16),
            handshake_timeout: Duration::from_secs(60),
            max_half_open: 4096,
            max_associations: 1_000_000,
            max_per_identity: 4,
            park_after: Duration::from_secs(30),
            cookie_rotation: Duration::from_secs(60),
            durable: true,
            number_block: 1 << 16,
            suites: Suite::all().collect(),
            certificates: None,
        }
    }
}

/// What cannot be as it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingsError {
    /// A record's header and a byte do not fit, or the datagram is longer than a record of the engine.
    Mtu,
    /// A limit or duration of 0, or the last retransmission before the first.
    Zero,
    /// A suite is none of ours, or there is none that can be used.
    Suites,
    /// The certificate chain cannot be read.
    Chain,
    /// The private key cannot be read.
    Key,
    /// The key is not the certificate's.
    KeyOfAnother,
    /// The authorities of clients cannot be read.
    ClientAuthorities,
    /// The kernel gives no random bytes.
    Random,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SettingsError::Mtu => "the MTU must be 256 to 4096 bytes",
            SettingsError::Zero => "a limit or a duration is 0, or the last retransmission before the first",
            SettingsError::Suites => "a cipher suite is not known, or none can be used without a certificate",
            SettingsError::Chain => "the certificate chain cannot be read",
            SettingsError::Key => "the private key cannot be read",
            SettingsError::KeyOfAnother => "the private key is not that of the certificate",
            SettingsError::ClientAuthorities => "the client authorities cannot be read",
            SettingsError::Random => "the kernel gives no random bytes",
        })
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Check what can be checked without the engine; the suites that can be used.
    pub(crate) fn check(&self) -> Result<Vec<u16>, SettingsError> {
        if !(256..=4096).contains(&self.mtu) {
            return Err(SettingsError::Mtu);
        }
        let limits = [self.max_half_open, self.max_associations, self.max_per_identity];
        let times = [self.retransmit_first, self.handshake_timeout, self.park_after, self.cookie_rotation];
        if limits.contains(&0)
            || times.iter().any(|t| t.as_millis() == 0)
            || self.number_block < 2
            || self.retransmit_last < self.retransmit_first
        {
            return Err(SettingsError::Zero);
        }
        if self.suites.iter().any(|s| s.name() == "unknown") {
            return Err(SettingsError::Suites);
        }
        let has_certificate = self.certificates.is_some();
        let usable: Vec<u16> =
            self.suites.iter().filter(|s| s.is_psk() || has_certificate).map(|s| s.0).collect();
        if usable.is_empty() { Err(SettingsError::Suites) } else { Ok(usable) }
    }
}
