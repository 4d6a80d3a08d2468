//! What a module may ask of its host.

use wasmi::{Caller, Engine, Error, Extern, Linker, StoreLimits, StoreLimitsBuilder};

use crate::Context;

/// The last lines that a module has logged are kept, and each as far as this.
const MAX_LINES: usize = 4;
const MAX_LINE: usize = 200;

/// What belongs to one instance and is not the module's.
pub(super) struct Host {
    pub(super) limits: StoreLimits,
    wall_ms: u64,
    device: String,
    token: String,
    /// What it has logged since [`Host::begin`].
    lines: Vec<String>,
}

impl Host {
    pub(super) fn new(memory: usize) -> Host {
        let limits = StoreLimitsBuilder::new().memory_size(memory).table_elements(10_000);
        let limits = limits.instances(1).memories(1).tables(4).build();
        Host { limits, wall_ms: 0, device: String::new(), token: String::new(), lines: Vec::new() }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, cx: &Context<'_>) {
        self.wall_ms = cx.wall_ms;
        self.lines.clear();
        self.device.clear();
        self.device.push_str(cx.device.unwrap_or_default());
        self.token.clear();
        self.token.push_str(cx.token);
    }

    /// `why`, and the last that the module has logged about it: a language's run-time says there why it gave up.
    pub(super) fn with_lines(&self, why: &str) -> String {
        if self.lines.is_empty() {
            why.to_owned()
        } else {
            format!("{why}; it logged: {}", self.lines.join(" | "))
        }
    }

    fn log(&mut self, text: &[u8]) {
        if self.lines.len() == MAX_LINES {
            self.lines.remove(0);
        }
        self.lines.push(String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect());
    }
}

/// The functions that a module can import from `tidegate`.
pub(super) fn linker(engine: &Engine) -> Result<Linker<Host>, String> {
    let mut linker = Linker::new(engine);
    let defined = linker
        .func_wrap("tidegate", "log", log)
        .and_then(|l| l.func_wrap("tidegate", "wall_ms", |caller: Caller<'_, Host>| caller.data().wall_ms))
        .and_then(|l| {
            l.func_wrap("tidegate", "device", |caller: Caller<'_, Host>, at: u32, room: u32| {
                let text = caller.data().device.clone();
                give(caller, &text, at, room)
            })
        })
        .and_then(|l| {
            l.func_wrap("tidegate", "token", |caller: Caller<'_, Host>, at: u32, room: u32| {
                let text = caller.data().token.clone();
                give(caller, &text, at, room)
            })
        })
        .map(|_| ());
    defined.map_err(|e| e.to_string())?;
    Ok(linker)
}

fn log(mut caller: Caller<'_, Host>, at: u32, len: u32) -> Result<(), Error> {
    charge(&mut caller, MAX_LINE)?;
    let range = range(at, len).ok_or_else(|| Error::new("`log` of bytes beyond any memory"))?;
    let (data, host) = memory(&caller)?.data_and_store_mut(&mut caller);
    let text = data.get(range).ok_or_else(|| Error::new("`log` of bytes outside of its memory"))?;
    host.log(text.get(..MAX_LINE).unwrap_or(text));
    Ok(())
}

/// Copies as much of `text` as there is room for; returns how long it is.
fn give(mut caller: Caller<'_, Host>, text: &str, at: u32, room: u32) -> Result<u32, Error> {
    charge(&mut caller, text.len())?;
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX).min(room);
    let range = range(at, len).ok_or_else(|| Error::new("asked for bytes to be put beyond any memory"))?;
    let (data, _) = memory(&caller)?.data_and_store_mut(&mut caller);
    let into = data.get_mut(range).ok_or_else(|| Error::new("asked for bytes outside of its memory"))?;
    into.copy_from_slice(&text.as_bytes()[..into.len()]);
    Ok(u32::try_from(text.len()).unwrap_or(u32::MAX))
}

/// What the host does for a module is counted as the module's own steps.
fn charge(caller: &mut Caller<'_, Host>, bytes: usize) -> Result<(), Error> {
    let left = caller.get_fuel()?.checked_sub(64 + bytes as u64);
    caller.set_fuel(left.unwrap_or(0))?;
    left.map(|_| ()).ok_or_else(|| wasmi::TrapCode::OutOfFuel.into())
}

fn memory(caller: &Caller<'_, Host>) -> Result<wasmi::Memory, Error> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| Error::new("has no memory"))
}

/// The bytes that a module means.
pub(super) fn range(at: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let end = at.checked_add(len)?;
    Some(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
}
