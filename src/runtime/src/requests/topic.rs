//! Requests published to `{topic}/{client id}/request`, answered at `{topic}/{client id}/response` or where the request says
//! (Response Topic of MQTT 5.0, 4.10), each with its `id` and its Correlation Data.
//!
//! The subscription is the gateway's own. Who may publish there may ask: the access list decides, as for every publication.

use std::sync::Arc;

use bytes::Bytes;
use gateway::{Delivery, Failure, Filter, Message, Peer, Properties, Qos, Subscribe};
use router::Attachment;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::{CLIENT_ID, ask, json};
use crate::house::House;
use crate::own;

/// Requests under way; the next are told so.
const MAX_RUNNING: usize = 1000;

/// One request as it was published.
struct Published {
    topic: Box<str>,
    payload: Bytes,
    qos: Qos,
    response_topic: Option<Box<str>>,
    correlation_data: Option<Bytes>,
}

impl Published {
    fn of(d: &Delivery<'_>) -> Published {
        let said = d.message.properties();
        Published {
            topic: d.topic.into(),
            payload: Bytes::copy_from_slice(d.message.payload()),
            qos: d.qos,
            response_topic: said.and_then(|p| p.response_topic.clone()),
            correlation_data: said.and_then(|p| p.correlation_data.clone()),
        }
    }

    /// Where the answer goes; what may not be published to was refused when this came.
    fn response_topic(&self) -> String {
        match (&self.response_topic, self.topic.strip_suffix("request")) {
            (Some(topic), _) => topic.to_string(),
            (None, Some(head)) => format!("{head}response"),
            (None, None) => self.topic.to_string(),
        }
    }
}

/// Serves requests until the task is ended.
pub(crate) async fn serve(house: Arc<House>) {
    // The last but one; the last is the admin socket's.
    let driver = house.boxes.len().saturating_sub(2);
    let Some(mailbox) = house.boxes.get(driver) else { return };
    let peer = Peer::default();
    let at = Attachment { driver: u16::try_from(driver).unwrap_or(u16::MAX), peer };
    let filters =
        house.request_topics.iter().filter_map(|t| Filter::parse(&format!("{}/+/request", t.topic)).ok());
    let session = match own::attach(&house, at, CLIENT_ID, filters.map(subscription).collect()) {
        Ok(session) => session,
        Err(error) => return tracing::error!(error, "requests to devices cannot be served"),
    };
    let mut running = JoinSet::new();
    let mut mail = Vec::new();
    loop {
        let mut batch = Vec::new();
        let has_more = own::drain(&house, at, &session, |d| batch.push(Published::of(d)));
        for published in batch {
            while running.try_join_next().is_some() {}
            if running.len() < MAX_RUNNING {
                running.spawn(serve_one(house.clone(), published));
            } else {
                let outcome = Err(Failure::Busy);
                house.metrics.asked(&outcome);
                reply(&house, &published, id(&published), json::encode(&outcome));
            }
        }
        if !has_more {
            mailbox.wait().await;
            mailbox.take(&mut mail);
            mail.clear();
        }
    }
}

fn subscription(filter: Filter) -> Subscribe {
    Subscribe {
        filter,
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: true,
        // What was asked before the start is nobody's wish any more.
        retain_handling: 2,
        identifier: 0,
    }
}

fn id(published: &Published) -> Option<Value> {
    serde_json::from_slice::<Value>(&published.payload).ok()?.get("id").cloned()
}

async fn serve_one(house: Arc<House>, published: Published) {
    let request = serde_json::from_slice::<Value>(&published.payload);
    let id = request.as_ref().ok().and_then(|r| r.get("id").cloned());
    let request = request.map_err(|e| format!("the request is no JSON: {e}"));
    let answer = match request.and_then(|r| json::decode(&r, &["id"])) {
        Ok(request) => {
            let asked = house.request_topics.iter().find_map(|t| Some((t, t.client_id(&published.topic)?)));
            let Some((topic, client_id)) = asked else { return };
            let namespaces = topic.namespaces.iter().map(|ns| &**ns);
            json::encode(&ask(&house, namespaces, client_id, request).await)
        }
        Err(error) => {
            let mut fields = Map::new();
            fields.insert("error".into(), error.into());
            fields
        }
    };
    reply(&house, &published, id, answer);
}

fn reply(house: &House, published: &Published, id: Option<Value>, answer: Map<String, Value>) {
    let mut fields = Map::new();
    if let Some(id) = id {
        fields.insert("id".into(), id);
    }
    fields.extend(answer);
    let properties = Properties {
        utf8_payload: true,
        content_type: Some("application/json".into()),
        correlation_data: published.correlation_data.clone(),
        ..Properties::default()
    };
    let payload = Value::from(fields).to_string();
    let message = Message::new(house.clock.now(), &published.response_topic(), payload.as_bytes());
    house.publish(message.with_qos(published.qos).with_properties(properties));
}
