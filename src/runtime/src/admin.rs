//! The operator's socket: Unix, for its owner alone, one JSON object a line.
//!
//! ```text
//! {"do": "clients.list", "part": "dev-"}   ->
//!                                          <-   {"item": {…}} …
//!                                          <-   {"done": true, "more": false}   or   {"error": "…"}
//! ```
//!
//! | do | besides | items |
//! |---|---|---|
//! | `clients.list` | `part` of the client id | a session each |
//! | `clients.show`, `clients.kick` | `client_id` | one client; one line |
//! | `coap.request` | `client_id`, and as in [`crate::requests`]' JSON | its answer, or why there is none |
//! | `topics` | `filter` | a retained message each |
//! | `subscriptions` | `client_id` | one each |
//! | `pub` | `topic`, `payload` or `payload_base64`, `qos`, `retain` | one line |
//! | `sub` | `filter`, `qos`, `count` | a message each, until who asked has gone |
//! | `trace` | `client_id` | a packet each, until who asked has gone |
//! | `store.stats`, `store.check` | | the store; a row a table |
//! | `store.backup` | `folder` | one line |
//! | `codecs.list`, `codecs.versions`, `codecs.errors` | `codec`, but for the list | a codec, a version, a failed call each |
//! | `codecs.reload`, `codecs.canary`, `codecs.promote`, `codecs.rollback` | `codec`, `share`, `version` | a line each |
//! | `bans.list`, `bans.add`, `bans.remove` | `kind`, `value`, `seconds` | a ban each; one line |
//!
//! Requests and lists are bounded, and so is the number of connections; `more` says that a list was cut.

mod codecs;
mod list;
pub mod store;
mod subscribe;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use auth::ban::Subject;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use gateway::topic::check_name;
use gateway::{Message, Qos, Stop};
use router::Post;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::house::House;
use crate::mailbox::Mail;
use crate::requests;

/// Most connections at a time; more wait unaccepted.
const MAX_CONNECTIONS: usize = 32;
/// Longest request in bytes: a payload of 1 MiB in base64.
const MAX_REQUEST: u64 = 1_500_000;
/// Longest time to make a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most items of one answer.
const PAGE: usize = 10_000;

