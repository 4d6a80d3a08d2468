use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::block::Szx;
use crate::exchange::EXCHANGE_LIFETIME;
use crate::frame::Kind;
use crate::options::{ECHO, REQUEST_TAG, URI_PATH};

const ROOM: Room = Room { payload: 1024, szx: Szx::LARGEST };
const LIMITS: Limits =
    Limits { body: 1000, peer: 3000, all: 5000, unverified: 5000, lifetime: EXCHANGE_LIFETIME };

fn bodies() -> Bodies<u8> {
    Bodies::new(LIMITS, Budget::default())
}

fn put(path: &str, payload: &[u8]) -> Message {
    let mut m = Message { code: Code::PUT, payload: payload.to_vec(), ..Message::empty(Kind::Con, 1) };
    m.add(URI_PATH, path.as_bytes());
    m
}

fn block(number: u32, is_more: bool, szx: u8) -> Block {
    Block { number, is_more, szx: Szx::new(szx).unwrap() }
}

fn take(all: &mut Bodies<u8>, peer: u8, request: &Message, block: Block) -> Result<Taken, Wrong> {
    all.take(Instant::default(), From { peer, is_verified: true }, request, block, ROOM)
}

#[test]
fn blocks_come_together_and_leave_nothing() {
    let mut all = bodies();
    assert_eq!(
        take(&mut all, 1, &put("a", &[1; 16]), block(0, true, 0)),
        Ok(Taken::Continue(block(0, true, 0)))
    );
    assert_eq!(
        take(&mut all, 1, &put("a", &[2; 16]), block(1, true, 0)),
        Ok(Taken::Continue(block(1, true, 0)))
    );
    assert!(all.used() > 32);
    let whole = [&[1; 16][..], &[2; 16], &[3; 7]].concat();
    assert_eq!(take(&mut all, 1, &put("a", &[3; 7]), block(2, false, 0)), Ok(Taken::Whole(whole)));
    assert_eq!((all.used(), all.next()), (0, None));
}

#[test]
fn a_gap_is_incomplete_and_can_be_filled() {
    let mut all = bodies();
    take(&mut all, 1, &put("a", &[1; 16]), block(0, true, 0)).unwrap();
    assert_eq!(take(&mut all, 1, &put("a", &[3; 16]), block(2, true, 0)), Err(Wrong::Incomplete));
    take(&mut all, 1, &put("a", &[2; 16]), block(1, true, 0)).unwrap();
    take(&mut all, 1, &put("a", &[3; 16]), block(2, true, 0)).unwrap();
    // Of a transfer that nobody began there is nothing to wait for.
    assert_eq!(take(&mut all, 1, &put("b", &[3; 16]), block(2, true, 0)), Err(Wrong::Incomplete));
    assert_eq!(take(&mut all, 2, &put("a", &[3; 16]), block(3, false, 0)), Err(Wrong::Incomplete));
}

#[test]
fn the_same_block_again_is_tolerated_and_another_one_in_its_place_is_not() {
    let mut all = bodies();
    take(&mut all, 1, &put("a", &[1; 16]), block(0, true, 0)).unwrap();
    take(&mut all, 1, &put("a", &[2; 16]), block(1, true, 0)).unwrap();
    assert_eq!(
        take(&mut all, 1, &put("a", &[2; 16]), block(1, true, 0)),
        Ok(Taken::Continue(block(1, true, 0)))
    );
    assert_eq!(take(&mut all, 1, &put("a", &[9; 16]), block(1, true, 0)), Err(Wrong::Incomplete));
    assert_eq!(all.used(), 0, "what cannot become a body is forgotten");
    assert_eq!(take(&mut all, 1, &put("a", &[3; 16]), block(2, false, 0)), Err(Wrong::Incomplete));
}

#[test]
fn the_first_block_begins_anew() {
    let mut all = bodies();
    take(&mut all, 1, &put("a", &[1; 16]), block(0, true, 0)).unwrap();
    take(&mut all, 1, &put("a", &[1; 16]), block(1, true, 0)).unwrap();
    take(&mut all, 1, &put("a", &[5; 16]), block(0, true, 0)).unwrap();
    let whole = [[5; 16], [6; 16]].concat();
    assert_eq!(take(&mut all, 1, &put("a", &[6; 16]), block(1, false, 0)), Ok(Taken::Whole(whole)));
}

