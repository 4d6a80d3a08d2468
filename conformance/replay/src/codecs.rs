//! Every codec that is built in: byte one says which, byte two how the rest is cut into pieces. Whatever comes, a codec
//! takes at least a byte with each frame and keeps no more than it says; and the pieces mean what they mean as one, but
//! for `raw`.

use bytes::BytesMut;
use codecs::{CODECS, Codec, Context, Costs, Def, Down, Options, Up};

/// Plays `data` to a codec.
pub fn play(data: &[u8]) {
    let [which, cut, stream @ ..] = data else { return };
    let def = &CODECS[usize::from(*which) % CODECS.len()];
    let whole = decode(def, &[stream]);
    let pieces: Vec<&[u8]> = stream.chunks(1 + usize::from(*cut)).collect();
    let split = decode(def, &pieces);
    assert!(def.name == "raw" || whole == split, "{}: {whole:?} {split:?}", def.name);
    encode(def, *cut, stream);
}

/// What a new codec understands.
fn decode(def: &Def, pieces: &[&[u8]]) -> Vec<Up> {
    let mut codec: Box<dyn Codec> = (def.build)(&Options::default());
    let (mut device, mut buf, mut ups) = (None::<Box<str>>, BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let cx = Context { wall_ms: 1_700_000_000_000, device: device.as_deref(), token: "token" };
            let before = buf.len();
            match codec.decode(&cx, &mut buf) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    for up in frame.up {
                        match &up {
                            Up::Login(login) => device = Some(login.device.clone()),
                            // Its JSON form can be read again: people and `codec try` rely on it.
                            said => assert_eq!(Up::from_json(said.to_json().as_bytes()).as_ref(), Ok(said)),
                        }
                        ups.push(up);
                    }
                }
                Err(fault) if fault.costs == Costs::Stream => return ups,
                Err(_) => {}
            }
            assert!(buf.len() < before, "{} takes nothing", def.name);
        }
        assert!(buf.len() <= codec.max_frame(), "{} keeps {}", def.name, buf.len());
    }
    ups
}

/// The bytes as a command of the codec.
fn encode(def: &Def, which: u8, value: &[u8]) {
    let mut codec = (def.build)(&Options::default());
    let kind = def.downs.get(usize::from(which) % (def.downs.len() + 1)).map_or("x/y", |down| down.kind);
    let cx = Context { wall_ms: 0, device: Some("123456789012345"), token: "token" };
    let mut into = b"before".to_vec();
    let encoded = codec.encode(&cx, &Down { kind, value }, &mut into);
    assert!(into.starts_with(b"before"), "{}", def.name);
    assert!(encoded.is_ok() || into.len() == 6, "{}: {encoded:?} left bytes", def.name);
}
