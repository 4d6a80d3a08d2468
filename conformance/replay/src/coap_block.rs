//! Block-wise transfers. The first byte chooses what is played with the rest:
//!
//! - blocks of three peers, in any order, to a collection with narrow bounds, beside a plain model of it;
//! - answers of a server that says anything, to an upload and to a download;
//! - a body, and the sizes that both ends wish for: upload, collection, slices and download give the body back.

use std::collections::HashMap;
use std::time::Duration;

use coap::block::{Block, Download, Progress, Room, Szx, Upload, slice};
use coap::body::{Bodies, Budget, From, Limits, Taken, Wrong};
use coap::frame::{Code, Kind, Message};
use coap::options::{BLOCK1, BLOCK2, CONTENT_FORMAT, ETAG, REQUEST_TAG, SIZE1, URI_PATH};
use gateway::Instant;
use wire::{Reader, Short};

const LIMITS: Limits =
    Limits { body: 700, peer: 1_500, all: 3_000, unverified: 2_000, lifetime: Duration::from_secs(247) };

/// Plays `data`.
pub fn play(data: &[u8]) {
    let mut r = Reader::new(data);
    let Ok(what) = r.u8() else { return };
    match what % 4 {
        0 => collect(&mut r),
        1 => upload(&mut r),
        2 => download(&mut r),
        _ => {
            let _ = there_and_back(&mut r);
        }
    }
}

fn block(r: &mut Reader<'_>) -> Result<Block, Short> {
    let value = r.u16()?;
    // A number of 12 bits and a size, as most transfers have them; now and then one of 20 bits.
    Ok(Block::decode(&u32::from(value).to_be_bytes()[1..]).unwrap_or(Block::at(0, Szx::SMALLEST)))
}

fn room(payload: u16) -> Room {
    let szx = if payload & 0x8000 != 0 { Szx::BERT } else { Szx::LARGEST };
    Room { payload: usize::from(payload & 0x1FFF).max(16), szx }
}

fn collect(r: &mut Reader<'_>) {
    let (mut all, mut now) = (Bodies::new(LIMITS, Budget::default()), Instant::default());
    let mut model: HashMap<(u8, u8), Vec<u8>> = HashMap::new();
    while let Ok(op) = r.u8() {
        let peer = op & 3;
        if op & 0xC0 == 0xC0 {
            now = now + Duration::from_secs(u64::from(op & 0x3F) * 4);
            all.expire(now);
            assert!(all.next().is_none_or(|at| at > now), "a deadline that has passed");
        } else if op & 0xC0 == 0x80 {
            all.forget(peer);
            model.retain(|(of, _), _| *of != peer);
            assert_eq!(all.used_by(peer), 0);
        } else if one_block(&mut all, &mut model, now, op, r).is_err() {
            break;
        }
        assert!(all.used() <= LIMITS.all && all.used_by(peer) <= LIMITS.peer);
    }
    (0..4).for_each(|peer| all.forget(peer));
    assert!(all.used() == 0 && all.next().is_none(), "something is left");
}

fn one_block(
    all: &mut Bodies<u8>,
    model: &mut HashMap<(u8, u8), Vec<u8>>,
    now: Instant,
    op: u8,
    r: &mut Reader<'_>,
) -> Result<(), Short> {
    let (peer, tag) = (op & 3, op >> 2 & 3);
    let (block, fill, flags) = (block(r)?, r.u8()?, r.u8()?);
    // As long as it says, unless the flags want it otherwise.
    let full = if block.is_more { block.szx.size() } else { usize::from(fill) % (block.szx.size() + 1) };
    let length = if flags & 7 == 7 { full + 1 } else { full };
    let mut request =
        Message { code: Code::PUT, payload: vec![fill; length], ..Message::empty(Kind::Con, 1) };
    request.add(URI_PATH, b"a");
    if tag > 0 {
        request.add(REQUEST_TAG, &[tag]);
    }
    if flags & 0x38 == 0x38 {
        request.add_uint(CONTENT_FORMAT, 50);
    }
    if flags & 0xC0 == 0xC0 {
        request.add_uint(SIZE1, 701);
    }
    let from = From { peer, is_verified: op & 0x20 != 0 };
    let taken = all.take(now, from, &request, block, room(1024));
    let key = (peer, tag);
    match taken {
        Ok(Taken::Continue(answer)) => {
            assert!(block.is_more && answer.number == block.number && answer.szx <= block.szx);
            let have = model.entry(key).or_default();
            if block.number == 0 {
                have.clear();
            }
            // What is in the collection was never lost on the way, whatever made room.
            assert!(block.offset() <= have.len(), "taken behind a gap");
            if block.offset() == have.len() {
                have.extend_from_slice(&request.payload);
            } else {
                assert_eq!(have[block.offset()..][..length], request.payload, "other bytes taken");
            }
        }
        Ok(Taken::Whole(whole)) => {
            let mut have = model.remove(&key).filter(|_| block.number > 0).unwrap_or_default();
            have.extend_from_slice(&request.payload);
            assert!(whole == have && whole.len() <= LIMITS.body, "not what was sent");
        }
        // Only what is ahead leaves the transfer as it was.
        Err(Wrong::Incomplete) if model.get(&key).is_some_and(|have| block.offset() > have.len()) => {}
        Err(_) => drop(model.remove(&key)),
    }
    Ok(())
}

