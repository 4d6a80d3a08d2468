//! What an operator sees of the codecs that were brought.

use gateway::time::datetime;
use serde_json::{Value, json};

use super::{Codec, Keeper};
use crate::scripts::Sample;

impl Keeper {
    /// An item for each codec.
    pub fn overview(&self) -> Vec<Value> {
        let codecs = self.codecs.lock();
        let item = |(name, codec): (&str, &Codec)| {
            let state = &codec.state;
            let kind =
                state.versions.iter().find(|v| Some(v.number) == state.current).map(|v| v.kind.label());
            json!({
                "codec": name, "kind": kind, "current": state.current,
                "canary": state.canary.map(|(version, share)| format!("{version}, {share} of 100")),
                "error": codec.error.as_deref().map(one_line),
            })
        };
        codecs.iter().map(|(name, codec)| item((&**name, codec))).collect()
    }

    /// An item for each version of a codec, and at the end one for files that were not taken.
    pub fn versions(&self, name: &str) -> Result<Vec<Value>, String> {
        let codecs = self.codecs.lock();
        let codec = codecs.get(name).ok_or_else(|| format!("no codec `{name}` has been brought"))?;
        let state = &codec.state;
        let usage = |number: u32| match state.canary {
            _ if state.current == Some(number) => "current".to_owned(),
            Some((version, share)) if version == number => format!("{share} of 100"),
            _ => String::new(),
        };
        let mut items: Vec<Value> = Vec::new();
        for v in &state.versions {
            items.push(json!({
                "version": v.number, "use": usage(v.number), "kind": v.kind.label(),
                "loaded": datetime(v.loaded_ms), "hash": v.hash.get(..12), "from": v.from, "error": null,
            }));
        }
        if let Some(error) = &codec.error {
            items.push(json!({"version": null, "use": "refused", "error": one_line(error)}));
        }
        Ok(items)
    }

    /// The last calls of a script that failed, the oldest first.
    pub fn errors(&self, name: &str) -> Result<Vec<Value>, String> {
        if !self.codecs.lock().contains_key(name) {
            return Err(format!("no codec `{name}` has been brought"));
        }
        let item = |s: Sample| {
            let more = if s.length > s.input.len() { "…" } else { "" };
            json!({
                "time": datetime(s.wall_ms), "version": s.version, "device": s.device, "port": s.port,
                "bytes": s.length, "input": format!("{}{more}", codecs::hex::encode(&s.input)), "error": s.why,
            })
        };
        Ok(self.scripts.records.of(name).samples().into_iter().map(item).collect())
    }
}

/// For a table: what stood in lines of its own is set apart by bars.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" | ")
}
