//! Codecs that an operator has brought. Reading them may take a while: it is done on a thread that may wait.

use std::sync::Arc;

use serde_json::Value;

use super::{Page, text};
use crate::house::House;
use crate::keeper::Keeper;

/// Answers `codecs.{what}`; None for what is not one of these.
pub(super) async fn answer(house: &Arc<House>, what: &str, request: &Value) -> Option<Result<Page, String>> {
    let ask = asked(what)?;
    let (keeper, request) = (house.keeper.clone(), request.clone());
    let answer = tokio::task::spawn_blocking(move || ask(&keeper, &request)).await;
    Some(answer.unwrap_or_else(|e| Err(format!("it could not be done: {e}"))))
}

type Ask = fn(&Keeper, &Value) -> Result<Page, String>;

fn asked(what: &str) -> Option<Ask> {
    Some(match what {
        "list" => |keeper, _| Ok(Page::of(keeper.overview())),
        "versions" => |keeper, r| Ok(Page::of(keeper.versions(text(r, "codec")?)?)),
        "errors" => |keeper, r| Ok(Page::of(keeper.errors(text(r, "codec")?)?)),
        "reload" => |keeper, r| {
            let lines = keeper.reload(r["codec"].as_str())?;
            Ok(Page::of(lines.into_iter().map(Value::from)))
        },
        "canary" => |keeper, r| {
            let share = r["share"].as_u64().and_then(|s| u8::try_from(s).ok()).filter(|s| *s <= 100);
            let version = r["version"].as_u64().and_then(|v| u32::try_from(v).ok());
            let share = share.ok_or("`share` is 0 to 100")?;
            keeper.canary(text(r, "codec")?, share, version).map(Page::line)
        },
        "promote" => |keeper, r| keeper.promote(text(r, "codec")?).map(Page::line),
        "rollback" => |keeper, r| keeper.roll_back(text(r, "codec")?).map(Page::line),
        _ => return None,
    })
}
