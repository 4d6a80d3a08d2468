//! The examples of codecs in WebAssembly: built with the commands that stand in their heads, and held to what the same
//! codec in JavaScript is held to.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::path::PathBuf;
use std::process::Command;

use bytes::BytesMut;
use codecs::examples::Examples;
use codecs::wasm::{Limits, Module};
use codecs::{Build, Codec, Context, Options, hex};
use conformance::broker::house;

/// Builds an example in a folder of its own, as its head says.
fn build(file: &str) -> Vec<u8> {
    let source = std::fs::read_to_string(house().join("etc/codecs/examples").join(file)).unwrap();
    let text = |line: &str| line.trim_start_matches(['/', '!', '*', ' ']).trim_end().to_owned();
    let head: Vec<String> = source.lines().take(20).map(text).collect();
    let first = head.iter().position(|l| l.starts_with("rustc ") || l.starts_with("clang ")).unwrap();
    let last = first + head[first..].iter().position(|l| !l.ends_with('\\')).unwrap();
    let command = head[first..=last].join(" ").replace('\\', "");
    let to: PathBuf = std::env::temp_dir().join(format!("tidegate-module-{}-{file}", std::process::id()));
    std::fs::create_dir_all(&to).unwrap();
    let command = command.replace("-o powermeter.wasm", &format!("-o {}/powermeter.wasm", to.display()));
    let out = Command::new("sh").arg("-c").arg(&command).current_dir(house()).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && told.is_empty(), "{command}\n{told}");
    let module = std::fs::read(to.join("powermeter.wasm")).unwrap();
    std::fs::remove_dir_all(to).unwrap();
    module
}

fn keeps_to_its_examples(file: &str) {
    let yaml = std::fs::read_to_string(house().join("etc/codecs/powermeter.yaml")).unwrap();
    let examples = Examples::from_yaml(&yaml).unwrap();
    assert!(examples.len() > 5);
    let module = Module::load(&build(file), Limits::default()).unwrap();
    assert_eq!(examples.check(&module, &Options::default()), Vec::<String>::new());
    split_anywhere_it_means_the_same(&module);
    no_turned_bit_is_taken_for_a_reading(&module);
}

const READING: &str = "6810020007 08fd 01b0 000003e2 0012d687 01 b7b8";

fn frames(codec: &mut dyn Codec, pieces: &[&[u8]]) -> (String, usize) {
    let mut buf = BytesMut::new();
    let mut said = String::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            let cx = Context { wall_ms: 0, device: Some("d"), token: "t" };
            match codec.decode(&cx, &mut buf) {
                Ok(None) => break,
                Ok(Some(frame)) => frame.up.iter().for_each(|up| said.push_str(&up.to_json())),
                Err(_) => said.push('!'),
            }
        }
    }
    (said, buf.len())
}

fn split_anywhere_it_means_the_same(module: &dyn Build) {
    let bytes = hex::decode(READING).unwrap().repeat(2);
    let whole = frames(&mut *module.build(&Options::default()), &[&bytes]);
    assert_eq!((whole.0.matches("230.1").count(), whole.1), (2, 0));
    for at in 0..bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(frames(&mut *module.build(&Options::default()), &[first, second]), whole, "split at {at}");
    }
}

fn no_turned_bit_is_taken_for_a_reading(module: &dyn Build) {
    let right = hex::decode(READING).unwrap();
    for bit in 0..right.len() * 8 {
        let mut bytes = right.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (said, _) = frames(&mut *module.build(&Options::default()), &[&bytes]);
        assert!(!said.contains("reading"), "bit {bit}: {said}");
    }
}

/// Where the standard library of WebAssembly cannot be fetched (`conformance/install` says so) the example is compiled for
/// this machine, which still finds what the compiler does not take.
#[test]
fn the_example_in_rust_is_built_as_it_says_and_keeps_to_its_examples() {
    let out = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8(out.stdout).unwrap().trim());
    if sysroot.join("lib/rustlib/wasm32-unknown-unknown").exists() {
        return keeps_to_its_examples("powermeter.rs");
    }
    let to = std::env::temp_dir().join(format!("tidegate-{}.rmeta", std::process::id()));
    let source = house().join("etc/codecs/examples/powermeter.rs");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "--emit=metadata", "-o"]);
    let out = rustc.arg(&to).arg(source).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::remove_file(to).unwrap();
}

#[test]
fn the_example_in_c_is_built_as_it_says_and_keeps_to_its_examples() {
    keeps_to_its_examples("powermeter.c");
}
