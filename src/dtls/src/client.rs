//! The client's side of one association: for tests, benches and drivers of conformance.

use std::fmt;

use gateway::{Instant, Now};

use crate::engine::{Credentials, Engine, Failure, Host, RECORD_MAX, Session};
use crate::settings::Suite;

/// How a client proves itself.
#[derive(Clone, Debug)]
pub enum Proof {
    /// With a pre-shared key.
    Psk {
        /// Its identity.
        identity: Vec<u8>,
        /// Its key.
        key: Vec<u8>,
    },
    /// With a certificate, or with none if `chain_pem` is empty.
    Certificate {
        /// The certificate.
        chain_pem: Vec<u8>,
        /// Its private key.
        key_pem: Vec<u8>,
        /// Whom it trusts.
        ca_pem: Vec<u8>,
        /// The name that the server's certificate must have.
        host: String,
    },
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Who it is.
    pub proof: Proof,
    /// The suites it offers.
    pub suites: Vec<Suite>,
    /// The connection id under which it wants to be written to: empty if it only wants to use one, none if it knows
    /// nothing of connection ids. At most eight bytes.
    pub cid: Option<Vec<u8>>,
    /// The longest datagram it sends.
    pub mtu: u16,
}

impl ClientSettings {
    /// A client with this key that knows connection ids and offers every PSK suite.
    pub fn psk(identity: &[u8], key: &[u8]) -> Self {
        ClientSettings {
            proof: Proof::Psk { identity: identity.to_vec(), key: key.to_vec() },
            suites: Suite::all().filter(|s| s.is_psk()).collect(),
            cid: Some(Vec::new()),
            mtu: 1232,
        }
    }
}

/// Why a client cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The settings are of no use to the engine.
    Settings,
    /// The server said goodbye.
    Closed,
    /// The server sent a fatal alert.
    Alert,
    /// The server's Finished or certificate is not right, or it did not answer.
    Failed(i32),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Settings => f.write_str("the settings are of no use"),
            ClientError::Closed => f.write_str("the server closed the association"),
            ClientError::Alert => f.write_str("the server sent a fatal alert"),
            ClientError::Failed(error) => write!(f, "the engine gave up: -0x{:04x}", error.unsigned_abs()),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Failure> for ClientError {
    fn from(f: Failure) -> Self {
        match f {
            Failure::CloseNotify => ClientError::Closed,
            Failure::Alert => ClientError::Alert,
            Failure::WrongKey => ClientError::Failed(-1),
            Failure::Timeout => ClientError::Failed(-2),
            Failure::Other(error) => ClientError::Failed(error),
        }
    }
}

/// One association from the client's side.
pub struct Client {
    engine: Engine,
    session: Session,
    is_open: bool,
}

struct Out<'a>(&'a mut Vec<Vec<u8>>);

impl Host for Out<'_> {
    fn send(&mut self, datagram: &[u8]) {
        self.0.push(datagram.to_vec());
    }
}

impl Client {
    /// A client that has not said anything.
    pub fn new(settings: &ClientSettings) -> Result<Client, ClientError> {
        let suites: Vec<u16> = settings.suites.iter().map(|s| s.0).collect();
        let cid = settings.cid.as_deref();
        let mut engine =
            Engine::new(false, &suites, (1000, 16_000), cid.map_or(0, <[u8]>::len), settings.mtu)
                .map_err(|_| ClientError::Settings)?;
        let host = match &settings.proof {
            Proof::Psk { identity, key } => {
                engine.psk(identity, key).map_err(|_| ClientError::Settings)?;
                None
            }
            Proof::Certificate { chain_pem, key_pem, ca_pem, host } => {
                let c = Credentials { chain: chain_pem, key: key_pem, ca: ca_pem, verify: 2 };
                engine.credentials(&c).map_err(|_| ClientError::Settings)?;
                Some(host.as_str())
            }
        };
        let session = engine.session(cid, host).ok_or(ClientError::Settings)?;
        Ok(Client { engine, session, is_open: false })
    }

    /// Whether the handshake is over.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Begin, or go on because `next_timeout` has come.
    pub fn timeout(&mut self, now: Now, send: &mut Vec<Vec<u8>>) -> Result<(), ClientError> {
        self.receive(now, &[], send, &mut Vec::new())
    }

    /// When `timeout` is to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.session.deadline()
    }

    /// A datagram came: what it makes the client send, and the payloads in it.
    pub fn receive(
        &mut self,
        now: Now,
        datagram: &[u8],
        send: &mut Vec<Vec<u8>>,
        payloads: &mut Vec<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let mut input = datagram;
        if !self.is_open {
            self.is_open = self.engine.handshake(&mut self.session, now, input, &mut Out(send))?;
            input = &[];
        }
        if !self.is_open {
            return Ok(());
        }
        let mut plain = [0; RECORD_MAX];
        while let Some(n) = self.engine.read(&mut self.session, now, input, &mut Out(send), &mut plain)? {
            payloads.push(plain.get(..n).unwrap_or_default().to_vec());
            input = &[];
        }
        Ok(())
    }

    /// `payload` as one datagram.
    pub fn seal(&mut self, now: Now, payload: &[u8]) -> Result<Vec<u8>, ClientError> {
        let mut out = Vec::new();
        self.engine.write(&mut self.session, now, payload, &mut Out(&mut out))?;
        out.pop().ok_or(ClientError::Failed(0))
    }

    /// The datagram that says goodbye.
    pub fn close(&mut self, now: Now) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.engine.close_notify(&mut self.session, now, &mut Out(&mut out));
        out.pop()
    }

    /// The negotiated suite.
    pub fn suite(&self) -> Suite {
        Suite(self.session.suite())
    }
}
