//! Waiting for readiness: the driver's own epoll instance is itself watched by tokio, so that the stream driver, the
//! datagram drivers, accept loops and timers of a core share one thread and one sleep. The only file that names epoll's
//! wrappers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll};
use tokio::io::unix::AsyncFd;

use crate::house::House;
use crate::stream::Streams;

/// Events taken at a time.
const EVENTS: usize = 1024;
/// Longest sleep; everything that is due is asked for anew after it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs stream driver `id` until it was stopped and its connections have gone.
pub async fn drive(house: Arc<House>, id: u16) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut streams = Streams::new(house.clone(), id, poll.registry().try_clone()?);
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of file descriptors that are closed while watched; mio's stays open as long as the AsyncFd owns it"
    )]
    let mut poll = AsyncFd::new(poll)?;
    let mut events = Events::with_capacity(EVENTS);
    let mailbox = &house.boxes[usize::from(id)];
    while !streams.is_done() {
        events.clear();
        if streams.is_busy() {
            // Let accept loops and datagrams of this thread have their turn, then look without waiting.
            tokio::task::yield_now().await;
            poll.get_mut().poll(&mut events, Some(Duration::ZERO)).or_else(interrupted)?;
        } else {
            let until = match streams.next_timeout() {
                Some(at) => house.clock.until(at),
                None => house.clock.until(house.clock.now().instant + LONGEST),
            };
            tokio::select! {
                biased;
                guard = poll.readable_mut() => {
                    let mut guard = guard?;
                    guard.get_inner_mut().poll(&mut events, Some(Duration::ZERO)).or_else(interrupted)?;
                    // A full list may have left events behind.
                    if events.iter().count() < EVENTS {
                        guard.clear_ready();
                    }
                }
                () = mailbox.wait() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
        let now = house.clock.now();
        streams.read_again(now);
        for event in &events {
            let slot = event.token().0 as u32;
            if event.is_writable() {
                streams.writable(slot);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                streams.readable(now, slot, event.is_read_closed() || event.is_error());
            }
        }
        streams.turn(now);
    }
    Ok(())
}

fn interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
