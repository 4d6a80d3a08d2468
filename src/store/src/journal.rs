//! Mends journals that fjall would not open, and writes them anew.
//!
//! fjall cuts off the end of a journal at a batch that is not complete, which is what a killed process leaves. But it refuses
//! the whole store if a batch is complete and its checksum is wrong: after a power loss, when the disk had written the end
//! of the last batch and not its middle, and when a bit has changed. Here such batches alone are taken out; the journal as it
//! was is kept beside as `*.damaged`.
//!
//! ```text
//! batch  = start item* end          numbers are little-endian
//! start  = 01 items:u32 seqno:u64
//! item   = 02 kind:u8 compression:u8 keyspace:u64 key_len:u16 len:u32 disk_len:u32 key value
//! clear  = 04 keyspace:u64
//! end    = 03 xxh3:u64 magic        the checksum is of all items' bytes
//! ```
//! (fjall 3.1, `src/journal/entry.rs`)

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::engine::Error;

const MAGIC: [u8; 4] = [b'F', b'J', b'L', 3];

/// Writes the journals in `folder` anew, without damaged batches: after a sync that failed the kernel takes for written what is
/// not; what is read is right, and yet the disk has a hole, which a later sync does not close. What was damaged, in words for
/// the operator.
pub(crate) fn renew(folder: &Path) -> Result<Vec<String>, Error> {
    // What an earlier attempt has left takes room.
    for file in fs::read_dir(folder)?.flatten().map(|f| f.path()) {
        if file.extension().is_some_and(|e| e == "mended") {
            fs::remove_file(file)?;
        }
    }
    let mut damage = Vec::new();
    for path in journals(folder)? {
        let bytes = fs::read(&path)?;
        let (whole, lost) = sift(&bytes);
        if lost > 0 {
            let aside = path.with_extension("jnl.damaged");
            fs::write(&aside, &bytes[..bytes.len() - trailing_zeros(&bytes)])?;
            damage.push(format!(
                "{}: {lost} damaged batches taken out, kept in {}",
                path.display(),
                aside.display()
            ));
        }
        replace(folder, &path, &whole)?;
    }
    Ok(damage)
}

fn journals(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths: Vec<_> = fs::read_dir(folder)?.flatten().map(|f| f.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "jnl"));
    paths.sort();
    Ok(paths)
}

fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension("mended");
    fs::write(&unfinished, bytes)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    Ok(fs::File::open(folder)?.sync_all()?)
}

/// A journal is made with 64 MiB of zeros.
fn trailing_zeros(bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    let pages = bytes.rchunks_exact(PAGE.len()).take_while(|page| **page == PAGE).count() * PAGE.len();
    pages + bytes[..bytes.len() - pages].iter().rev().take_while(|&&b| b == 0).count()
}

/// The whole batches of a journal, and how many damaged ones it has beside one that is cut off at the end.
fn sift(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut whole = Vec::with_capacity(bytes.len() - trailing_zeros(bytes));
    let mut lost = 0;
    let mut at = 0;
    let end = bytes.len() - trailing_zeros(bytes);
    while at < end {
        match batch(&bytes[at..]) {
            Some(len) => {
                whole.extend_from_slice(&bytes[at..at + len]);
                at += len;
            }
            None => {
                // The next batch begins behind the end of some batch: look for one that is whole.
                let next = (at + 1..end).find(|&next| {
                    bytes[..next].ends_with(&MAGIC) && bytes[next] == 1 && batch(&bytes[next..]).is_some()
                });
                // A batch that is cut off at the end is what a killed process leaves, and was not acknowledged.
                lost += usize::from(next.is_some() || bytes[..end].ends_with(&MAGIC));
                at = next.unwrap_or(end);
            }
        }
    }
    (whole, lost)
}

/// The length of the whole batch at the front.
fn batch(bytes: &[u8]) -> Option<usize> {
    let mut at = Cursor { bytes, at: 0 };
    if at.u8()? != 1 {
        return None;
    }
    let items = at.u32()?;
    at.skip(8)?;
    let from = at.at;
    for _ in 0..items {
        match at.u8()? {
            2 => {
                at.skip(2 + 8)?;
                let key = usize::from(at.u16()?);
                at.skip(4)?;
                let value = at.u32()? as usize;
                at.skip(key.checked_add(value)?)?;
            }
            4 => at.skip(8)?,
            _ => return None,
        }
    }
    let checksum = xxh3_64(&bytes[from..at.at]);
    (at.u8()? == 3 && at.u64()? == checksum && at.take(4)? == MAGIC).then_some(at.at)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n).map(drop)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}
