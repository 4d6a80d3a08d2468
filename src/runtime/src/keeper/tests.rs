use std::fs;
use std::path::PathBuf;

use codecs::Shape;

use super::*;

/// A folder and a keeper of it, which takes every source that does not begin with `bad`.
struct World {
    root: PathBuf,
    library: Arc<Library>,
    keeper: Keeper,
}

fn checked(_: &str, _: &Files, contents: &folder::Contents, _: Limits) -> Result<check::Checked, String> {
    match contents.source.starts_with(b"bad") {
        true => Err("example 1: 2 is not 3".to_owned()),
        false => Ok(check::Checked::Script(Shape::Payload)),
    }
}

fn open(root: &Path, canary: u8) -> (Arc<Library>, Keeper) {
    let setup = CodecsSetup { folder: root.join("codecs"), canary, ..CodecsSetup::default() };
    let library: Arc<Library> = Arc::default();
    let clock = Clock::start();
    let keeper =
        Keeper::open_with(setup, &root.join("data"), library.clone(), Arc::default(), clock, checked);
    (library, keeper)
}

impl World {
    fn new(name: &str) -> World {
        let root = std::env::temp_dir().join(format!("tidegate-keeper-{}-{name}", std::process::id()));
        // It is there only if a test of the same number was killed.
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("codecs")).unwrap();
        let (library, keeper) = open(&root, 0);
        World { root, library, keeper }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root.join("codecs").join(file), text).unwrap();
    }

    fn put(&self, text: &str) -> Result<Vec<String>, String> {
        self.write("x.js", text);
        self.keeper.reload(Some("x"))
    }

    fn restart(&mut self) {
        (self.library, self.keeper) = open(&self.root, 0);
    }

    fn used(&self, device: &str) -> Option<u32> {
        self.library.shelf("x")?.version_for("x", device).map(|v| v.number)
    }

    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("data/codecs/x")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_changed_file_is_a_new_version_and_one_that_fails_changes_nothing() {
    let w = World::new("change");
    assert_eq!(w.put("one"), Ok(vec!["x: version 1 is used".to_owned()]));
    let generation = w.library.generation();
    assert_eq!(w.put("one"), Ok(vec!["x: unchanged, version 1 is used".to_owned()]));
    assert_eq!(w.put("bad"), Err("x: example 1: 2 is not 3".to_owned()));
    assert_eq!((w.used("d"), w.library.generation()), (Some(1), generation));
    let shown = w.keeper.versions("x").unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!((&shown[0]["use"], &shown[1]["error"]), (&"current".into(), &"example 1: 2 is not 3".into()));
    assert_eq!(w.put("two"), Ok(vec!["x: version 2 is used".to_owned()]));
    assert!(w.library.generation() > generation);
    assert_eq!(w.kept(), ["1.js", "2.js", "state.json"]);
    // The text of a version that is kept is that version.
    assert_eq!(w.put("one"), Ok(vec!["x: version 1 is used".to_owned()]));
    assert_eq!(w.keeper.roll_back("x"), Ok("x: version 2 is used".to_owned()));
}

#[test]
fn a_file_is_read_when_it_has_rested_for_one_look() {
    let w = World::new("rest");
    w.write("x.js", "half");
    w.keeper.look();
    assert_eq!(w.used("d"), None);
    w.write("x.js", "half, and the other half");
    w.keeper.look();
    assert_eq!(w.used("d"), None);
    w.keeper.look();
    assert_eq!(w.used("d"), Some(1));
    w.keeper.look();
    assert_eq!(w.library.shelf("x").unwrap().last, 1);
    // Examples count: what was refused for them is tried again with new ones.
    w.write("x.js", "bad");
    w.keeper.look();
    w.keeper.look();
    assert_eq!(w.keeper.overview()[0]["error"], "example 1: 2 is not 3");
    w.write("x.yaml", "stream: {}");
    w.write("x.js", "good");
    w.keeper.look();
    w.keeper.look();
    assert_eq!((w.used("d"), &w.keeper.overview()[0]["error"]), (Some(2), &serde_json::Value::Null));
}

