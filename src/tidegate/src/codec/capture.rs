//! What devices said, out of a capture of tcpdump or Wireshark.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Most bytes that are kept of a stream because earlier ones have not been seen.
const MAX_HELD: usize = 1 << 20;

/// Bytes of a conversation, in the order of the capture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The device.
    pub(super) device: SocketAddr,
    /// The server's port.
    pub(super) port: u16,
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A connection has begun.
    Opened,
    /// The device's, of a stream.
    Stream(Vec<u8>),
    /// The device's, a datagram.
    Datagram(Vec<u8>),
    /// The server's.
    Sent(Vec<u8>),
    /// So many bytes of the device are not in the capture.
    Missing(usize),
}

/// Reads a capture. Without the server's port it is where connections and first datagrams go to.
pub(super) fn read(file: &Path, port: Option<u16>) -> Result<Vec<Piece>, String> {
    let bad = |e: String| format!("{}: {e}", file.display());
    let opened = std::fs::File::open(file).map_err(|e| bad(e.to_string()))?;
    let no_capture = |_: PcapError<_>| bad("no capture (pcap or pcapng) that can be read".to_owned());
    let mut reader = create_reader(1 << 20, opened).map_err(no_capture)?;
    let mut links: Vec<Linktype> = Vec::new();
    let mut talks = Talks { port, flows: HashMap::new(), pieces: Vec::new() };
    loop {
        match reader.next() {
            Ok((len, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(packet) => talks.packet(links.first(), packet.data),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(link)) => links.push(link.linktype),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        // What follows the packet fills its block up to four bytes.
                        let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                        talks.packet(links.get(packet.if_id as usize), data);
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                        talks.packet(links.first(), packet.data)
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|_| bad("cannot be read on".to_owned()))?;
            }
            // Whoever ended the capture did so while a packet was written: what came before it is good.
            Err(PcapError::UnexpectedEof) if !talks.pieces.is_empty() => break,
            Err(e) => return Err(bad(format!("no capture: {e:?}"))),
        }
    }
    let mut ports: Vec<u16> = talks.pieces.iter().map(|piece| piece.port).collect();
    ports.sort_unstable();
    ports.dedup();
    match &ports[..] {
        [] => Err(bad("no TCP and no UDP to this port".to_owned())),
        [_] => Ok(talks.pieces),
        _ => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            Err(bad(format!(
                "has conversations with several ports; say which with --port: {}",
                ports.join(", ")
            )))
        }
    }
}

struct Talks {
    port: Option<u16>,
    /// By device and server.
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    pieces: Vec<Piece>,
}

/// Both directions of a TCP connection: the device's, and the server's.
#[derive(Default)]
struct Flow {
    halves: [Half; 2],
}

impl Talks {
    fn packet(&mut self, link: Option<&Linktype>, data: &[u8]) {
        let Some(packet) = link.and_then(|link| slice(*link, data)) else { return };
        let (from, to): (IpAddr, IpAddr) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            _ => return,
        };
        match &packet.transport {
            Some(TransportSlice::Udp(udp)) => {
                let (from, to) =
                    (SocketAddr::new(from, udp.source_port()), SocketAddr::new(to, udp.destination_port()));
                let (device, server) = self.sides(from, to, None);
                self.flows.entry((device, server)).or_default();
                let bytes = udp.payload().to_vec();
                self.push(
                    device,
                    server,
                    if device == from { What::Datagram(bytes) } else { What::Sent(bytes) },
                );
            }
            Some(TransportSlice::Tcp(tcp)) => {
                let (from, to) =
                    (SocketAddr::new(from, tcp.source_port()), SocketAddr::new(to, tcp.destination_port()));
                let (device, server) = self.sides(from, to, tcp.syn().then_some(tcp.ack()));
                let is_device = device == from;
                let is_new = tcp.syn() && !tcp.ack();
                let flow = self.flows.entry((device, server)).or_default();
                if is_new {
                    *flow = Flow::default();
                }
                let half = &mut flow.halves[usize::from(!is_device)];
                let seen = half.take(tcp.sequence_number(), tcp.syn(), tcp.payload());
                if is_new {
                    self.push(device, server, What::Opened);
                }
                for (missing, bytes) in seen {
                    if missing > 0 && is_device {
                        self.push(device, server, What::Missing(missing));
                    }
                    self.push(
                        device,
                        server,
                        if is_device { What::Stream(bytes) } else { What::Sent(bytes) },
                    );
                }
            }
            _ => {}
        }
    }

    /// Which of the two is the device, and which the server. `syn`: whether a SYN is one that answers.
    fn sides(&self, from: SocketAddr, to: SocketAddr, syn: Option<bool>) -> (SocketAddr, SocketAddr) {
        let is_from = match (self.port, syn) {
            (Some(port), _) => to.port() == port,
            _ if self.flows.contains_key(&(from, to)) => true,
            _ if self.flows.contains_key(&(to, from)) => false,
            (None, Some(is_answer)) => !is_answer,
            // The capture begins in the middle of it: servers have the smaller ports, as a rule.
            (None, None) => to.port() <= from.port(),
        };
        if is_from { (from, to) } else { (to, from) }
    }

    fn push(&mut self, device: SocketAddr, server: SocketAddr, what: What) {
        if self.port.is_none_or(|port| port == server.port()) {
            self.pieces.push(Piece { device, port: server.port(), what });
        }
    }
}

