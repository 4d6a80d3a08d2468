//! The PROXY layer: byte one says how the rest is cut into pieces. However it is cut, the same comes out.

use bytes::BytesMut;
use gateway::{Close, Now};
use runtime::layer::proxy::Proxy;
use runtime::layer::{Layer, Learnt};

/// Longest header there is to wait for: the fixed part of version 2 and the most that may follow.
const HEADER: usize = 16 + 2048;

/// Plays `data`.
pub fn play(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else { return };
    let whole = open([bytes]);
    let piece = usize::from(cut) + 1;
    let cut = open(bytes.chunks(piece));
    assert_eq!(cut.0, whole.0);
    // A header that is refused is so at the first byte that shows it; what is learnt before does not count.
    if whole.0.is_ok() {
        assert_eq!(cut, whole);
    }
}

/// What comes of the pieces: the result, what went up, what was learnt and whether the header was whole.
fn open<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Result<(), Close>, BytesMut, Option<std::net::SocketAddr>, bool) {
    let (mut layer, mut wire, mut plain) = (Proxy::default(), BytesMut::new(), BytesMut::new());
    let (mut reply, mut facts) = (Vec::new(), Learnt::default());
    let mut given = 0;
    let mut result = Ok(());
    for piece in pieces {
        wire.extend_from_slice(piece);
        given += piece.len();
        result = layer.open(Now::default(), &mut wire, &mut plain, &mut reply, &mut facts);
        assert!(reply.is_empty(), "a balancer is not answered");
        if result.is_err() {
            assert!(plain.is_empty() && !layer.is_ready() && facts.address.is_none());
            break;
        }
        assert_eq!(wire.is_empty(), layer.is_ready() || given == 0);
        assert!(wire.len() <= HEADER, "waits for a header of {} bytes", wire.len());
        assert!(plain.len() + wire.len() <= given);
    }
    if let Some(address) = facts.address {
        assert_eq!(address.ip(), address.ip().to_canonical());
    }
    (result, plain, facts.address, layer.is_ready())
}
