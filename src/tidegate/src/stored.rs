//! `tidegate store …` without a running gateway.

use std::path::Path;

use gateway::Now;
use runtime::admin::store::{check, describe};
use runtime::clock::Clock;
use serde_json::{Value, json};
use store::{Limits, Store};

use crate::cli::Stored;

/// Does it on the store in the data folder, which nobody else may have open. Items for the terminal.
pub(crate) fn run(data: &Path, command: &Stored) -> Result<Vec<Value>, String> {
    let folder = data.join("store");
    if !folder.join("format").exists() {
        return Err(format!("there is no store in {}; is --config or --data the same?", data.display()));
    }
    let store = Store::open(&folder, Limits::default()).map_err(|e| e.to_string())?;
    let now: Now = Clock::start().now();
    match command {
        Stored::Stats => {
            // The counts of what waits are known when the queues have been looked through.
            store.learn();
            Ok(vec![describe(&store)])
        }
        Stored::Check => {
            let mut rows = check(now, &store)?;
            // Opening it has mended what kept it from opening: that is damage, and this is when it is told.
            let mended = store.damage();
            if !mended.is_empty() {
                rows.push(json!({"table": "journal", "records": 0, "damaged": mended.len(), "left_over": 0}));
                mended.iter().for_each(|text| eprintln!("{text}"));
            }
            Ok(rows)
        }
        Stored::Backup { folder: to } => {
            let cannot = |e: &dyn std::fmt::Display| format!("cannot copy to {}: {e}", to.display());
            std::fs::create_dir_all(to).map_err(|e| cannot(&e))?;
            let copied = store.backup(to).map_err(|e| cannot(&e))?;
            let text = format!("{copied} records copied; `tidegate --data {}` runs with them", to.display());
            Ok(vec![text.into()])
        }
    }
}
