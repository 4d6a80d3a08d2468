//! Many datagrams with one call (`sendmmsg`), each from the address that its peer had written to.
//!
//! Datagrams of one call share their control messages, so a batch ends where the source address changes: a socket seldom
//! answers from more than one.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

/// Most datagrams of one call; the kernel takes 1,024.
const MOST: usize = 64;

/// One to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// Where to.
    pub(crate) to: SocketAddr,
    /// Where from; none is what the system chooses.
    pub(crate) from: Option<IpAddr>,
    /// What.
    pub(crate) bytes: &'a [u8],
}

/// Sends them in order and tells of each what came of it. When the send buffer is full the rest fails with it
/// (`WouldBlock`), everything else is one datagram's own failure.
pub(crate) fn send(
    socket: &UdpSocket,
    datagrams: &[Datagram<'_>],
    mut on: impl FnMut(&Datagram<'_>, io::Result<()>),
) {
    let mut rest = datagrams;
    while let Some(first) = rest.first() {
        let same = rest.iter().take(MOST).take_while(|d| d.from == first.from).count();
        match send_from(socket, first.from, &rest[..same]) {
            Ok(sent) => {
                let (done, more) = rest.split_at(sent.min(same));
                done.iter().for_each(|d| on(d, Ok(())));
                rest = more;
            }
            Err(Errno::EINTR) => {}
            Err(e) if io::Error::from(e).kind() == io::ErrorKind::WouldBlock => {
                return rest.iter().for_each(|d| on(d, Err(e.into())));
            }
            Err(e) => {
                on(first, Err(e.into()));
                rest = &rest[1..];
            }
        }
    }
}

/// One call; how many of them were sent. It fails if the first was not.
fn send_from(socket: &UdpSocket, from: Option<IpAddr>, datagrams: &[Datagram<'_>]) -> nix::Result<usize> {
    let slices: Vec<_> = datagrams.iter().map(|d| [IoSlice::new(d.bytes)]).collect();
    let addresses: Vec<_> = datagrams.iter().map(|d| Some(SockaddrStorage::from(d.to))).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let headers = |space| MultiHeaders::preallocate(datagrams.len(), space);
    let fd = socket.as_raw_fd();
    let results = match from {
        None => sendmmsg(fd, &mut headers(None), &slices, &addresses, [], flags)?.count(),
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            let mut headers = headers(Some(cmsg_space!(libc::in_pktinfo)));
            sendmmsg(fd, &mut headers, &slices, &addresses, control, flags)?.count()
        }
        Some(IpAddr::V6(ip)) => {
            let info =
                libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: libc::in6_addr { s6_addr: ip.octets() } };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            let mut headers = headers(Some(cmsg_space!(libc::in6_pktinfo)));
            sendmmsg(fd, &mut headers, &slices, &addresses, control, flags)?.count()
        }
    };
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        socket
    }

    fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 100];
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        (buffer[..n].to_vec(), from)
    }

    /// Sends all of them; the errors, by index.
    fn send_all(socket: &UdpSocket, datagrams: &[Datagram<'_>]) -> Vec<(usize, io::ErrorKind)> {
        let mut results = Vec::new();
        send(socket, datagrams, |d, result| {
            assert_eq!(*d, datagrams[results.len()]);
            results.push(result.err().map(|e| e.kind()));
        });
        assert_eq!(results.len(), datagrams.len());
        results.into_iter().enumerate().filter_map(|(i, e)| e.map(|e| (i, e))).collect()
    }

    #[test]
    fn more_than_one_call_takes_leave_whole_and_in_order() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let to = client.local_addr().unwrap();
        let texts: Vec<String> = (0..MOST * 2 + 3).map(|i| "x".repeat(i % 7) + &i.to_string()).collect();
        let datagrams: Vec<_> =
            texts.iter().map(|t| Datagram { to, from: None, bytes: t.as_bytes() }).collect();
        assert_eq!(send_all(&server, &datagrams), []);
        for text in &texts {
            assert_eq!(receive(&client), (text.clone().into_bytes(), server.local_addr().unwrap()));
        }
    }

    #[test]
    fn each_leaves_from_the_address_that_its_peer_wrote_to() {
        let (server, client) = (socket("0.0.0.0:0"), socket("127.0.0.1:0"));
        let (to, port) = (client.local_addr().unwrap(), server.local_addr().unwrap().port());
        let froms = ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap());
        let datagrams = froms.map(|ip| Datagram { to, from: Some(ip), bytes: b"from" });
        assert_eq!(send_all(&server, &datagrams), []);
        for ip in froms {
            assert_eq!(receive(&client), (b"from".to_vec(), SocketAddr::new(ip, port)));
        }
    }

    #[test]
    fn a_socket_of_both_families_answers_both_from_where_they_wrote_to() {
        let server = crate::listen::bind_udp("[::]:0".parse().unwrap(), &[]).unwrap();
        let port = server.local_addr().unwrap().port();
        let (four, six) = (socket("127.0.0.1:0"), socket("[::1]:0"));
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let mapped_peer = SocketAddr::new(mapped, four.local_addr().unwrap().port());
        let other: IpAddr = "127.0.0.2".parse().unwrap();
        let datagrams = [
            Datagram { to: mapped_peer, from: Some(other), bytes: b"4" },
            Datagram { to: mapped_peer, from: Some("::ffff:127.0.0.3".parse().unwrap()), bytes: b"mapped" },
            Datagram { to: six.local_addr().unwrap(), from: Some("::1".parse().unwrap()), bytes: b"6" },
        ];
        assert_eq!(send_all(&server, &datagrams), []);
        assert_eq!(receive(&four), (b"4".to_vec(), SocketAddr::new(other, port)));
        assert_eq!(receive(&four), (b"mapped".to_vec(), format!("127.0.0.3:{port}").parse().unwrap()));
        assert_eq!(receive(&six), (b"6".to_vec(), format!("[::1]:{port}").parse().unwrap()));
    }

    #[test]
    fn one_that_cannot_be_sent_does_not_hold_up_the_others() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let to = client.local_addr().unwrap();
        let too_large = vec![0; 70_000];
        let good = Datagram { to, from: None, bytes: b"good" };
        let datagrams =
            [good, Datagram { bytes: &too_large, ..good }, good, Datagram { bytes: &too_large, ..good }];
        let failed: Vec<_> = send_all(&server, &datagrams).iter().map(|(i, _)| *i).collect();
        assert_eq!(failed, [1, 3]);
        assert_eq!([receive(&client).0, receive(&client).0], [b"good".to_vec(), b"good".to_vec()]);
    }
}
