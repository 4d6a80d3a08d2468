//! Looks through a store without changing it: what there is, and what of it is damaged.

use hashbrown::{HashMap, HashSet};
use store::{Error, Table, View, is_shared, split_body, split_number};

use crate::Now;
use crate::record;
use crate::restore::each;

/// What a look at all records of a table brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The table.
    pub table: Table,
    /// Records that can be read.
    pub records: usize,
    /// Records that cannot, or that refer to something that is not there.
    pub damaged: usize,
    /// Records that nothing refers to any more; the store removes them by itself after a start.
    pub left_over: usize,
}

/// Reads every record. `now` is for what expires.
pub fn check(now: Now, view: &dyn View) -> Result<Vec<Checked>, Error> {
    let mut sessions = HashSet::new();
    let mut shared: HashMap<u64, usize> = HashMap::new();
    let mut places: HashSet<(u64, u64)> = HashSet::new();
    each(view, Table::Shared, &mut |key, _| {
        shared.extend(split_number(key).map(|(n, _)| (n, 0)));
        true
    })?;
    Table::ALL
        .iter()
        .map(|&table| {
            let mut found = Checked { table, records: 0, damaged: 0, left_over: 0 };
            found.damaged = each(view, table, &mut |key, value| {
                let number = split_number(key);
                let is_whole = match table {
                    Table::Meta | Table::Facts | Table::Ended => true,
                    // Sealed: only who has the key can tell more.
                    Table::Associations | Table::Records => number.is_some(),
                    Table::Sessions => {
                        sessions.extend(number.map(|(n, _)| n));
                        number.is_some() && record::decode_session(now, value).is_ok()
                    }
                    Table::Filters => number.is_some_and(|(_, f)| record::decode_options(f, value).is_ok()),
                    Table::Retained => record::decode_message(now, value).is_ok(),
                    Table::Delayed => record::decode_delayed(now, value).is_ok(),
                    Table::Queue => {
                        places.extend(number.and_then(|(s, rest)| Some((s, split_number(rest)?.0))));
                        is_whole_place(now, value, &mut shared)
                    }
                    Table::Shared => record::decode_message(now, value).is_ok(),
                    Table::Flights => match (number, record::Flown::decode(value)) {
                        (Some((s, _)), Ok(f)) => f.is_received || places.contains(&(s, f.sequence)),
                        _ => false,
                    },
                    Table::Incoming => number.is_some_and(|(_, id)| id.len() == 2),
                };
                let is_used = match table {
                    Table::Filters | Table::Facts | Table::Queue | Table::Flights | Table::Incoming => {
                        number.is_some_and(|(n, _)| sessions.contains(&n))
                    }
                    Table::Shared => {
                        number.is_some_and(|(n, _)| shared.get(&n).is_some_and(|count| *count > 0))
                    }
                    _ => true,
                };
                found.records += usize::from(is_whole);
                found.left_over += usize::from(is_whole && !is_used);
                is_whole
            })?;
            Ok(found)
        })
        .collect()
}

fn is_whole_place(now: Now, value: &[u8], shared: &mut HashMap<u64, usize>) -> bool {
    let Some((_, rest)) = split_body(value) else { return false };
    let Ok((_, message)) = record::decode_place(rest) else { return false };
    match is_shared(value) {
        Some(number) => shared.get_mut(&number.0).map(|count| *count += 1).is_some(),
        None => record::decode_message(now, message).is_ok(),
    }
}
