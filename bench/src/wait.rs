//! Waiting for sockets: epoll, level-triggered, with timeouts finer than a millisecond (open-loop runs need them).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Most sockets that one wake-up reports.
const EVENTS: usize = 1024;

/// An epoll with room for what it reports.
pub struct Wait {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Wait {
    /// An epoll that watches nothing yet.
    pub fn new() -> std::io::Result<Wait> {
        Ok(Wait { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Reports `key` when `socket` can be read.
    pub fn add(&self, socket: impl AsFd, key: u64) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// From now on reports `key` also (or no longer) when `socket` can be written.
    pub fn also_writable(&self, socket: impl AsFd, key: u64, on: bool) -> std::io::Result<()> {
        let flags = if on { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(key), flags)?)
    }

    /// Waits at most `timeout` (for ever without one), then puts the keys of ready sockets into `ready`.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<u64>) -> std::io::Result<()> {
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        self.events.clear();
        ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        ready.extend(self.events.iter().map(|e| e.data.u64()));
        Ok(())
    }
}
