//! A listener's certificate, key and client authorities: read at start and again on SIGHUP. A connection keeps what it
//! began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use crate::config;
use crate::layer::{Layer, Refused, tls::Tls};

/// Largest file read.
const FILE: u64 = 16 << 20;

/// See the module.
pub struct TlsConfig {
    setup: config::Tls,
    protocol: &'static str,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why a listener's TLS cannot be used, in the operator's words: which file, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    file: PathBuf,
    text: String,
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.text)
    }
}

impl std::error::Error for TlsError {}

impl TlsConfig {
    /// Reads the files. `protocol` is the one of the listener's gateway.
    pub fn load(setup: &config::Tls, protocol: &'static str) -> Result<TlsConfig, TlsError> {
        let current = RwLock::new(Arc::new(read(setup, protocol)?));
        Ok(TlsConfig { setup: setup.clone(), protocol, current })
    }

    /// Reads the files again, for new connections. If anything is wrong with them, everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(read(&self.setup, self.protocol)?);
        *self.current.write() = new;
        Ok(())
    }

    /// The layer of a new connection.
    pub fn accept(&self) -> Box<dyn Layer> {
        match UnbufferedServerConnection::new(self.current()) {
            Ok(connection) => Box::new(Tls::new(connection)),
            // rustls refuses only settings that `read` does not make.
            Err(error) => Box::new(Refused(error.to_string())),
        }
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }
}

fn read(setup: &config::Tls, protocol: &str) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&setup.certificate)?;
    let key = key(&setup.key)?;
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = if setup.only_1_3 { &[&TLS13] } else { &[&TLS12, &TLS13] };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| error(&setup.certificate, e))?;
    let builder = match &setup.client_ca {
        Some(file) => builder.with_client_cert_verifier(verifier(file, setup.require_client_certificate)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            let text = format!("is not the key of the certificate in {}", setup.certificate.display());
            error(&setup.key, text)
        }
        rustls::Error::InvalidCertificate(e) => error(&setup.certificate, e),
        other => error(&setup.key, other),
    })?;
    // What a client may name (RFC 7301): the protocol itself (`mqtt`; `coap` by RFC 8323, 8.2), and HTTP for what becomes
    // a WebSocket.
    config.alpn_protocols = vec![protocol.as_bytes().to_vec(), b"http/1.1".to_vec()];
    // Devices that come back resume by a ticket that they keep; the server keeps nothing for them.
    config.ticketer = ring::Ticketer::new().map_err(|e| error(&setup.key, e))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn verifier(file: &Path, is_required: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|e| error(file, e))?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| error(file, e))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = contents(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|e| error(file, format!("is not PEM: {e}")))?;
    if all.is_empty() {
        return Err(error(file, "holds no certificate (no section `BEGIN CERTIFICATE`)"));
    }
    Ok(all)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;
    PrivateKeyDer::from_pem_slice(&contents(file)?).map_err(|e| match e {
        Error::NoItemsFound => {
            let text =
                "holds no private key (no section `BEGIN PRIVATE KEY`; an encrypted one cannot be used)";
            error(file, text)
        }
        other => error(file, format!("is not PEM: {other}")),
    })
}

fn contents(file: &Path) -> Result<Vec<u8>, TlsError> {
    let size = std::fs::metadata(file).map_err(|e| error(file, format!("cannot be read: {e}")))?.len();
    if size > FILE {
        return Err(error(file, format!("is too large: {size} bytes, at most {FILE}")));
    }
    std::fs::read(file).map_err(|e| error(file, format!("cannot be read: {e}")))
}

fn error(file: &Path, text: impl std::fmt::Display) -> TlsError {
    TlsError { file: file.to_owned(), text: text.to_string() }
}
