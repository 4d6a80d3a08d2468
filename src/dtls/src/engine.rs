//! The engine: Mbed TLS behind safe types. A [`Session`] is one association's cryptographic state; every call on one
//! goes through the [`Engine`] it was made by, so that two threads never use one configuration at once.
#![allow(unsafe_code, reason = "Mbed TLS is C; each block says why it is sound")]

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use gateway::Now;
use zeroize::Zeroize;

mod ffi;

/// Longest plain text of a record here; what the configuration of Mbed TLS gives its buffers.
pub(crate) const RECORD_MAX: usize = 4096;

// Of mbedtls/ssl.h and mbedtls/error.h.
const WANT_READ: i32 = -0x6900;
const WANT_WRITE: i32 = -0x6880;
const PEER_CLOSE_NOTIFY: i32 = -0x7880;
const FATAL_ALERT_MESSAGE: i32 = -0x7780;
const INVALID_MAC: i32 = -0x7180;
const TIMEOUT: i32 = -0x6800;

/// Where the library's patch version stands in a saved context.
const BLOB_PATCH: usize = 2;

/// Why a session could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The peer said goodbye.
    CloseNotify,
    /// The peer sent a fatal alert.
    Alert,
    /// The peer's Finished does not fit: another key than ours.
    WrongKey,
    /// No answer to the last retransmission.
    Timeout,
    /// Anything else: the error of Mbed TLS.
    Other(i32),
}

impl Failure {
    fn of(error: i32) -> Self {
        match error {
            PEER_CLOSE_NOTIFY => Failure::CloseNotify,
            FATAL_ALERT_MESSAGE => Failure::Alert,
            INVALID_MAC => Failure::WrongKey,
            TIMEOUT => Failure::Timeout,
            other => Failure::Other(other),
        }
    }
}

/// What the engine tells and asks in the course of a call.
pub(crate) trait Host {
    /// Send this to the peer.
    fn send(&mut self, datagram: &[u8]);
    /// Write the key of `identity` and return its length; 0 refuses.
    fn key(&mut self, _identity: &[u8], _key: &mut [u8]) -> usize {
        0
    }
    /// The peer's certificate is good: the SHA-256 of its DER, and its subject's common name.
    fn certificate(&mut self, _fingerprint: [u8; 32], _name: Option<&[u8]>) {}
}

/// Record numbers of a session, without the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The highest number received and authenticated.
    pub(crate) window_top: u64,
    /// Bit n: `window_top - n` was received.
    pub(crate) window: u64,
    /// The number of the next record sent.
    pub(crate) next_out: u64,
}

/// Certificates as PEM or DER.
pub(crate) struct Credentials<'a> {
    pub(crate) chain: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) ca: &'a [u8],
    /// 0 no certificate is asked for, 1 it may be missing, 2 required.
    pub(crate) verify: i32,
}

/// What is wrong with the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Suites,
    Chain,
    Key,
    Authorities,
    Pair,
}

struct Config(NonNull<ffi::Config>);

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: made by tg_config_new, and no session is left: each holds the Arc around this.
        unsafe { ffi::tg_config_free(self.0.as_ptr()) }
    }
}

// SAFETY: the configuration has no ties to a thread. It is only used by calls that hold `&mut Engine`, and an engine is
// not cloned; a session that outlives its engine can only be freed, which reads constants of the configuration.
unsafe impl Send for Config {}
// SAFETY: as above; nothing is done through `&Config`.
unsafe impl Sync for Config {}

/// One configuration of Mbed TLS: suites, timers, credentials.
pub(crate) struct Engine {
    config: Arc<Config>,
    mtu: u16,
}

/// One association's state in the engine.
pub(crate) struct Session {
    session: NonNull<ffi::Session>,
    config: Arc<Config>,
}

// SAFETY: a session has no ties to a thread, and all use but freeing takes `&mut Engine` of its configuration.
unsafe impl Send for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: made by tg_session_new and freed once; its configuration lives as long as `self.config`.
        unsafe { ffi::tg_session_free(self.session.as_ptr()) }
    }
}

/// Fill with random bytes of the kernel. False if it has none to give.
pub(crate) fn random(into: &mut [u8]) -> bool {
    // SAFETY: writes `len` bytes at the start of the slice.
    unsafe { ffi::tg_random(ptr::null_mut(), into.as_mut_ptr(), into.len()) == 0 }
}

/// The version of Mbed TLS that is linked.
pub(crate) fn version() -> [u8; 3] {
    let mut v = [0; 3];
    // SAFETY: writes three bytes.
    unsafe { ffi::tg_version(v.as_mut_ptr()) };
    v
}