#[test]
fn a_restart_goes_on_with_what_was_in_use() {
    let mut w = World::new("restart");
    for text in ["one", "two", "three"] {
        w.put(text).unwrap();
    }
    w.keeper.roll_back("x").unwrap();
    w.keeper.canary("x", 100, Some(1)).unwrap();
    w.restart();
    // The file in the folder is the third still.
    assert_eq!((w.used(""), w.used("d")), (Some(2), Some(1)));
    assert_eq!(w.keeper.roll_back("x"), Ok("x: version 2 is used".to_owned()));
    assert_eq!(w.keeper.roll_back("x"), Ok("x: version 1 is used".to_owned()));
    assert!(w.keeper.roll_back("x").is_err());
    w.restart();
    assert_eq!(w.used("d"), Some(1));
    // What has changed while nobody looked is new.
    w.write("x.js", "four");
    w.restart();
    assert_eq!(w.library.shelf("x").unwrap().canary.map(|c| c.version), Some(4));
    assert_eq!(w.used(""), Some(1));
}

#[test]
fn a_share_of_the_devices_tries_every_new_version_first_until_it_is_promoted() {
    let w = World::new("canary");
    assert!(w.keeper.canary("x", 10, None).is_err(), "there is no such codec yet");
    w.put("one").unwrap();
    w.keeper.canary("x", 10, None).unwrap();
    assert_eq!(w.put("two"), Ok(vec!["x: version 1 is used, version 2 by 10 of 100 devices".to_owned()]));
    let trying = (0..1000).filter(|n| w.used(&format!("d{n}")) == Some(2)).count();
    assert!((60..140).contains(&trying), "{trying}");
    // A better one takes the place of what is being tried.
    assert_eq!(w.put("three"), Ok(vec!["x: version 1 is used, version 3 by 10 of 100 devices".to_owned()]));
    // Who puts back what the others use wants no trial any more.
    assert_eq!(w.put("one"), Ok(vec!["x: version 1 is used".to_owned()]));
    w.put("three").unwrap();
    assert_eq!(w.keeper.promote("x"), Ok("x: version 3 is used".to_owned()));
    assert!(w.keeper.promote("x").is_err());
    w.put("four").unwrap();
    assert_eq!(w.keeper.roll_back("x"), Ok("x: version 3 is used".to_owned()));
    w.keeper.canary("x", 50, Some(1)).unwrap();
    assert!(w.keeper.canary("x", 50, Some(3)).is_err() && w.keeper.canary("x", 50, Some(9)).is_err());
    let ended = "x: version 3 is used; a new version is for all devices at once";
    assert_eq!(w.keeper.canary("x", 0, None), Ok(ended.to_owned()));
    assert_eq!(w.put("five"), Ok(vec!["x: version 5 is used".to_owned()]));
}

#[test]
fn no_more_versions_are_kept_than_are_counted_and_never_without_the_one_in_use() {
    let w = World::new("kept");
    for n in 1..=25 {
        w.put(&format!("version {n}")).unwrap();
    }
    assert_eq!(w.kept().len(), codecs::library::KEPT + 1);
    assert!(w.kept().contains(&"25.js".to_owned()) && !w.kept().contains(&"15.js".to_owned()));
}

#[test]
fn what_cannot_be_a_codec_is_refused_or_not_seen() {
    let mut w = World::new("names");
    for file in ["README.md", "Übung.js", "a b.js", "sub.js.bak", ".x.js", "x.yaml"] {
        w.write(file, "one");
    }
    assert_eq!(names(&w.root.join("codecs")), Vec::<Box<str>>::new());
    assert!(w.keeper.reload(Some("x")).unwrap_err().contains("there is no x.js"));
    w.write("raw.js", "one");
    assert_eq!(w.keeper.reload(Some("raw")), Err("raw: a codec of this name is built in".to_owned()));
    w.put("one").unwrap();
    w.write("x.wasm", "two");
    assert!(w.keeper.reload(Some("x")).unwrap_err().contains("one of them has to go"));
    assert_eq!(w.used("d"), Some(1));
    fs::remove_file(w.root.join("codecs/x.wasm")).unwrap();
    w.write("x.js", &"x".repeat((4 << 20) + 1));
    assert!(w.keeper.reload(Some("x")).unwrap_err().contains("are allowed"));
    // A damaged state is told, and what the folder has is used.
    fs::write(w.root.join("data/codecs/x/state.json"), "{").unwrap();
    w.write("x.js", "one");
    w.restart();
    assert_eq!(w.used("d"), Some(1));
}

