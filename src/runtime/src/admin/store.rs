//! What the operator can ask of the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::Now;
use serde_json::{Value, json};
use store::Store;

use super::Page;
use crate::house::House;

/// How long a message that is published from here waits for the disk, and how often it looks.
const WAIT: (u64, Duration) = (10_000, Duration::from_millis(1));

fn of(house: &House) -> Result<Arc<Store>, String> {
    house.store.clone().ok_or_else(|| "there is no store: store.durability is \"memory\"".to_owned())
}

/// Figures of a store, for people and programs.
pub fn describe(store: &Store) -> Value {
    let f = store.figures();
    let failure = store.failure();
    json!({
        "state": if failure.is_some() { "failing" } else { "ok" },
        "failure": failure,
        "messages": f.messages,
        "message_bytes": f.bytes,
        "shared_messages": f.shared,
        "disk_bytes": store.disk_bytes(),
        "pending_bytes": f.pending_bytes,
        "commits": f.commits,
        "records": f.records,
        "failures": f.failures,
        "commit_micros": f.micros.checked_div(f.commits).unwrap_or(0),
        "longest_commit_micros": f.longest_micros,
        "mended": store.damage(),
    })
}

/// A row for each table.
pub fn check(now: Now, store: &Store) -> Result<Vec<Value>, String> {
    let view = store.view().map_err(|e| e.to_string())?;
    let checked = router::check(now, &*view).map_err(|e| e.to_string())?;
    let rows = checked.iter().map(|c| {
        json!({"table": c.table.label(), "records": c.records, "damaged": c.damaged, "left_over": c.left_over})
    });
    Ok(rows.collect())
}

/// `store.stats`
pub(super) fn stats(house: &House) -> Result<Page, String> {
    let store = of(house)?;
    Ok(Page::of([describe(&store)]))
}

/// `store.check`; reads everything, on a thread that may take its time.
pub(super) async fn check_running(house: &House) -> Result<Page, String> {
    let (store, now) = (of(house)?, house.clock.now());
    let checked = tokio::task::spawn_blocking(move || check(now, &store)).await;
    Ok(Page::of(checked.map_err(|e| e.to_string())??))
}

/// `store.backup`
pub(super) async fn backup(house: &House, to: PathBuf) -> Result<Page, String> {
    let store = of(house)?;
    let shown = to.display().to_string();
    let copied = tokio::task::spawn_blocking(move || store.backup(&to)).await;
    let copied = copied.map_err(|e| e.to_string())?.map_err(|e| format!("cannot copy to {shown}: {e}"))?;
    Ok(Page::line(format!("{copied} records copied; `tidegate --data {shown}` runs with them")))
}

/// Until a batch is on the disk; an error if it cannot be written.
pub(super) async fn written(house: &House, batch: u64) -> Result<(), String> {
    let Some(store) = house.store.as_ref().filter(|_| house.is_sync) else { return Ok(()) };
    for _ in 0..WAIT.0 {
        if store.durable() >= batch {
            return Ok(());
        }
        if store.failed() >= batch {
            break;
        }
        tokio::time::sleep(WAIT.1).await;
    }
    Err(format!("it is not kept: {}", store.failure().unwrap_or_else(|| "the store is slow".to_owned())))
}
