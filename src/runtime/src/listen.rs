//! Opening ports, and accepting connections without falling over when there are too many.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::{Close, Instant};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::client::Bucket;
use crate::house::{House, Port};
use crate::mailbox::Mail;

/// Connections waiting in the kernel.
const BACKLOG: i32 = 4096;
/// Bytes that may wait at a UDP port in either direction: some thousand datagrams that come at once, as after a power
/// failure. The system may allow less (`net.core.rmem_max`, `net.core.wmem_max`).
const UDP_BUFFER: usize = 4 << 20;
/// Accepted before others on this thread have their turn.
const BATCH: usize = 64;
/// Pause between two lines of the log about that.
const QUIET: Duration = Duration::from_secs(60);
/// Rest after the process or the system ran out of file descriptors or memory.
const REST: Duration = Duration::from_millis(100);

/// Opens a TCP port. `[::]` serves IPv4 too.
pub fn bind_tcp(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Opens a UDP port and joins the multicast groups, on the interface that the system would send to them through. `[::]`
/// serves IPv4 too.
pub fn bind_udp(address: SocketAddr, groups: &[IpAddr]) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    socket.set_send_buffer_size(UDP_BUFFER)?;
    socket.bind(&address.into())?;
    for group in groups {
        match group {
            IpAddr::V4(group) => socket.join_multicast_v4(group, &Ipv4Addr::UNSPECIFIED)?,
            IpAddr::V6(group) => socket.join_multicast_v6(group, 0)?,
        }
    }
    Ok(socket.into())
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is: rules and logs know one form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, address.port())),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Accepts for `port` and deals connections out to the first `drivers` drivers, until it is dropped.
pub async fn accept(house: Arc<House>, port: Arc<Port>, listener: mio::net::TcpListener, drivers: usize) {
    #[expect(
        deprecated,
        reason = "its successor is unsafe for the sake of file descriptors that are closed while watched; this listener stays open as long as the AsyncFd owns it"
    )]
    let listener = match AsyncFd::new(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, listener = %port.facts.name, "cannot watch the port"),
    };
    let mut rate = Bucket::new(house.clock.now().instant, port.setup.connect_rate);
    let (mut next, mut silent_until) = (0, Instant::default());
    loop {
        let Ok(mut guard) = listener.readable().await else { return };
        for _ in 0..BATCH {
            match listener.get_ref().accept() {
                Ok((socket, address)) => {
                    rate.spend(house.clock.now().instant, 1.0);
                    if !has_room(&house, &port) {
                        house.metrics.closed(Close::QuotaExceeded);
                        continue;
                    }
                    // Small packets must not wait for each other; where it fails only latency suffers.
                    let _ = socket.set_nodelay(true);
                    house.metrics.accepted();
                    next = (next + 1) % drivers;
                    house.boxes[next].push(Mail::Accepted(socket, canonical(address), port.clone()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    break;
                }
                Err(e) if is_exhausted(&e) => {
                    house.metrics.accept_failed();
                    let now = house.clock.now().instant;
                    if now >= silent_until {
                        silent_until = now + QUIET;
                        tracing::warn!(error = %e, listener = %port.facts.name, "cannot accept; pausing");
                    }
                    tokio::time::sleep(REST).await;
                    break;
                }
                // The connection died while it waited.
                Err(_) => house.metrics.accept_failed(),
            }
            if let Some(debt) = rate.debt(house.clock.now().instant) {
                tokio::time::sleep(debt).await;
                break;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes a place for one more connection.
fn has_room(house: &House, port: &Port) -> bool {
    if port.open.fetch_add(1, Ordering::Relaxed) >= port.setup.max_connections {
        port.open.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    let most = house.limits.read().max_connections.min(house.most_connections);
    if house.connections.fetch_add(1, Ordering::Relaxed) >= most {
        port.open.fetch_sub(1, Ordering::Relaxed);
        house.connections.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    true
}

/// Out of file descriptors (EMFILE, ENFILE), buffers (ENOBUFS) or memory (ENOMEM).
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_given_as_ipv4() {
        assert_eq!(canonical("[::ffff:127.0.0.1]:9".parse().unwrap()).to_string(), "127.0.0.1:9");
        assert_eq!(canonical("[::1]:9".parse().unwrap()).to_string(), "[::1]:9");
    }

    #[test]
    fn the_unspecified_ipv6_address_serves_ipv4_too() {
        let listener = bind_tcp("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port));
        assert!(client.is_ok());
    }
}