#[test]
fn what_is_wrong_with_files_is_shown_as_long_as_they_are_there() {
    let w = World::new("shown");
    let errors = |w: &World| -> Vec<(String, String)> {
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        w.keeper.overview().iter().map(|i| (text(&i["codec"]), text(&i["error"]))).collect()
    };
    w.put("one").unwrap();
    w.write("raw.js", "one");
    w.write("y.js", "bad");
    w.write("x.wasm", "two");
    assert!(w.keeper.reload(None).is_err());
    let [raw, x, y] = &errors(&w)[..] else { panic!("three are seen: {:?}", errors(&w)) };
    assert_eq!((&*raw.0, &*raw.1), ("raw", "a codec of this name is built in"));
    assert!(x.1.ends_with("one of them has to go"), "{x:?}");
    assert_eq!((&*y.0, &*y.1), ("y", "example 1: 2 is not 3"));
    assert!(w.keeper.versions("x").unwrap()[1]["error"].as_str().unwrap().ends_with("has to go"));
    for file in ["raw.js", "y.js", "x.wasm"] {
        fs::remove_file(w.root.join("codecs").join(file)).unwrap();
    }
    w.keeper.look();
    w.keeper.look();
    assert_eq!(errors(&w), [("x".to_owned(), String::new())]);
    assert_eq!(w.used("d"), Some(1));
}

#[test]
fn a_file_whose_name_no_codec_can_have_is_not_passed_over_in_silence() {
    let w = World::new("misnamed");
    for file in ["a b.js", ".#x.js", "Übung.wasm", "notes.txt", "a b.yaml"] {
        w.write(file, "one");
    }
    let error = w.keeper.reload(None).unwrap_err();
    let lines: Vec<&str> = error.lines().map(|l| l.rsplit('/').next().unwrap()).collect();
    let rule = "not read: a codec's name is of letters, digits, `-`, `_` and `.`, 64 at most";
    assert_eq!(lines, [format!("a b.js: {rule}"), format!("Übung.wasm: {rule}")]);
}

#[test]
fn a_file_that_is_removed_leaves_its_codec_in_use_until_the_next_start() {
    let mut w = World::new("removed");
    w.put("one").unwrap();
    fs::remove_file(w.root.join("codecs/x.js")).unwrap();
    w.keeper.look();
    assert_eq!(w.used("d"), Some(1));
    w.restart();
    assert_eq!(w.used("d"), None);
    w.write("x.js", "one");
    w.restart();
    assert_eq!((w.used("d"), w.library.shelf("x").unwrap().last), (Some(1), 1));
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let w = World::new("pipe");
    let codecs = w.root.join("codecs");
    let made = std::process::Command::new("mkfifo").arg(codecs.join("x.js")).status().unwrap();
    assert!(made.success());
    assert!(w.keeper.reload(Some("x")).unwrap_err().contains("x.js is no file"));
    fs::remove_file(codecs.join("x.js")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", codecs.join("x.js")).unwrap();
    assert!(w.keeper.reload(Some("x")).unwrap_err().contains("x.js is no file"));
    // A link to a file is as good as the file.
    fs::remove_file(codecs.join("x.js")).unwrap();
    w.write("README", "one");
    std::os::unix::fs::symlink(codecs.join("README"), codecs.join("x.js")).unwrap();
    w.keeper.reload(Some("x")).unwrap();
    assert_eq!(w.used("d"), Some(1));
}

#[test]
fn a_version_that_is_lost_or_damaged_costs_nothing_but_itself_unless_it_is_in_use() {
    let mut w = World::new("damaged");
    for text in ["one", "two", "three", "four"] {
        w.put(text).unwrap();
    }
    w.keeper.roll_back("x").unwrap();
    let kept = w.root.join("data/codecs/x");
    fs::remove_file(kept.join("1.js")).unwrap();
    fs::write(kept.join("2.js"), "tw").unwrap();
    w.restart();
    assert_eq!(w.used("d"), Some(3), "and not what was rolled back");
    assert!(w.keeper.roll_back("x").unwrap_err().contains("no version before this one"));
    assert_eq!(w.keeper.canary("x", 10, Some(4)).map(|_| w.used("")), Ok(Some(3)));
    fs::write(kept.join("3.js"), "three and more").unwrap();
    w.restart();
    assert_eq!(w.used("d"), Some(1), "what the folder has is read as if it were the first");
}