#[test]
fn transfers_are_told_apart_by_peer_method_path_and_tag_and_by_nothing_else() {
    let mut all = bodies();
    let mut tagged = put("a", &[2; 16]);
    tagged.add(REQUEST_TAG, b"1");
    let mut empty_tag = put("a", &[3; 16]);
    empty_tag.add(REQUEST_TAG, b"");
    let post = Message { code: Code::POST, ..put("a", &[4; 16]) };
    let first = [put("a", &[1; 16]), tagged, empty_tag, post, put("b", &[5; 16])];
    for (peer, request) in first.iter().map(|m| (1, m)).chain([(2, &first[0])]) {
        take(&mut all, peer, request, block(0, true, 0)).unwrap();
    }
    for mut request in first {
        let whole = [&request.payload[..], b"x"].concat();
        // Echo, Size1 and another token belong to the message, not to what is asked.
        request.add(ECHO, b"12345678");
        request.add_uint(SIZE1, 17);
        request.payload = b"x".to_vec();
        assert_eq!(take(&mut all, 1, &request, block(1, false, 0)), Ok(Taken::Whole(whole)));
    }
    assert!(all.used_by(1) == 0 && all.used_by(2) > 0);
}

#[test]
fn a_body_has_one_content_format() {
    let mut all = bodies();
    let mut first = put("a", &[1; 16]);
    first.add_uint(CONTENT_FORMAT, 50);
    take(&mut all, 1, &first, block(0, true, 0)).unwrap();
    assert_eq!(take(&mut all, 1, &put("a", b"x"), block(1, false, 0)), Err(Wrong::Incomplete));
}

#[test]
fn a_body_that_is_or_will_be_too_large_is_refused_and_forgotten() {
    let mut all = bodies();
    let mut announced = put("a", &[1; 16]);
    announced.add_uint(SIZE1, 1001);
    assert_eq!(take(&mut all, 1, &announced, block(0, true, 0)), Err(Wrong::TooLarge));
    take(&mut all, 1, &put("a", &[1; 512]), block(0, true, 5)).unwrap();
    assert_eq!(take(&mut all, 1, &put("a", &[1; 512]), block(1, true, 5)), Err(Wrong::TooLarge));
    assert_eq!(all.used(), 0);
    take(&mut all, 1, &put("a", &[1; 512]), block(0, true, 5)).unwrap();
    assert!(
        matches!(take(&mut all, 1, &put("a", &[1; 488]), block(1, false, 5)), Ok(Taken::Whole(b)) if b.len() == 1000)
    );
}

#[test]
fn a_block_has_the_length_that_it_says() {
    let mut all = bodies();
    assert_eq!(take(&mut all, 1, &put("a", &[1; 15]), block(0, true, 0)), Err(Wrong::Length));
    assert_eq!(take(&mut all, 1, &put("a", &[1; 17]), block(0, false, 0)), Err(Wrong::Length));
    assert_eq!(take(&mut all, 1, &put("a", &[1; 3]), block(0, false, 0)), Ok(Taken::Whole(vec![1; 3])));
}

#[test]
fn a_smaller_size_is_asked_for_and_may_be_used_at_any_time() {
    let mut all = bodies();
    let (now, from) = (Instant::default(), From { peer: 1, is_verified: true });
    let room = Room { payload: 40, ..ROOM };
    let taken = all.take(now, from, &put("a", &[1; 64]), block(0, true, 2), room);
    assert_eq!(taken, Ok(Taken::Continue(block(0, true, 1))));
    let taken = all.take(now, from, &put("a", &[1; 32]), block(2, true, 1), room);
    assert_eq!(taken, Ok(Taken::Continue(block(2, true, 1))));
    assert!(
        matches!(all.take(now, from, &put("a", &[1; 3]), block(6, false, 0), room), Ok(Taken::Whole(b)) if b.len() == 99)
    );
}

#[test]
fn bert_appends_several_blocks_at_a_time() {
    let mut all = Bodies::new(Limits { body: 9000, peer: 20_000, all: 20_000, ..LIMITS }, Budget::default());
    take(&mut all, 1, &put("a", &[1; 3072]), block(0, true, 7)).unwrap();
    assert_eq!(take(&mut all, 1, &put("a", &[1; 1000]), block(3, true, 7)), Err(Wrong::Length));
    take(&mut all, 1, &put("a", &[1; 3072]), block(0, true, 7)).unwrap();
    assert!(
        matches!(take(&mut all, 1, &put("a", &[2; 1500]), block(3, false, 7)), Ok(Taken::Whole(b)) if b.len() == 4572)
    );
}