/// Serves the socket until the task is ended.
pub async fn serve(listener: UnixListener, house: Arc<House>) {
    let subscribers = Arc::new(subscribe::Subscribers::new(&house));
    let mut running = JoinSet::new();
    running.spawn(subscribers.clone().sort_mail(house.clone()));
    loop {
        tokio::select! {
            accepted = listener.accept(), if running.len() <= MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let desk = Desk { house: house.clone(), subscribers: subscribers.clone() };
                    running.spawn(async move {
                        // Who asked may leave at any time.
                        let _ = desk.serve(stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket: cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            _ = running.join_next() => {}
        }
    }
}

/// One connection's answers.
struct Desk {
    house: Arc<House>,
    subscribers: Arc<subscribe::Subscribers>,
}

/// What an answer ends with: whether there was more.
type Answer = Result<bool, String>;

/// Where items go.
struct Items {
    out: OwnedWriteHalf,
}

impl Items {
    async fn line(&mut self, value: &Value) -> io::Result<()> {
        self.out.write_all(format!("{value}\n").as_bytes()).await
    }

    async fn item(&mut self, item: Value) -> io::Result<()> {
        self.line(&json!({ "item": item })).await
    }
}

impl Desk {
    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let (input, out) = stream.into_split();
        let mut input = BufReader::new(input).take(MAX_REQUEST);
        let mut items = Items { out };
        let mut line = String::new();
        if tokio::time::timeout(REQUEST_TIMEOUT, input.read_line(&mut line)).await.is_err() {
            return items.line(&json!({"error": "no request in time"})).await;
        }
        let answer = match serde_json::from_str::<Value>(&line) {
            Ok(request) => self.answer(&request, &mut input.into_inner(), &mut items).await?,
            Err(_) => Err("the request is not a JSON object in one line of at most 1.5 MB".to_owned()),
        };
        match answer {
            Ok(more) => items.line(&json!({"done": true, "more": more})).await,
            Err(text) => items.line(&json!({ "error": text })).await,
        }
    }

    async fn answer(
        &self,
        request: &Value,
        input: &mut BufReader<OwnedReadHalf>,
        items: &mut Items,
    ) -> io::Result<Answer> {
        let page = match request["do"].as_str().unwrap_or_default() {
            "clients.list" => {
                Ok(list::clients(&self.house, request["part"].as_str().unwrap_or_default()).await)
            }
            "coap.request" => self.ask(request).await,
            "clients.show" => match text(request, "client_id") {
                Ok(id) => list::client(&self.house, id).await,
                Err(e) => Err(e),
            },
            "clients.kick" => self.kick(request),
            "topics" => list::topics(&self.house, request["filter"].as_str().unwrap_or("#")),
            "subscriptions" => list::subscriptions(&self.house, request["client_id"].as_str()),
            "pub" => self.publish(request).await,
            "store.stats" => store::stats(&self.house),
            "store.check" => store::check_running(&self.house).await,
            "store.backup" => match text(request, "folder") {
                Ok(folder) => store::backup(&self.house, folder.into()).await,
                Err(e) => Err(e),
            },
            "sub" => return self.subscribers.run(&self.house, request, input, items).await,
            "trace" => return self.trace(request, input, items).await,
            "bans.list" => Ok(list::bans(&self.house)),
            "bans.add" => self.ban(request),
            "bans.remove" => self.unban(request),
            other
                if let Some(what) = other.strip_prefix("codecs.")
                    && let Some(page) = codecs::answer(&self.house, what, request).await =>
            {
                page
            }
            other => Err(format!("`{other}` is nothing that can be asked for")),
        };
        let page = match page {
            Ok(page) => page,
            Err(text) => return Ok(Err(text)),
        };
        for item in page.items {
            items.item(item).await?;
        }
        Ok(Ok(page.has_more))
    }

    async fn publish(&self, request: &Value) -> Result<Page, String> {
        let topic = text(request, "topic")?;
        check_name(topic).map_err(|e| e.to_string())?;
        if topic == "$SYS" || topic.starts_with("$SYS/") {
            return Err("$SYS is the gateway's own".to_owned());
        }
        let payload = match request["payload_base64"].as_str() {
            Some(text) => BASE64.decode(text).map_err(|e| format!("payload_base64: {e}"))?,
            None => request["payload"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        let message = Message::new(self.house.clock.now(), topic, &payload)
            .with_qos(qos(request)?)
            .with_retain(request["retain"].as_bool().unwrap_or(false));
        let kept = self.house.publish_kept(message);
        let (count, batch) = kept.map_err(|why| format!("refused: {}", crate::metrics::label(why)))?;
        store::written(&self.house, batch).await?;
        Ok(Page::line(format!("published to {count} subscription(s)")))
    }

    /// Asks a device, wherever its client id is connected.
    async fn ask(&self, request: &Value) -> Result<Page, String> {
        let id = text(request, "client_id")?;
        let asked = requests::json::decode(request, &["do", "client_id"])?;
        let namespaces: BTreeSet<&str> = self.house.ports.iter().map(|p| &*p.facts.namespace).collect();
        let outcome = requests::ask(&self.house, namespaces.into_iter(), id, asked).await;
        Ok(Page::of([requests::json::encode(&outcome).into()]))
    }

    /// Ends the client's connection; without one, its session.
    fn kick(&self, request: &Value) -> Result<Page, String> {
        let id = text(request, "client_id")?;
        let (now, mut post) = (self.house.clock.now(), Post::default());
        let namespaces: BTreeSet<&str> = self.house.ports.iter().map(|p| &*p.facts.namespace).collect();
        let count = namespaces.iter().filter(|ns| self.house.router.kick(now, ns, id, &mut post)).count();
        self.house.post(&mut post);
        if count == 0 {
            return Err(format!("there is no client `{id}`"));
        }
        Ok(Page::line(format!("client `{id}` ended")))
    }

    async fn trace(
        &self,
        request: &Value,
        input: &mut BufReader<OwnedReadHalf>,
        items: &mut Items,
    ) -> io::Result<Answer> {
        let id = match text(request, "client_id") {
            Ok(id) => id,
            Err(e) => return Ok(Err(e)),
        };
        let mut lines = self.house.traces.begin(id);
        let result = loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => {
                        if let Err(e) = items.item(line.into()).await {
                            break Err(e);
                        }
                    }
                    None => break Ok(Ok(false)),
                },
                () = gone(input) => break Ok(Ok(false)),
            }
        };
        drop(lines);
        self.house.traces.forget_closed();
        result
    }

    fn ban(&self, request: &Value) -> Result<Page, String> {
        let subject = Subject::parse(text(request, "kind")?, text(request, "value")?)?;
        let duration = request["seconds"].as_u64().map(Duration::from_secs);
        self.house.auth.bans().add(self.house.clock.now(), subject.clone(), duration)?;
        let ended = match &subject {
            Subject::ClientId(id) => self.house.router.attachments(Some(id), None, usize::MAX),
            Subject::Username(name) => self.house.router.attachments(None, Some(name), usize::MAX),
            Subject::Address(_) => Vec::new(),
        };
        for at in &ended {
            if let Some(mailbox) = self.house.boxes.get(usize::from(at.driver)) {
                mailbox.push(Mail::Stop(at.peer, Stop::Kicked));
            }
        }
        let ended = ended.len();
        Ok(Page::line(format!(
            "{} `{}` is kept out; {ended} connection(s) ended",
            subject.kind(),
            subject.value()
        )))
    }

    fn unban(&self, request: &Value) -> Result<Page, String> {
        let subject = Subject::parse(text(request, "kind")?, text(request, "value")?)?;
        if !self.house.auth.bans().remove(&subject) {
            return Err(format!("{} `{}` was not kept out", subject.kind(), subject.value()));
        }
        Ok(Page::line(format!("{} `{}` may come in again", subject.kind(), subject.value())))
    }
}

/// A bounded answer, and whether there was more.
struct Page {
    items: Vec<Value>,
    has_more: bool,
}

impl Page {
    fn line(text: String) -> Page {
        Page { items: vec![text.into()], has_more: false }
    }

    /// At most [`PAGE`] of `items`.
    fn of(items: impl IntoIterator<Item = Value>) -> Page {
        let mut items = items.into_iter();
        let first = items.by_ref().take(PAGE).collect();
        Page { items: first, has_more: items.next().is_some() }
    }
}

fn text<'a>(request: &'a Value, key: &str) -> Result<&'a str, String> {
    request[key].as_str().filter(|t| !t.is_empty()).ok_or_else(|| format!("`{key}` is missing"))
}

fn qos(request: &Value) -> Result<Qos, String> {
    let level = request["qos"].as_u64().unwrap_or(0);
    u8::try_from(level).ok().and_then(Qos::from_u8).ok_or_else(|| "`qos` is 0, 1 or 2".to_owned())
}

/// Until who asked has closed the connection. What it says meanwhile is not heard.
async fn gone(input: &mut BufReader<OwnedReadHalf>) {
    let mut buffer = [0; 256];
    while input.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}