/// An answer that a server could send: code, Block option, ETag, payload.
fn answer(r: &mut Reader<'_>, option: u16) -> Result<Message, Short> {
    let codes = [Code::CONTINUE, Code::CHANGED, Code::CONTENT, Code::TOO_LARGE, Code::INCOMPLETE];
    let how = r.u8()?;
    let mut m = Message { code: codes[usize::from(how & 15) % codes.len()], ..Message::empty(Kind::Ack, 1) };
    if how & 0x10 == 0 {
        m.add_uint(option, block(r)?.encode());
    }
    if how & 0x20 != 0 {
        m.add(ETAG, &[r.u8()?]);
    }
    let (size, fill) = (r.u8()?, r.u8()?);
    m.payload = vec![fill; if how & 0x40 != 0 { 16 << (size & 7) } else { size.into() }];
    Ok(m)
}

fn upload(r: &mut Reader<'_>) {
    let (Ok(length), Ok(payload)) = (r.u16(), r.u16()) else { return };
    let room = room(payload);
    let body: Vec<u8> = (0..usize::from(length)).map(|n| n as u8).collect();
    let (mut upload, mut before) = (Upload::new(body.clone().into(), room), None);
    loop {
        let (block, part) = upload.block();
        assert!(part.len() <= room.payload.max(16), "more than there is room for");
        let begin = block.map_or(0, Block::offset);
        assert_eq!(part[..], body[begin..begin + part.len()]);
        if let Some(block) = block {
            assert!(block.is_length(part.len()) && block.is_more == (begin + part.len() < body.len()));
            assert!(before.is_none_or(|(at, szx)| begin > at || block.szx < szx), "it does not go on");
            before = Some((begin, block.szx));
        }
        let Ok(response) = answer(r, BLOCK1) else { return };
        match upload.answered(&response) {
            Ok(Progress::More) => {}
            _ => return,
        }
    }
}

fn download(r: &mut Reader<'_>) {
    let Ok(how) = r.u16() else { return };
    let most = usize::from(how >> 4);
    let mut download = Download::new(most, room(how << 9).preferred());
    let mut have = Vec::new();
    while let Ok(response) = answer(r, BLOCK2) {
        assert_eq!(download.block().offset(), have.len());
        let progress = download.answered(&response);
        if progress.is_ok() {
            have.extend_from_slice(&response.payload);
        }
        if progress != Ok(Progress::More) {
            break;
        }
        assert!(!response.payload.is_empty(), "it does not go on");
    }
    assert!(have.len() <= most);
    if !have.is_empty() {
        assert!(download.into_body().starts_with(&have));
    }
}

fn there_and_back(r: &mut Reader<'_>) -> Result<(), Short> {
    let (length, there, here) = (usize::from(r.u16()?) % LIMITS.body, room(r.u16()?), room(r.u16()?));
    let body: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
    let (mut all, from) = (Bodies::new(LIMITS, Budget::default()), From { peer: 1, is_verified: true });
    let mut upload = Upload::new(body.clone().into(), there);
    let arrived = loop {
        let (block, part) = upload.block();
        let mut request = Message { code: Code::PUT, payload: part.to_vec(), ..Message::empty(Kind::Con, 1) };
        let Some(block) = block else { break request.payload };
        request.add_uint(BLOCK1, block.encode());
        let mut response = Message { code: Code::CONTINUE, ..Message::empty(Kind::Ack, 1) };
        match all.take(Instant::default(), from, &request, block, here) {
            Ok(Taken::Whole(whole)) => break whole,
            Ok(Taken::Continue(block)) => response.add_uint(BLOCK1, block.encode()),
            Err(why) => panic!("a body that is as it should be: {why:?}"),
        }
        assert_eq!(upload.answered(&response), Ok(Progress::More));
    };
    assert_eq!(arrived, body);
    let mut download = Download::new(LIMITS.body, there.preferred());
    loop {
        let Ok(part) = slice(arrived.len(), Some(download.block()), here) else { panic!("past the end") };
        let mut response = Message { code: Code::CONTENT, ..Message::empty(Kind::Ack, 1) };
        response.payload = match part {
            Some((block, range)) => {
                response.add_uint(BLOCK2, block.encode());
                arrived[range].to_vec()
            }
            None => arrived.clone(),
        };
        match download.answered(&response) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => break,
            Err(why) => panic!("parts that are as they should be: {why:?}"),
        }
    }
    assert_eq!(download.into_body(), body);
    Ok(())
}
