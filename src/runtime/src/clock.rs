//! The one place where a clock is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway::{Instant, Now};

/// The process's clock; [`Instant`]s count from its making.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that begins now, one second past its zero: no instant of a run is the default value.
    pub fn start() -> Clock {
        let now = std::time::Instant::now();
        Clock { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant::from_micros(micros),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Time since the clock was made.
    pub fn uptime(&self) -> Duration {
        self.origin.elapsed().saturating_sub(Duration::from_secs(1))
    }

    /// The same point for tokio's timer.
    pub fn until(&self, at: Instant) -> std::time::Instant {
        self.origin + Duration::from_micros(at.as_micros())
    }
}
