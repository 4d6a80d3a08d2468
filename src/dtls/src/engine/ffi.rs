//! The functions of `engine/glue.c`.
#![allow(unsafe_code, reason = "the one boundary with C; see engine.rs for why each call is sound")]

use std::ffi::{c_char, c_int, c_void};

/// `tg_config`, which only C looks into.
#[repr(C)]
pub(super) struct Config {
    _opaque: [u8; 0],
}

/// `tg_session`, which only C looks into.
#[repr(C)]
pub(super) struct Session {
    _opaque: [u8; 0],
}

/// `tg_call`.
#[repr(C)]
pub(super) struct Call {
    pub(super) user: *mut c_void,
    pub(super) send: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize)>,
    pub(super) key: Option<unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, usize) -> usize>,
    pub(super) certificate: Option<unsafe extern "C" fn(*mut c_void, *const u8, *const u8, usize)>,
    pub(super) input: *const u8,
    pub(super) input_len: usize,
    pub(super) now_ms: u64,
    pub(super) wall_s: i64,
}

/// `tg_numbers`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) window_top: u64,
    pub(super) window: u64,
    pub(super) next_out: u64,
}

unsafe extern "C" {
    pub(super) fn tg_random(unused: *mut c_void, p: *mut u8, len: usize) -> c_int;
    pub(super) fn tg_config_new(
        is_server: c_int,
        suites: *const u16,
        n: usize,
        timer_min_ms: u32,
        timer_max_ms: u32,
        cid_len: usize,
    ) -> *mut Config;
    pub(super) fn tg_config_free(config: *mut Config);
    pub(super) fn tg_config_certificates(
        config: *mut Config,
        chain: *const u8,
        chain_len: usize,
        key: *const u8,
        key_len: usize,
        ca: *const u8,
        ca_len: usize,
        verify: c_int,
    ) -> c_int;
    pub(super) fn tg_config_psk(
        config: *mut Config,
        key: *const u8,
        key_len: usize,
        identity: *const u8,
        len: usize,
    ) -> c_int;
    pub(super) fn tg_session_new(
        config: *mut Config,
        mtu: u16,
        cid: *const u8,
        cid_len: usize,
        with_cid: c_int,
        host: *const c_char,
    ) -> *mut Session;
    pub(super) fn tg_session_free(session: *mut Session);
    pub(super) fn tg_handshake(session: *mut Session, call: *mut Call) -> c_int;
    pub(super) fn tg_read(session: *mut Session, call: *mut Call, out: *mut u8, room: usize) -> c_int;
    pub(super) fn tg_write(session: *mut Session, call: *mut Call, b: *const u8, len: usize) -> c_int;
    pub(super) fn tg_close_notify(session: *mut Session, call: *mut Call) -> c_int;
    pub(super) fn tg_timer(session: *const Session) -> u64;
    pub(super) fn tg_max_payload(session: *const Session) -> c_int;
    pub(super) fn tg_suite(session: *const Session) -> c_int;
    pub(super) fn tg_has_cid(session: *mut Session) -> c_int;
    pub(super) fn tg_numbers_of(session: *const Session, numbers: *mut Numbers);
    pub(super) fn tg_end_handshake(session: *mut Session);
    pub(super) fn tg_snapshot(session: *mut Session, out: *mut u8, room: usize) -> usize;
    pub(super) fn tg_load(session: *mut Session, blob: *const u8, len: usize) -> c_int;
    pub(super) fn tg_version(version: *mut u8);
    pub(super) fn tg_trim();
}