fn slice(link: Linktype, data: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok(),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => LaxSlicedPacket::from_ip(data).ok(),
        // The address family before the packet, and what `tcpdump -i any` writes: 16 bytes, or 20 of its second version.
        Linktype::NULL | Linktype::LOOP => LaxSlicedPacket::from_ip(data.get(4..)?).ok(),
        Linktype::LINUX_SLL => LaxSlicedPacket::from_ip(data.get(16..)?).ok(),
        Linktype::LINUX_SLL2 => LaxSlicedPacket::from_ip(data.get(20..)?).ok(),
        _ => None,
    }
}

/// One direction of a TCP connection.
#[derive(Default)]
struct Half {
    /// Sequence number of the next byte.
    next: Option<u32>,
    /// Segments that came before their turn, by their distance from the first byte.
    held: BTreeMap<u32, Vec<u8>>,
    first: u32,
}

impl Half {
    /// Bytes whose turn it is, each with how many are missing before them.
    fn take(&mut self, seq: u32, is_syn: bool, payload: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let seq = seq.wrapping_add(u32::from(is_syn));
        if is_syn || self.next.is_none() {
            *self = Half { next: Some(seq), first: seq, held: BTreeMap::new() };
        }
        if !payload.is_empty() {
            self.held.entry(seq.wrapping_sub(self.first)).or_insert_with(|| payload.to_vec());
        }
        let mut seen = Vec::new();
        let mut held: usize = self.held.values().map(Vec::len).sum();
        while let Some((at, bytes)) = self.held.pop_first() {
            let next = self.next.unwrap_or(seq).wrapping_sub(self.first);
            if at > next && held <= MAX_HELD {
                self.held.insert(at, bytes);
                break;
            }
            held -= bytes.len();
            let missing = at.saturating_sub(next);
            // What was sent twice is taken once.
            let old = next.saturating_sub(at) as usize;
            if old < bytes.len() {
                let end = at.wrapping_add(bytes.len() as u32);
                self.next = Some(self.first.wrapping_add(end));
                seen.push((missing as usize, bytes[old..].to_vec()));
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(half: &mut Half, seq: u32, payload: &[u8]) -> Vec<(usize, Vec<u8>)> {
        half.take(seq, false, payload)
    }

    #[test]
    fn segments_are_put_in_order_and_taken_once() {
        let mut half = Half::default();
        let first = u32::MAX - 1;
        assert_eq!(half.take(first.wrapping_sub(1), true, b""), []);
        assert_eq!(seen(&mut half, first.wrapping_add(3), b"de"), []);
        assert_eq!(seen(&mut half, first, b"abc"), [(0, b"abc".to_vec()), (0, b"de".to_vec())]);
        assert_eq!(seen(&mut half, first, b"abc"), []);
        assert_eq!(seen(&mut half, first.wrapping_add(3), b"defg"), [(0, b"fg".to_vec())]);
    }

    #[test]
    fn what_is_missing_is_told_when_too_much_waits_for_it() {
        let mut half = Half::default();
        half.take(0, true, b"");
        assert_eq!(seen(&mut half, 11, &vec![7; MAX_HELD]), []);
        let all = seen(&mut half, 11 + MAX_HELD as u32, b"x");
        assert_eq!(
            all.iter().map(|(missing, bytes)| (*missing, bytes.len())).collect::<Vec<_>>(),
            [(10, MAX_HELD), (0, 1)]
        );
    }
}
