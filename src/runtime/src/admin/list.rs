//! What is listed for operators. Each list is bounded; where there is more, `more` says so.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway::{Filter, Peer, Transport};
use hashbrown::HashMap;
use router::SessionInfo;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{PAGE, Page};
use crate::house::House;
use crate::mailbox::Mail;
use crate::{own, requests};

/// What a conversation may have several of.
const LISTS: &[&str] = &["observations"];
/// Longest wait for a driver that describes one of its conversations.
const PATIENCE: Duration = Duration::from_secs(2);

/// The session for requests to devices is there always, and nobody's.
fn is_hidden(info: &SessionInfo) -> bool {
    *info.namespace == *own::NAMESPACE && *info.client_id == *requests::CLIENT_ID
}

/// Sessions whose client id holds `part`.
pub(super) async fn clients(house: &House, part: &str) -> Page {
    let found = house.router.sessions(part, PAGE + 2);
    let found: Vec<&SessionInfo> = found.iter().filter(|info| !is_hidden(info)).collect();
    let transports = transports(house, &found).await;
    Page::of(found.iter().map(|info| {
        let mut fields = session(info);
        let transport = info.at.and_then(|at| transports.get(&(at.driver, at.peer))).map(|t| t.label());
        fields.insert("transport".into(), transport.into());
        fields.into()
    }))
}

/// What carries these sessions' conversations, as far as their drivers say so in time.
async fn transports(house: &House, found: &[&SessionInfo]) -> HashMap<(u16, Peer), Transport> {
    let mut by_driver: BTreeMap<u16, Vec<Peer>> = BTreeMap::new();
    for at in found.iter().filter_map(|info| info.at) {
        by_driver.entry(at.driver).or_default().push(at.peer);
    }
    let mut asked = Vec::new();
    for (driver, peers) in by_driver {
        let Some(mailbox) = house.boxes.get(usize::from(driver)) else { continue };
        let (answer, answered) = oneshot::channel();
        mailbox.push(Mail::Transports(peers.clone(), answer));
        asked.push((driver, peers, answered));
    }
    let mut known = HashMap::new();
    let end = tokio::time::Instant::now() + PATIENCE;
    for (driver, peers, answered) in asked {
        if let Ok(Ok(transports)) = tokio::time::timeout_at(end, answered).await {
            let each = peers.into_iter().zip(transports);
            known.extend(each.filter_map(|(peer, transport)| Some(((driver, peer), transport?))));
        }
    }
    known
}

fn session(info: &SessionInfo) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("client_id".into(), (*info.client_id).into());
    fields.insert("namespace".into(), (*info.namespace).into());
    fields.insert("connected".into(), info.at.is_some().into());
    fields.insert("user".into(), info.principal.as_deref().into());
    fields.insert(
        "expiry".into(),
        if info.expiry == Duration::MAX { "never".into() } else { info.expiry.as_secs().into() },
    );
    fields.insert("subscriptions".into(), info.filters.len().into());
    fields.insert("queued".into(), info.queued.into());
    fields.insert("inflight".into(), info.inflight.into());
    fields
}

/// One client: its session, and its conversation if there is one.
pub(super) async fn client(house: &House, id: &str) -> Result<Page, String> {
    let info = house.router.session(id).ok_or_else(|| format!("there is no client `{id}`"))?;
    let mut fields = session(&info);
    let filters: Vec<Value> = info.filters.iter().take(PAGE).map(|f| f.as_str().into()).collect();
    fields.insert("filters".into(), filters.into());
    if let Some(at) = info.at
        && let Some(description) = describe(house, at.driver, at.peer).await
    {
        for (key, value) in description {
            match fields.get_mut(key) {
                Some(Value::Array(list)) => list.push(value.into()),
                _ if LISTS.contains(&key) => drop(fields.insert(key.to_owned(), json!([value]))),
                _ => drop(fields.insert(key.to_owned(), value.into())),
            }
        }
    }
    Ok(Page::of([fields.into()]))
}

/// None if the conversation ended meanwhile, or its driver is too busy to say.
async fn describe(house: &House, driver: u16, peer: Peer) -> Option<crate::mailbox::Description> {
    let (answer, described) = oneshot::channel();
    house.boxes.get(usize::from(driver))?.push(Mail::Describe(peer, answer));
    tokio::time::timeout(PATIENCE, described).await.ok()?.ok()
}

/// Retained messages that `filter` matches.
pub(super) fn topics(house: &House, filter: &str) -> Result<Page, String> {
    let filter = Filter::parse(filter).map_err(|e| format!("`{filter}`: {e}"))?;
    let now = house.clock.now();
    let found = house.router.retained(now, &filter, PAGE + 1);
    Ok(Page::of(
        found.iter().map(|m| json!({"topic": m.topic(), "qos": m.qos() as u8, "bytes": m.payload().len()})),
    ))
}

/// Subscriptions, of one client or of all.
pub(super) fn subscriptions(house: &House, client_id: Option<&str>) -> Result<Page, String> {
    let sessions = match client_id {
        Some(id) => vec![house.router.session(id).ok_or_else(|| format!("there is no client `{id}`"))?],
        None => {
            let mut all = house.router.sessions("", PAGE + 2);
            all.retain(|info| !is_hidden(info));
            all
        }
    };
    let has_more = sessions.len() > PAGE;
    let each = sessions.iter().take(PAGE).flat_map(|info| {
        info.filters.iter().map(|f| json!({"client_id": info.client_id, "filter": f.as_str()}))
    });
    let mut page = Page::of(each.take(PAGE + 1));
    page.has_more |= has_more;
    Ok(page)
}

/// Who is kept out.
pub(super) fn bans(house: &House) -> Page {
    let bans = house.auth.bans().list(house.clock.now(), PAGE + 1);
    Page::of(bans.iter().map(|ban| {
        json!({
            "kind": ban.subject.kind(),
            "value": ban.subject.value(),
            "seconds_left": ban.remaining.map(|d| d.as_secs()),
            "reason": ban.reason,
        })
    }))
}
