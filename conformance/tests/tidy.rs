//! Rules of the house that no compiler knows. Each failure names the file and what to do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this file is a test, its helpers too")]

use conformance::broker::house;
use std::path::{Path, PathBuf};

/// Files with more than this many lines usually hold two features.
const MAX_LINES: usize = 800;
/// Files that may be longer, with the reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Crates that only the runtime and the binary may know.
const ABOVE: [&str; 9] =
    ["tokio", "mio", "socket2", "router", "runtime", "auth", "store", "tidegate", "async-std"];
/// Gateways that use frames of another one.
const MAY_USE: &[(&str, &str)] = &[];
/// Words that no committed file has: folders beside the repository, which a clone does not have.
const OUTSIDE: [&str; 2] = [concat!("../", "shared"), concat!(".library", "/")];

fn tracked() -> Vec<PathBuf> {
    let out = std::process::Command::new("git").arg("ls-files").current_dir(house()).output().unwrap();
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let names = String::from_utf8(out.stdout).unwrap();
    names.lines().map(PathBuf::from).filter(|path| house().join(path).exists()).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    tracked().into_iter().filter(is_source).map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(house().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folders(below: &str) -> Vec<String> {
    let entries = std::fs::read_dir(house().join(below)).unwrap();
    let folders = entries.map(Result::unwrap).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]"));
    let lines = section.unwrap_or_default().lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split(['=', '.']).next()?.trim().to_owned()))
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn every_gateway_has_a_readme_a_configuration_with_an_example_and_conformance_tests() {
    for name in folders("gateways") {
        for file in ["README.md", "src/config.rs", "config.example.toml"] {
            let path = house().join("gateways").join(&name).join(file);
            assert!(path.exists(), "gateways/{name} has no {file}");
        }
        let has = ["conformance", "conformance/cases", "conformance/tests"].iter().any(|folder| {
            let path = house().join(folder).join(&name);
            path.exists() || path.with_extension("rs").exists()
        });
        assert!(has, "gateways/{name}: neither conformance/{name} nor conformance/cases/{name}");
    }
}

#[test]
fn no_gateway_and_no_codec_knows_the_runtime_or_the_router() {
    let mut crates: Vec<String> = folders("gateways").iter().map(|name| format!("gateways/{name}")).collect();
    crates.extend(["codecs".to_owned(), "src/gateway".to_owned(), "src/wire".to_owned()]);
    for folder in crates {
        let manifest = read(&Path::new(&folder).join("Cargo.toml"));
        let above = dependencies(&manifest).into_iter().find(|name| ABOVE.contains(&name.as_str()));
        assert_eq!(
            above, None,
            "{folder}/Cargo.toml depends on it: a gateway is a state machine, not a server"
        );
    }
}

#[test]
fn no_gateway_names_another_one() {
    let gateways = folders("gateways");
    for name in &gateways {
        let manifest = read(&Path::new("gateways").join(name).join("Cargo.toml"));
        for other in dependencies(&manifest).iter().filter(|other| gateways.contains(other)) {
            let may = MAY_USE.contains(&(name.as_str(), other.as_str()));
            assert!(may, "gateways/{name} depends on the gateway {other}");
        }
    }
}

#[test]
fn the_list_of_gateways_is_the_folder_of_gateways() {
    let list = read(Path::new("src/tidegate/src/gateways.rs"));
    for name in folders("gateways") {
        assert!(
            list.contains(&format!("{name}::")),
            "src/tidegate/src/gateways.rs does not wire gateways/{name}"
        );
    }
}