#[test]
fn a_transfer_that_does_not_go_on_is_forgotten() {
    let mut all = bodies();
    let from = From { peer: 1, is_verified: true };
    let at = |seconds| Instant::default() + Duration::from_secs(seconds);
    all.take(at(0), from, &put("a", &[1; 16]), block(0, true, 0), ROOM).unwrap();
    all.take(at(200), from, &put("a", &[1; 16]), block(1, true, 0), ROOM).unwrap();
    assert_eq!(all.next(), Some(at(447)));
    let late = all.take(at(447), from, &put("a", &[1; 16]), block(2, true, 0), ROOM);
    assert_eq!((late, all.used()), (Err(Wrong::Incomplete), 0));
}

#[test]
fn those_who_may_be_others_make_room_for_those_who_are_who_they_seem() {
    let mut all = bodies();
    let (now, large) = (Instant::default(), put("a", &[1; 512]));
    let take = |all: &mut Bodies<u8>, peer, is_verified| {
        all.take(now, From { peer, is_verified }, &large, block(0, true, 5), ROOM)
    };
    for peer in 0..20 {
        take(&mut all, peer, false).unwrap();
        assert!(all.used() <= LIMITS.all);
    }
    for peer in 100..106 {
        take(&mut all, peer, true).unwrap();
    }
    assert!(all.used() <= LIMITS.all && (100..106).all(|p| all.used_by(p) > 0));
    assert_eq!(take(&mut all, 107, true), Err(Wrong::NoRoom));
    assert_eq!(take(&mut all, 108, false), Err(Wrong::NoRoom));
    (0..=255).for_each(|peer| all.forget(peer));
    assert_eq!((all.used(), all.next()), (0, None));
}

proptest! {
    #[test]
    fn a_body_comes_out_as_it_was_or_not_at_all(
        body in prop::collection::vec(any::<u8>(), 0..1200),
        szx in 0u8..=6,
        // What the network does with each message: 0 loses it, 1 doubles it, 2 delays it behind the next one.
        fates in prop::collection::vec(0u8..8, 1..40),
    ) {
        let mut all = bodies();
        let size = Szx::new(szx).unwrap().size();
        let count = body.len().div_ceil(size).max(1);
        let part = |n: usize| &body[n * size..body.len().min((n + 1) * size)];
        let (mut n, mut turn, mut delayed) = (0, 0, None);
        // As a client does: the next block when this one was taken, from the beginning after 4.08.
        let whole = loop {
            let fate = fates[turn % fates.len()];
            turn += 1;
            if turn > 2000 {
                break None;
            }
            let request = (put("a", part(n)), block(n as u32, n + 1 < count, szx));
            let mut arrives: Vec<_> = delayed.take().into_iter().collect();
            match fate {
                0 => {}
                1 => arrives.extend([request.clone(), request]),
                2 => delayed = Some(request),
                _ => arrives.push(request),
            }
            let mut last = None;
            for (request, block) in &arrives {
                let taken = take(&mut all, 1, request, *block);
                prop_assert!(all.used() <= LIMITS.peer);
                if let Ok(Taken::Whole(_)) = taken {
                    last = Some(taken);
                    break;
                }
                last = Some(taken);
            }
            match last {
                Some(Ok(Taken::Whole(whole))) => break Some(Ok(whole)),
                Some(Ok(Taken::Continue(done))) => n = (done.number as usize + 1).min(count - 1),
                Some(Err(Wrong::Incomplete)) => n = 0,
                Some(Err(why)) => break Some(Err(why)),
                None => {}
            }
        };
        match whole {
            Some(Ok(whole)) => prop_assert_eq!(whole, body),
            Some(Err(why)) => prop_assert!(why == Wrong::TooLarge && body.len() > LIMITS.body, "{why:?}"),
            // Only if everything was lost.
            None => prop_assert!(fates.contains(&0) || fates.contains(&2)),
        }
        all.forget(1);
        prop_assert_eq!((all.used(), all.next()), (0, None));
    }
}
