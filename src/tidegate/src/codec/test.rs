//! `tidegate codec test`: whether codecs keep to the examples beside them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use codecs::Options;
use codecs::wasm::Module;
use runtime::scripts::once;
use scripts::examples::{Examples, Report};
use scripts::pipe::Limits;
use serde_json::json;

/// What stands beside a codec `NAME`.
const BESIDE: [&str; 2] = [".yaml", "-codec.yaml"];

/// Plays the examples of these folders, codecs and files of examples, and says what came of each codec.
pub(crate) fn run(paths: &[PathBuf], is_json: bool) -> Result<String, String> {
    let mut pairs = BTreeSet::new();
    for path in paths {
        find(path, &mut pairs)?;
    }
    if pairs.is_empty() {
        return Err("there is no codec (.js, .wasm) and no file of examples (.yaml)".to_owned());
    }
    let (mut lines, mut played, mut bad) = (Vec::new(), 0, 0);
    for (codec, examples) in &pairs {
        let report =
            play(codec, examples.as_deref()).unwrap_or_else(|why| Report { count: 0, failures: vec![why] });
        played += report.count;
        bad += report.failures.len();
        lines.push(if is_json {
            json!({"codec": codec, "examples": report.count, "failures": report.failures}).to_string()
        } else {
            told(codec, &report)
        });
    }
    if !is_json {
        lines.push(format!("{} codecs, {played} examples, {bad} failures", pairs.len()));
    }
    if bad == 0 { Ok(lines.join("\n")) } else { Err(lines.join("\n")) }
}

fn told(codec: &Path, report: &Report) -> String {
    let name = codec.display();
    match (&report.failures[..], report.count) {
        ([], 0) => format!("{name}: loaded; it has no examples"),
        ([], count) => format!("{name}: {count} examples pass"),
        (failures, _) => format!("{name}: FAILED\n{}", failures.join("\n")),
    }
}

/// Codecs that a path means, each with the file of its examples.
fn find(path: &Path, pairs: &mut BTreeSet<(PathBuf, Option<PathBuf>)>) -> Result<(), String> {
    let cannot = |e: std::io::Error| format!("{}: {e}", path.display());
    if path.is_dir() {
        for entry in path.read_dir().map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.is_file()
                && ["js", "wasm", "yaml"].iter().any(|e| path.extension().is_some_and(|x| x == *e))
            {
                find(&path, pairs)?;
            }
        }
        // A script that a file of examples names is not one without examples.
        let named: BTreeSet<PathBuf> =
            pairs.iter().filter(|(_, examples)| examples.is_some()).map(|(codec, _)| codec.clone()).collect();
        pairs.retain(|(codec, examples)| examples.is_some() || !named.contains(codec));
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_suffix(".yaml") {
        None => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let beside = BESIDE.iter().map(|ending| path.with_file_name(format!("{stem}{ending}")));
            let examples: Vec<PathBuf> = beside.filter(|path| path.is_file()).collect();
            if examples.is_empty() {
                pairs.insert((path.to_owned(), None));
            }
            pairs.extend(examples.into_iter().map(|examples| (path.to_owned(), Some(examples))));
        }
        Some(stem) => {
            let text = std::fs::read_to_string(path).map_err(cannot)?;
            let examples = Examples::from_yaml(&text).ok();
            let files = examples.iter().flat_map(Examples::files);
            let mut codecs: BTreeSet<PathBuf> = files.map(|file| path.with_file_name(file)).collect();
            if codecs.is_empty() || examples.as_ref().is_some_and(Examples::has_streams) {
                let stem = stem.strip_suffix("-codec").unwrap_or(stem);
                let beside = ["js", "wasm"].map(|ending| path.with_file_name(format!("{stem}.{ending}")));
                codecs.extend(beside.into_iter().filter(|path| path.is_file()));
            }
            if codecs.is_empty() {
                // Said by `play`, beside what is said of the others.
                codecs.insert(path.to_owned());
            }
            pairs.extend(codecs.into_iter().map(|codec| (codec, Some(path.to_owned()))));
        }
    }
    Ok(())
}

fn play(codec: &Path, examples: Option<&Path>) -> Result<Report, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    if examples == Some(codec) {
        return Err("there is no codec beside it".to_owned());
    }
    let source = read(codec)?;
    let yaml = match examples {
        Some(path) => String::from_utf8(read(path)?).map_err(|e| format!("{}: {e}", path.display()))?,
        None => String::new(),
    };
    let unreadable = |e: String| match examples {
        Some(path) => format!("{}: {e}", path.display()),
        None => e,
    };
    if codec.extension().is_some_and(|extension| extension == "wasm") {
        let module = Module::load(&source, codecs::wasm::Limits::default())?;
        if yaml.is_empty() {
            return Ok(Report::default());
        }
        let examples = codecs::examples::Examples::from_yaml(&yaml).map_err(unreadable)?;
        return Ok(Report { count: examples.len(), failures: examples.check(&module, &Options::default()) });
    }
    let name = codec.file_name().unwrap_or_default().to_string_lossy();
    let script = once::load(&name, source.into(), Limits::default())?;
    if yaml.is_empty() {
        Ok(Report::default())
    } else {
        Ok(Examples::from_yaml(&yaml).map_err(unreadable)?.check(&name, &script))
    }
}