#[test]
fn the_list_of_codecs_is_the_folder_of_codecs_and_the_guide_has_all_of_them() {
    let list = read(Path::new("codecs/src/lib.rs"));
    let begin = list.find("pub const CODECS").unwrap();
    let list = &list[begin..begin + list[begin..].find("];").unwrap()];
    let guide = read(Path::new("codecs/README.md"));
    let mut listed = list.matches("::DEF").count();
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("codecs/src")) {
        let module = path.file_stem().unwrap().to_string_lossy();
        let Some(def) = text.split_once("\npub(crate) const DEF: Def = Def {") else { continue };
        assert!(list.contains(&format!("{module}::DEF")), "{} is not in CODECS", path.display());
        listed -= 1;
        let name = def.1.split_once("name: \"").and_then(|(_, rest)| rest.split('"').next()).unwrap();
        let is_named_after = name.replace('-', "_") == module;
        assert!(is_named_after, "{} has the codec {name}: name the one after the other", path.display());
        let section = guide.split_once(&format!("\n### `{name}`\n")).map(|(_, rest)| rest);
        let section = section.and_then(|rest| rest.split("\n#").next()).unwrap_or_default();
        assert!(!section.trim().is_empty(), "codecs/README.md has no section `{name}`, or an empty one");
    }
    assert_eq!(listed, 0, "CODECS names what no file of codecs/src defines");
}

#[test]
fn no_file_speaks_of_what_a_clone_does_not_have() {
    for path in tracked() {
        let Ok(text) = std::fs::read(house().join(&path)) else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        for word in OUTSIDE {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
}

#[test]
fn no_file_is_so_long_that_it_holds_two_things() {
    for (path, text) in sources() {
        let is_listed = LONG_FILES.iter().any(|(file, _)| Path::new(file) == path);
        let lines = text.lines().count();
        if is_listed {
            assert!(lines > MAX_LINES, "{} is in LONG_FILES, but has {lines} lines only", path.display());
        } else {
            assert!(lines <= MAX_LINES, "{} has {lines} lines: split it, or say why not", path.display());
        }
    }
    for (file, reason) in LONG_FILES {
        assert!(!reason.is_empty() && house().join(file).exists(), "LONG_FILES: {file}");
    }
}

#[test]
fn every_allow_and_expect_says_why() {
    for (path, text) in sources() {
        for begin in [
            concat!("#[all", "ow("),
            concat!("#![all", "ow("),
            concat!("#[exp", "ect("),
            concat!("#![exp", "ect("),
        ] {
            for (at, _) in text.match_indices(begin) {
                let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
                let line = text[..at].lines().count();
                assert!(
                    text[at..end].contains("reason ="),
                    "{}:{line}: {begin}…) without a reason",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn modules_are_declared_by_hand() {
    for (path, text) in sources() {
        let name = path.file_name().unwrap_or_default();
        assert!(name != "mod.rs", "{}: a module is a file of its name, not mod.rs", path.display());
        // Tests may play another test's modules under other conditions.
        let is_elsewhere =
            text.contains(concat!("#[pa", "th =")) && !path.components().any(|c| c.as_os_str() == "tests");
        let is_automatic = text.contains(concat!("automod", "::dir!")) || is_elsewhere;
        assert!(!is_automatic, "{}: modules are declared by hand, where they lie", path.display());
    }
}

#[test]
fn no_crate_has_a_name_that_says_nothing() {
    for folder in ["src", "gateways"] {
        for name in folders(folder) {
            assert!(
                !["core", "common", "util", "utils", "types"].contains(&name.as_str()),
                "{folder}/{name}"
            );
        }
    }
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    for path in tracked().iter().filter(|path| path.ends_with("Cargo.toml") && path.components().count() > 1)
    {
        let manifest = read(path);
        let is_own_workspace = manifest.contains("\n[workspace]");
        assert!(
            is_own_workspace || manifest.contains("[lints]\nworkspace = true"),
            "{}: [lints] workspace = true is missing",
            path.display()
        );
    }
}

#[test]
fn dependencies_are_read_from_a_manifest() {
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nbytes = \"1\"\n# tokio = \"1\"\nwire.workspace = true\n\n\
                    [dev-dependencies]\nproptest = \"1\"\n";
    assert_eq!(dependencies(manifest), ["bytes", "wire"]);
}
