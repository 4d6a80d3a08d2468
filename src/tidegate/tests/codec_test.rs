//! `tidegate codec test` and `codec try` with scripts, which run in workers: the binary as people run it.
#![expect(clippy::unwrap_used, reason = "all of this file is a test, its helpers too")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let path = std::env::temp_dir().join(format!("tidegate-codec-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(path.join(name), text).unwrap());
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SCRIPT: &str = "function decodeUplink(i) { return { data: { t: i.bytes[0] } } }";

#[test]
fn the_shipped_codecs_keep_to_their_examples() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/codecs");
    let output = tidegate(&["codec", "test", &shipped.display().to_string()]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for name in ["climate.js", "powermeter.js", "weather.js"] {
        let line = said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {said}"));
        assert!(line.ends_with("examples pass"), "{line}");
    }
}

#[test]
fn an_example_that_fails_is_shown_and_so_is_a_script_that_does_not_end() {
    let examples = "uplinkDecoder: {fileName: a.js, examples: [{description: one, input: {fPort: 1, bytes: [7]}, \
                    output: {data: {t: 8}}}]}";
    let hangs = "function Decoder() { for (;;); }";
    let folder = Folder::new(
        "test",
        &[
            ("a.js", SCRIPT),
            ("a-codec.yaml", examples),
            ("b.js", SCRIPT),
            ("c.js", hangs),
            ("c.yaml", "uplinkDecoder: {examples: [{input: {bytes: []}, output: {data: 1}}]}"),
            ("d.js", "function"),
            ("e.yaml", "uplinkDecoder: {examples: []}"),
            ("f.js", SCRIPT),
            ("f.yaml", "stream: ["),
        ],
    );
    let output = tidegate(&["codec", "test", &folder.path("")]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    for part in [
        "a.js: FAILED\nexample uplinkDecoder \"one\": \n  expected {\"data\":{\"t\":8}}\n  found    {\"data\":{\"t\":7}}",
        "b.js: loaded; it has no examples",
        "c.js: FAILED\nexample uplinkDecoder 1: it took longer than 100 ms",
        "d.js: FAILED\nSyntaxError: ",
        "e.yaml: FAILED\nthere is no codec beside it",
        "f.yaml: error: line 1 ",
        "6 codecs, 2 examples, 5 failures",
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let one = tidegate(&["codec", "test", "--json", &folder.path("b.js")]);
    assert!(one.status.success());
    assert!(text(&one.stdout).ends_with("\"examples\":0,\"failures\":[]}\n"), "{}", text(&one.stdout));
    assert!(!tidegate(&["codec", "test", &folder.path("none.js")]).status.success());
}

#[test]
fn a_script_can_be_tried_on_bytes() {
    let stream = "function decode(b) { if (b.length < 2) return; \
                  return { consumed: 2, up: { kind: 'n', data: b.readUInt16BE() }, answer: [1] } }";
    let folder = Folder::new("try", &[("p.js", SCRIPT), ("s.js", stream)]);
    let output = tidegate(&["codec", "try", &folder.path("s.js"), "--hex", "0102 0304"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("258") && said.contains("772"), "{said}");
    let output = tidegate(&[
        "codec",
        "try",
        &folder.path("p.js"),
        "--hex",
        "07 0a 08 0a",
        "--framing",
        "kind=delimiter,delimiter=0a",
    ]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains("\"t\":7") && said.contains("\"t\":8"), "{said}");
}
