//! Sessions of the gateway's own: what it subscribes to for operators and for requests to devices.

use std::sync::Arc;

use gateway::{Connect, Deliver, Delivery, DeliveryId, Settle, Subscribe};
use router::{Attachment, Matches, Open, Post, Session};

use crate::house::House;

/// Deliveries handed over at a time.
pub(crate) const BATCH: usize = 256;

/// A namespace that no listener has.
pub(crate) const NAMESPACE: &str = "$admin";

/// Opens a session with these subscriptions; no client can take it over.
pub(crate) fn attach(
    house: &House,
    at: Attachment,
    client_id: &str,
    subscriptions: Vec<Subscribe>,
) -> Result<Arc<Session>, String> {
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let mut connect = Connect {
        is_transient: true,
        ..Connect::new(client_id, "admin", u16::try_from(BATCH).unwrap_or(u16::MAX))
    };
    let now = house.clock.now();
    let open = Open {
        connect: &mut connect,
        namespace: NAMESPACE,
        principal: None,
        username: None,
        mount: "".into(),
    };
    let session = house
        .router
        .connect(now, at, open, &mut matches, &mut post)
        .map(|opened| opened.session)
        .map_err(|why| format!("refused: {why:?}"))?;
    let mut subscribe = |s| house.router.subscribe(now, &session, s, &mut matches, &mut post).map(drop);
    let subscribed = subscriptions.into_iter().try_for_each(&mut subscribe);
    house.post(&mut post);
    match subscribed {
        Ok(()) => Ok(session),
        Err(why) => {
            detach(house, at, &session);
            Err(format!("refused: {why:?}"))
        }
    }
}

/// Ends such a session.
pub(crate) fn detach(house: &House, at: Attachment, session: &Arc<Session>) {
    let (mut matches, mut post) = (Matches::default(), Post::default());
    let now = house.clock.now();
    house.router.disconnect(now, session, at, false, None, &mut matches, &mut post);
    house.post(&mut post);
}

/// Hands over a batch of the session's queue, and tells whether more waits. Everything is settled at once.
pub(crate) fn drain(
    house: &House,
    at: Attachment,
    session: &Session,
    mut each: impl FnMut(&Delivery<'_>),
) -> bool {
    let (mut count, mut ids): (usize, Vec<DeliveryId>) = Default::default();
    let now = house.clock.now();
    let mut post = Post::default();
    let has_more = house.router.drain(now, session, at, &mut post, |deliver| {
        match deliver {
            Deliver::Message(d) => {
                each(d);
                count += 1;
                ids.extend(d.id);
            }
            Deliver::Release(id) => ids.push(*id),
            Deliver::Nothing => {}
        }
        count < BATCH
    });
    for id in ids {
        house.router.settle(now, session, id, Settle::Done, &mut post);
    }
    house.post(&mut post);
    has_more
}
