//! Whether a codec can be used: it is loaded, and its examples are played.

use std::sync::Arc;

use bytes::Bytes;
use codecs::examples::Examples;
use codecs::wasm::Module;
use codecs::{Build, Found, Options, Shape};
use gateway::ProgramId;
use scripts::pipe::Limits;

use super::disk::Kind;
use super::folder::{Contents, Files};
use crate::scripts::once;

/// A codec that can be used.
pub(super) enum Checked {
    Script(Shape),
    Inline(Arc<dyn Build>),
}

impl Checked {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Checked::Script(Shape::Payload) => Kind::Payload,
            Checked::Script(Shape::Stream) => Kind::Stream,
            Checked::Inline(_) => Kind::Wasm,
        }
    }

    /// How gateways find it; `bring` makes a script known to the workers.
    pub(super) fn found(self, bring: impl FnOnce() -> ProgramId) -> Found {
        match self {
            Checked::Script(shape) => Found::Script(bring().0, shape),
            Checked::Inline(build) => Found::Inline(build),
        }
    }
}

/// Loads new files and plays their examples. The error is for who wrote them.
pub(super) fn check(
    name: &str,
    files: &Files,
    contents: &Contents,
    limits: Limits,
) -> Result<Checked, String> {
    let (source, examples) = (&contents.source[..], contents.examples.as_deref());
    if files.source.extension().is_some_and(|e| e == "wasm") {
        let module = module(source)?;
        if let Some(examples) = examples {
            let examples = text(examples).and_then(Examples::from_yaml).map_err(|e| of_examples(files, e))?;
            let mistakes = examples.check(&*module, &Options::default());
            if !mistakes.is_empty() {
                return Err(mistakes.join("\n"));
            }
        }
        return Ok(Checked::Inline(module));
    }
    let script = once::load(&format!("{name}.js"), Bytes::copy_from_slice(source), limits)?;
    if let Some(examples) = examples {
        let file = files.source.file_name().and_then(|f| f.to_str()).unwrap_or_default();
        let examples = text(examples).and_then(scripts::examples::Examples::from_yaml);
        let report = examples.map_err(|e| of_examples(files, e))?.check(file, &script);
        if !report.failures.is_empty() {
            return Err(report.failures.join("\n"));
        }
    }
    Ok(Checked::Script(script.shape()))
}

/// What was found good before.
pub(super) fn again(kind: Kind, source: &[u8]) -> Result<Checked, String> {
    match kind {
        Kind::Payload => Ok(Checked::Script(Shape::Payload)),
        Kind::Stream => Ok(Checked::Script(Shape::Stream)),
        Kind::Wasm => Ok(Checked::Inline(module(source)?)),
    }
}

fn module(source: &[u8]) -> Result<Arc<dyn Build>, String> {
    Ok(Arc::new(Module::load(source, codecs::wasm::Limits::default())?))
}

/// What is wrong with the file of examples, and not with the codec.
fn of_examples(files: &Files, error: String) -> String {
    let name = files.examples.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
    format!("{}: {error}", name.display())
}

fn text(yaml: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(yaml).map_err(|e| format!("is no text: {e}"))
}
