//! Requests to devices: from an operator or an MQTT client to the machine of the device's conversation, and back.
//!
//! ```text
//! admin `coap.request`  ---\                                  /-> Gateway::command
//! `coap/{id}/request` ------> ask -> session -> driver's box -
//!   `…/response` <----------/                                 \-- Action::Answered (or the conversation's end)
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use auth::Grant;
use gateway::topic::check_name;
use gateway::{Failure, Message, Outcome, Peer, Request, Ticket};
use hashbrown::HashMap;
use tokio::sync::oneshot;

use crate::house::{House, Port};
use crate::mailbox::Mail;

pub(crate) mod json;
mod topic;

pub(crate) use topic::serve;

/// Of the session that subscribes to requests.
pub(crate) const CLIENT_ID: &str = "$requests";
/// Time beyond a request's own for a busy driver to tell what came of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the device that is connected with this client id in one of the namespaces.
pub(crate) async fn ask<'a>(
    house: &House,
    namespaces: impl Iterator<Item = &'a str>,
    client_id: &str,
    request: Request,
) -> Outcome {
    let outcome = wait_for(house, namespaces, client_id, request).await;
    house.metrics.asked(&outcome);
    outcome
}

async fn wait_for<'a>(
    house: &House,
    namespaces: impl Iterator<Item = &'a str>,
    client_id: &str,
    request: Request,
) -> Outcome {
    let found: Vec<_> = namespaces.filter_map(|ns| house.router.attachment(ns, client_id)).collect();
    if found.is_empty() {
        return Err(Failure::UnknownClient);
    }
    let at = found.into_iter().flatten().next().ok_or(Failure::NotConnected)?;
    let mailbox = house.boxes.get(usize::from(at.driver)).ok_or(Failure::NotConnected)?;
    let longest = request.timeout + PATIENCE;
    let (answer, answered) = oneshot::channel();
    mailbox.push(Mail::Command(at.peer, Box::new(request), answer));
    match tokio::time::timeout(longest, answered).await {
        Ok(outcome) => outcome.unwrap_or(Err(Failure::Gone)),
        Err(_) => Err(Failure::Timeout),
    }
}

/// Requests of one driver that its machines have not answered yet.
#[derive(Default)]
pub(crate) struct Commands {
    last: u64,
    waiting: HashMap<Ticket, (Peer, oneshot::Sender<Outcome>)>,
}

impl Commands {
    /// Another request, and the ticket that its answer will bear.
    pub(crate) fn begin(&mut self, peer: Peer, answer: oneshot::Sender<Outcome>) -> Ticket {
        self.last += 1;
        self.waiting.insert(Ticket(self.last), (peer, answer));
        Ticket(self.last)
    }

    /// The answer; a second one finds nobody.
    pub(crate) fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        if let Some((_, answer)) = self.waiting.remove(&ticket) {
            // Who asked may have gone.
            let _ = answer.send(outcome);
        }
    }

    /// The conversation is over. Its machine should have answered all.
    pub(crate) fn lost(&mut self, peer: Peer) {
        if !self.waiting.is_empty() {
            self.waiting.retain(|_, (whose, _)| *whose != peer);
        }
    }
}

/// A topic below which clients publish requests, `{topic}/{client id}/request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTopic {
    topic: Box<str>,
    /// Where the devices are that can be asked there.
    namespaces: BTreeSet<Box<str>>,
}

impl RequestTopic {
    /// Those of all listeners.
    pub(crate) fn of<'a>(ports: impl Iterator<Item = &'a Port>) -> Vec<RequestTopic> {
        let mut all: Vec<RequestTopic> = Vec::new();
        for port in ports {
            let Some(topic) = port.factory.request_topic() else { continue };
            let namespace = port.facts.namespace.clone();
            match all.iter_mut().find(|t| *t.topic == *topic) {
                Some(known) => drop(known.namespaces.insert(namespace)),
                None => all.push(RequestTopic { topic: topic.into(), namespaces: [namespace].into() }),
            }
        }
        all
    }

    /// The client id in a request's topic.
    fn client_id<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let id = topic.strip_prefix(&*self.topic)?.strip_prefix('/')?.strip_suffix("/request")?;
        (!id.is_empty() && !id.contains('/')).then_some(id)
    }
}

/// A request's answer goes where the request says (Response Topic): only where its publisher may publish itself, and not
/// out of its mountpoint. `name` is the topic that the message is published under in the end.
pub(crate) fn may_answer(
    house: &House,
    grant: &Grant,
    mount: &str,
    name: impl FnOnce() -> String,
    message: &Message,
) -> bool {
    let Some(wanted) = message.properties().and_then(|p| p.response_topic.as_deref()) else { return true };
    let topics = &house.request_topics;
    if topics.is_empty() {
        return true;
    }
    let name = name();
    if topics.iter().all(|t| t.client_id(&name).is_none()) {
        return true;
    }
    let is_plain = check_name(wanted).is_ok() && !wanted.starts_with('$');
    mount.is_empty() && is_plain && grant.may_publish(wanted, message.qos(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_and_its_peers_end_answers_what_is_left() {
        let mut commands = Commands::default();
        let peer = |slot| Peer { slot, generation: 1 };
        let (one, mut first) = oneshot::channel();
        let (two, mut second) = oneshot::channel();
        let ticket = commands.begin(peer(1), one);
        commands.begin(peer(2), two);
        commands.end(ticket, Err(Failure::Timeout));
        commands.end(ticket, Err(Failure::Gone));
        assert_eq!(first.try_recv(), Ok(Err(Failure::Timeout)));
        commands.lost(peer(1));
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        commands.lost(peer(2));
        assert_eq!(second.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(commands.waiting.is_empty());
    }

    #[test]
    fn the_client_id_is_one_level_of_the_requests_topic() {
        let topic = RequestTopic { topic: "a/coap".into(), namespaces: BTreeSet::new() };
        assert_eq!(topic.client_id("a/coap/dev-1/request"), Some("dev-1"));
        for other in [
            "a/coap/dev/1/request",
            "a/coap//request",
            "a/coap/request",
            "coap/x/request",
            "a/coapx/d/request",
        ] {
            assert_eq!(topic.client_id(other), None, "{other}");
        }
    }
}