/// Give freed memory back to the kernel; takes some milliseconds.
pub(crate) fn trim() {
    // SAFETY: malloc may be told so at any time.
    unsafe { ffi::tg_trim() }
}

/// The host of a call, as the call-backs find it: a fat pointer has no place in a `void *`.
struct Port<'a>(&'a mut dyn Host);

unsafe extern "C" fn on_send(user: *mut c_void, datagram: *const u8, len: usize) {
    // SAFETY: `user` is the Port on the stack of `Engine::call`, which nothing else uses until the call is over.
    let port = unsafe { &mut *user.cast::<Port<'_>>() };
    // SAFETY: Mbed TLS hands over `len` bytes that live until this returns.
    let datagram = unsafe { slice(datagram, len) };
    // A panic must not cross C. What the host lost of it is a datagram, and datagrams get lost.
    let _ = catch_unwind(AssertUnwindSafe(|| port.0.send(datagram)));
}

unsafe extern "C" fn on_key(
    user: *mut c_void,
    id: *const u8,
    len: usize,
    key: *mut u8,
    room: usize,
) -> usize {
    // SAFETY: as in on_send.
    let port = unsafe { &mut *user.cast::<Port<'_>>() };
    // SAFETY: `len` bytes that live until this returns.
    let identity = unsafe { slice(id, len) };
    // SAFETY: an array of `room` bytes in glue.c, written before it is read, and by us alone.
    let key = unsafe {
        ptr::write_bytes(key, 0, room);
        std::slice::from_raw_parts_mut(key, room)
    };
    catch_unwind(AssertUnwindSafe(|| port.0.key(identity, key))).unwrap_or(0)
}

unsafe extern "C" fn on_certificate(user: *mut c_void, fingerprint: *const u8, name: *const u8, len: usize) {
    // SAFETY: as in on_send.
    let port = unsafe { &mut *user.cast::<Port<'_>>() };
    let mut copy = [0; 32];
    // SAFETY: glue.c hands over an array of 32 bytes.
    copy.copy_from_slice(unsafe { slice(fingerprint, 32) });
    // SAFETY: `len` bytes of the certificate, which lives until this returns; null if it has no name.
    let name = (!name.is_null()).then(|| unsafe { slice(name, len) });
    let _ = catch_unwind(AssertUnwindSafe(|| port.0.certificate(copy, name)));
}

/// A slice of C's pointer and length, where the pointer may be null if the length is 0.
///
/// # Safety
/// `len` bytes at `p` must be readable for `'a`.
unsafe fn slice<'a>(p: *const u8, len: usize) -> &'a [u8] {
    if p.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(p, len) }
}

impl Engine {
    /// An engine of the server's or the client's role. `cid_len` is the length of all its own connection ids.
    pub(crate) fn new(
        is_server: bool,
        suites: &[u16],
        timers_ms: (u32, u32),
        cid_len: usize,
        mtu: u16,
    ) -> Result<Self, Wrong> {
        // SAFETY: reads `suites.len()` numbers.
        let config = unsafe {
            ffi::tg_config_new(
                i32::from(is_server),
                suites.as_ptr(),
                suites.len(),
                timers_ms.0,
                timers_ms.1,
                cid_len,
            )
        };
        let config = NonNull::new(config).ok_or(Wrong::Suites)?;
        Ok(Engine { config: Arc::new(Config(config)), mtu })
    }

    /// Take certificates into the configuration, before the first session.
    pub(crate) fn credentials(&mut self, c: &Credentials<'_>) -> Result<(), Wrong> {
        let (chain, key, ca) = (terminated(c.chain), terminated(c.key), terminated(c.ca));
        // SAFETY: C reads the bytes given, and copies what it keeps. `&mut self`: nobody uses the configuration.
        let wrong = unsafe {
            ffi::tg_config_certificates(
                self.config.0.as_ptr(),
                chain.as_ptr(),
                chain.len(),
                key.as_ptr(),
                key.len(),
                ca.as_ptr(),
                ca.len(),
                c.verify,
            )
        };
        match wrong {
            0 => Ok(()),
            1 => Err(Wrong::Chain),
            2 => Err(Wrong::Key),
            3 => Err(Wrong::Authorities),
            _ => Err(Wrong::Pair),
        }
    }

    /// The key and identity of a client.
    pub(crate) fn psk(&mut self, identity: &[u8], key: &[u8]) -> Result<(), Wrong> {
        // SAFETY: C copies both. `&mut self`: nobody uses the configuration.
        let ret = unsafe {
            ffi::tg_config_psk(
                self.config.0.as_ptr(),
                key.as_ptr(),
                key.len(),
                identity.as_ptr(),
                identity.len(),
            )
        };
        if ret == 0 { Ok(()) } else { Err(Wrong::Key) }
    }

    /// A session before its handshake. With `cid` it offers or accepts connection ids, that one its own.
    pub(crate) fn session(&mut self, cid: Option<&[u8]>, host: Option<&str>) -> Option<Session> {
        let name = host.and_then(|h| CString::new(h).ok());
        let (p, len) = cid.map_or((ptr::null(), 0), |c| (c.as_ptr(), c.len()));
        // SAFETY: C reads the id and the name during the call only; the configuration outlives the session, which
        // holds it.
        let session = unsafe {
            ffi::tg_session_new(
                self.config.0.as_ptr(),
                self.mtu,
                p,
                len,
                i32::from(cid.is_some()),
                name.as_ref().map_or(ptr::null(), |n| n.as_ptr()),
            )
        };
        Some(Session { session: NonNull::new(session)?, config: self.config.clone() })
    }

    /// A session from a saved context. One that another patch release of 3.6 saved is taken: the format of the
    /// context has been the same in all of them, and the format bytes behind the version are still compared.
    pub(crate) fn load(&mut self, blob: &[u8]) -> Result<Session, Failure> {
        let ours = version();
        let mut copy = smallvec::SmallVec::<[u8; 1024]>::from_slice(blob);
        if let Some(saved) = copy.get_mut(..3)
            && saved[..BLOB_PATCH] == ours[..BLOB_PATCH]
        {
            saved[BLOB_PATCH] = ours[BLOB_PATCH];
        }
        let session = self.session(None, None).ok_or(Failure::Other(0))?;
        // SAFETY: C reads `copy` during the call only.
        let ret = unsafe { ffi::tg_load(session.session.as_ptr(), copy.as_ptr(), copy.len()) };
        copy.zeroize();
        if ret == 0 { Ok(session) } else { Err(Failure::Other(ret)) }
    }

    /// Go on with the handshake with what came, or with nothing because time passed. True when it is over.
    pub(crate) fn handshake(
        &mut self,
        s: &mut Session,
        now: Now,
        input: &[u8],
        host: &mut dyn Host,
    ) -> Result<bool, Failure> {
        // SAFETY: `call` gives a session of this engine and a call that lives as long as the closure runs.
        let ret = self.call(s, now, input, host, |s, call| unsafe { ffi::tg_handshake(s, call) });
        match ret {
            0 => Ok(true),
            WANT_READ | WANT_WRITE => Ok(false),
            error => Err(Failure::of(error)),
        }
    }

    /// The next record's plain text: its length, or nothing when all of `input` was read.
    pub(crate) fn read(
        &mut self,
        s: &mut Session,
        now: Now,
        input: &[u8],
        host: &mut dyn Host,
        out: &mut [u8],
    ) -> Result<Option<usize>, Failure> {
        let (p, room) = (out.as_mut_ptr(), out.len());
        // SAFETY: as in `handshake`; C writes at most `room` bytes at `p`.
        let ret = self.call(s, now, input, host, |s, call| unsafe { ffi::tg_read(s, call, p, room) });
        match ret {
            WANT_READ | WANT_WRITE => Ok(None),
            n if n >= 0 => Ok(Some(usize::try_from(n).unwrap_or(0).min(room))),
            error => Err(Failure::of(error)),
        }
    }

    /// Send `payload` in one record.
    pub(crate) fn write(
        &mut self,
        s: &mut Session,
        now: Now,
        payload: &[u8],
        host: &mut dyn Host,
    ) -> Result<(), Failure> {
        let (p, len) = (payload.as_ptr(), payload.len());
        // SAFETY: as in `handshake`; C reads `len` bytes at `p`.
        let ret = self.call(s, now, &[], host, |s, call| unsafe { ffi::tg_write(s, call, p, len) });
        if usize::try_from(ret) == Ok(len) { Ok(()) } else { Err(Failure::of(ret)) }
    }

    /// Send the alert that ends the association.
    pub(crate) fn close_notify(&mut self, s: &mut Session, now: Now, host: &mut dyn Host) {
        // SAFETY: as in `handshake`. That it could not be sent changes nothing: the association ends.
        self.call(s, now, &[], host, |s, call| unsafe { ffi::tg_close_notify(s, call) });
    }

    fn call(
        &mut self,
        s: &mut Session,
        now: Now,
        input: &[u8],
        host: &mut dyn Host,
        what: impl FnOnce(*mut ffi::Session, *mut ffi::Call) -> i32,
    ) -> i32 {
        if !Arc::ptr_eq(&s.config, &self.config) {
            // Another engine may be using that configuration on another thread.
            return -1;
        }
        let mut port = Port(host);
        let mut call = ffi::Call {
            user: (&raw mut port).cast(),
            send: Some(on_send),
            key: Some(on_key),
            certificate: Some(on_certificate),
            input: if input.is_empty() { ptr::null() } else { input.as_ptr() },
            input_len: input.len(),
            // 0 means no timer.
            now_ms: now.instant.as_micros() / 1000 + 1,
            wall_s: i64::try_from(now.wall_ms / 1000).unwrap_or(i64::MAX),
        };
        what(s.session.as_ptr(), &raw mut call)
    }
}

/// PEM needs a final zero, which C counts; DER is taken as it is.
fn terminated(bytes: &[u8]) -> Vec<u8> {
    let mut v = bytes.to_vec();
    if bytes.windows(10).any(|w| w == b"-----BEGIN") && bytes.last() != Some(&0) {
        v.push(0);
    }
    v
}

impl Session {
    /// When `handshake` (or `read`) is to be called though nothing came.
    pub(crate) fn deadline(&self) -> Option<gateway::Instant> {
        // SAFETY: reads a field of a live session.
        let ms = unsafe { ffi::tg_timer(self.session.as_ptr()) };
        // `call` counts from 1.
        (ms > 0).then(|| gateway::Instant::from_micros(ms.saturating_sub(1).saturating_mul(1000)))
    }

    /// The most that one record may carry.
    pub(crate) fn max_payload(&self) -> usize {
        // SAFETY: reads fields of a live session.
        usize::try_from(unsafe { ffi::tg_max_payload(self.session.as_ptr()) }).unwrap_or(0)
    }

    /// The negotiated suite; 0 before there is one.
    pub(crate) fn suite(&self) -> u16 {
        // SAFETY: reads fields of a live session.
        u16::try_from(unsafe { ffi::tg_suite(self.session.as_ptr()) }).unwrap_or(0)
    }

    /// Whether both sides use connection ids.
    pub(crate) fn has_cid(&mut self) -> bool {
        // SAFETY: reads fields of a live session.
        unsafe { ffi::tg_has_cid(self.session.as_ptr()) != 0 }
    }

    /// The record numbers.
    pub(crate) fn numbers(&self) -> Numbers {
        let mut n = ffi::Numbers::default();
        // SAFETY: reads fields of a live session, writes `n`.
        unsafe { ffi::tg_numbers_of(self.session.as_ptr(), &raw mut n) };
        Numbers { window_top: n.window_top, window: n.window, next_out: n.next_out }
    }

    /// Give up the flight that ended the handshake, which is kept to be sent again.
    pub(crate) fn end_handshake(&mut self) {
        // SAFETY: frees what the session itself no longer needs once the handshake is over, which C checks.
        unsafe { ffi::tg_end_handshake(self.session.as_ptr()) }
    }

    /// The saved context in `out`; the session goes on. `None` if it cannot be saved.
    pub(crate) fn snapshot<'a>(&mut self, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
        // SAFETY: C writes at most `out.len()` bytes.
        let n = unsafe { ffi::tg_snapshot(self.session.as_ptr(), out.as_mut_ptr(), out.len()) };
        if n == 0 { None } else { out.get_mut(..n) }
    }
}

/// Record numbers within a saved context (`mbedtls_ssl_context_save`): counted from its end, without ALPN.
pub(crate) mod blob {
    use super::Numbers;

    const FROM_END: usize = 16 + 1 + 8 + 2;

    /// Read them.
    pub(crate) fn numbers(blob: &[u8]) -> Option<Numbers> {
        let tail = blob.get(blob.len().checked_sub(FROM_END)?..)?;
        let field = |at: usize| Some(u64::from_be_bytes(tail.get(at..at + 8)?.try_into().ok()?));
        Some(Numbers { window_top: field(0)?, window: field(8)?, next_out: field(17)? & 0xffff_ffff_ffff })
    }

    /// Write them.
    pub(crate) fn set_numbers(blob: &mut [u8], n: Numbers) -> Option<()> {
        let start = blob.len().checked_sub(FROM_END)?;
        let tail = blob.get_mut(start..)?;
        tail.get_mut(..8)?.copy_from_slice(&n.window_top.to_be_bytes());
        tail.get_mut(8..16)?.copy_from_slice(&n.window.to_be_bytes());
        tail.get_mut(19..25)?.copy_from_slice(&n.next_out.to_be_bytes()[2..]);
        Some(())
    }
}
