//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use crate::metrics::{Snapshot, StoreState};

/// The figures as text.
pub fn render(snapshot: &Snapshot) -> String {
    let s = snapshot;
    let mut t = Text(String::with_capacity(8192));
    t.head("build_info", "gauge", "Always 1; the version is its label.");
    t.line("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    t.one("uptime_seconds", "gauge", "Time since the start.", s.uptime);

    t.head("connections", "gauge", "Conversations open now.");
    for (protocol, listener, n) in &s.open {
        t.line("connections", &[("protocol", protocol), ("listener", listener)], n);
    }
    if !s.associations.is_empty() {
        t.head("dtls_associations", "gauge", "DTLS associations; parked ones take a few hundred bytes.");
    }
    for (listener, counts) in &s.associations {
        for (state, n) in ["active", "parked", "half_open"].iter().zip(counts) {
            t.line("dtls_associations", &[("listener", listener), ("state", state)], n);
        }
    }
    t.one("clients", "gauge", "Clients connected now, of all protocols.", s.clients());
    t.one("connections_accepted_total", "counter", "Stream connections accepted.", s.accepted);
    t.one(
        "accept_errors_total",
        "counter",
        "Stream connections that could not be accepted.",
        s.accept_failed,
    );
    t.one("connects_total", "counter", "Clients that came in.", s.connected);
    t.one("disconnects_total", "counter", "Clients that came in and have gone.", s.disconnected);
    t.by_reason("login_refusals_total", "Logins refused.", &s.refused);
    t.by_reason("closes_total", "Conversations ended.", &s.closed);
    t.one("rests_total", "counter", "Times a client over its rate limit was read later.", s.rested);

    t.by_qos("messages_received_total", "Messages published by clients.", s.received);
    t.by_qos("messages_sent_total", "Messages delivered to clients.", s.sent);
    t.by("device_requests_total", "Requests to devices, by what came of them.", "outcome", &s.asked);
    t.by_reason("drops_total", "Messages and datagrams dropped.", &s.dropped);
    t.one("bytes_received_total", "counter", "Bytes read from sockets.", s.bytes_in);
    t.one("bytes_sent_total", "counter", "Bytes written to sockets.", s.bytes_out);

    let r = &s.router;
    t.one("sessions", "gauge", "Sessions, connected or not.", r.sessions);
    t.one("subscriptions", "gauge", "Subscriptions.", r.subscriptions);
    t.one("shared_subscriptions", "gauge", "Shared subscriptions among them.", r.shared);
    t.one("topic_filters", "gauge", "Different topic filters subscribed to.", r.filters);
    t.one("retained_messages", "gauge", "Retained messages.", r.retained);
    t.one("retained_bytes", "gauge", "Memory of retained messages.", r.retained_bytes);
    t.one("delayed_messages", "gauge", "Messages that wait for their delay.", r.delayed);
    t.one("delayed_bytes", "gauge", "Memory of delayed messages.", r.delayed_bytes);
    if let Some(store) = &s.store {
        store_figures(&mut t, store);
    }
    script_figures(&mut t, s);
    t.0
}

fn script_figures(t: &mut Text, s: &Snapshot) {
    let [starts, kills, deaths] = s.workers;
    t.one("script_worker_starts_total", "counter", "Processes started to run scripts.", starts);
    t.one("script_worker_kills_total", "counter", "Those killed, since a call was late.", kills);
    t.one("script_worker_deaths_total", "counter", "Those that died by themselves.", deaths);
    if s.scripts.is_empty() {
        return;
    }
    t.head("script_calls_total", "counter", "Calls of scripts that have ended.");
    for script in &s.scripts {
        t.line("script_calls_total", &[("codec", &script.name)], script.calls);
    }
    t.head("script_failures_total", "counter", "Those of them that failed.");
    for script in &s.scripts {
        for (reason, n) in &script.failures {
            t.line("script_failures_total", &[("codec", &script.name), ("reason", reason)], n);
        }
    }
    t.head("script_micros_total", "counter", "Time that workers were busy with them, in microseconds.");
    for script in &s.scripts {
        t.line("script_micros_total", &[("codec", &script.name)], script.busy.as_micros());
    }
}

fn store_figures(t: &mut Text, store: &StoreState) {
    let f = &store.figures;
    t.one("store_up", "gauge", "1 while the store writes, 0 while it cannot.", u8::from(store.is_working));
    t.one("store_commits_total", "counter", "Batches written to the disk.", f.commits);
    t.one("store_records_total", "counter", "Changes in them.", f.records);
    t.one("store_failures_total", "counter", "Attempts to write that failed.", f.failures);
    t.one("store_commit_micros_total", "counter", "Time that commits took, in microseconds.", f.micros);
    t.one("store_commit_micros_max", "gauge", "The longest commit, in microseconds.", f.longest_micros);
    t.one("store_messages", "gauge", "Messages waiting in durable sessions.", f.messages);
    t.one("store_message_bytes", "gauge", "Their bytes; a message for several counts once.", f.bytes);
    t.one("store_shared_messages", "gauge", "Messages that several sessions wait for.", f.shared);
    t.one("store_pending_bytes", "gauge", "Changes that wait to be written.", f.pending_bytes);
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into memory does not fail, here and below.
        let _ = write!(self.0, "# HELP tidegate_{name} {help}\n# TYPE tidegate_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "tidegate_{name}");
        for (i, (key, value)) in labels.iter().enumerate() {
            let open = if i == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{key}=\"{}\"", escape(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    fn by_qos(&mut self, name: &str, help: &str, values: [u64; 3]) {
        self.head(name, "counter", help);
        for (qos, n) in ["0", "1", "2"].iter().zip(values) {
            self.line(name, &[("qos", qos)], n);
        }
    }

    fn by_reason(&mut self, name: &str, help: &str, values: &[(&'static str, u64)]) {
        self.by(name, help, "reason", values);
    }

    fn by(&mut self, name: &str, help: &str, label: &str, values: &[(&'static str, u64)]) {
        self.head(name, "counter", help);
        for (value, n) in values {
            self.line(name, &[(label, value)], n);
        }
    }
}

/// A label's value; a listener's name may hold anything.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::scripts::ScriptFigures;

    fn text() -> String {
        render(&Snapshot {
            received: [1, 2, 3],
            dropped: vec![("acl", 4)],
            open: vec![("mqtt", "a\"b\\c\nd".into(), 5)],
            associations: vec![("dtls".into(), [1, 9, 0])],
            connected: 7,
            disconnected: 1,
            store: Some(StoreState::default()),
            scripts: vec![ScriptFigures {
                name: "meter".into(),
                calls: 3,
                failures: vec![("limit", 1)],
                busy: std::time::Duration::from_millis(1500),
            }],
            ..Snapshot::default()
        })
    }

    #[test]
    fn figures_come_with_their_labels() {
        let text = text();
        for line in [
            "tidegate_messages_received_total{qos=\"2\"} 3\n",
            "tidegate_drops_total{reason=\"acl\"} 4\n",
            "tidegate_connections{protocol=\"mqtt\",listener=\"a\\\"b\\\\c\\nd\"} 5\n",
            "tidegate_clients 6\n",
            "tidegate_dtls_associations{listener=\"dtls\",state=\"parked\"} 9\n",
            "tidegate_store_up 0\n",
            "# TYPE tidegate_clients gauge\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn every_sample_follows_one_head_of_its_name_and_counters_end_in_total() {
        let text = text();
        let (mut seen, mut current) = (HashSet::new(), "");
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                let (name, kind) = head.split_once(' ').unwrap();
                assert!(seen.insert(name), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                current = name;
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next(), Some(current));
                assert!(line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(), "{line}");
            }
        }
    }
}
