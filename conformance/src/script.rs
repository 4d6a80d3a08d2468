//! Case files: text in which every line is one step of a dialogue. README.md in `conformance/` describes the language.
//!
//! ```text
//! versions 3.1.1 5                                  # otherwise the folder says it
//! case "a second CONNECT ends the connection" [3.1.1:MQTT-3.1.0-2] [5:MQTT-3.1.0-2]
//!   a joins clean id={u}
//!   a > connect clean id={u}
//!   a < disconnect code=0x82 | close
//!   a < close
//! ```

use crate::text;
use std::fmt;
use std::path::{Path, PathBuf};

/// Versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 3.1: `MQIsdp`, level 3.
    V31,
    /// 3.1.1: level 4.
    V311,
    /// 5.0: level 5.
    V5,
}

impl Version {
    /// All of them.
    pub const ALL: [Version; 3] = [Version::V31, Version::V311, Version::V5];

    /// Protocol level in CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V31 => 3,
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// The version that is written like this.
    pub fn from_text(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.to_string() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        })
    }
}

/// One line of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number in the file.
    pub line: usize,
    /// Its words; the first names the connection, the second what is done.
    pub words: Vec<String>,
}

/// A dialogue for one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// A sentence that says what holds.
    pub name: String,
    /// The version it is played in.
    pub version: Version,
    /// Normative statements it checks, such as `5:MQTT-3.1.0-2`.
    pub ids: Vec<String>,
    /// Where it stands.
    pub file: PathBuf,
    /// What is done.
    pub steps: Vec<Step>,
}

/// Reads every `.case` file below `folder`, in order of their paths. The folder of a file says its version, unless the
/// file says `versions`; a case of several versions is given once for each.
pub fn load(folder: &Path) -> Result<Vec<Case>, String> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        cases.extend(parse(&text, &file)?);
    }
    let mut names: Vec<(&str, Version)> =
        cases.iter().map(|case| (case.name.as_str(), case.version)).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("two cases are called {:?}", pair[0].0)),
        None => Ok(cases),
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "case") {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads one file.
pub fn parse(content: &str, file: &Path) -> Result<Vec<Case>, String> {
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let of_folder = folder.as_deref().and_then(|name| name.strip_prefix('v')).and_then(Version::from_text);
    let mut versions: Vec<Version> = of_folder.into_iter().collect();
    let mut cases: Vec<Case> = Vec::new();
    let mut begun = 0;
    let mut lines = content.lines().enumerate();
    while let Some((at, text)) = lines.next() {
        let wrong = |why: String| format!("{}:{}: {why}", file.display(), at + 1);
        let words = text::words(text).map_err(wrong)?;
        match words.first().map(String::as_str) {
            None => {}
            Some("versions") => {
                let read: Option<Vec<Version>> = words[1..].iter().map(|w| Version::from_text(w)).collect();
                versions = read.ok_or_else(|| wrong("versions are 3.1, 3.1.1 and 5".into()))?;
            }
            Some("case") => {
                let (name, ids) = head(&words).map_err(wrong)?;
                begun = cases.len();
                cases.extend(versions.iter().map(|version| Case {
                    name: name.clone(),
                    version: *version,
                    ids: ids.clone(),
                    file: file.to_owned(),
                    steps: Vec::new(),
                }));
                if cases.len() == begun {
                    return Err(wrong("neither the folder nor the file says which versions".into()));
                }
            }
            Some(_) if cases.is_empty() => return Err(wrong("a step comes before any case".into())),
            Some("for") => {
                let steps = repeat(&words, &mut lines).map_err(wrong)?;
                cases[begun..].iter_mut().for_each(|case| case.steps.extend(steps.clone()));
            }
            Some(_) => {
                let step = Step { line: at + 1, words };
                cases[begun..].iter_mut().for_each(|case| case.steps.push(step.clone()));
            }
        }
    }
    Ok(cases)
}

/// `case "name" [5:MQTT-…] […]`.
fn head(words: &[String]) -> Result<(String, Vec<String>), String> {
    let name = words.get(1).filter(|name| !name.is_empty()).ok_or("a case has a name")?;
    let ids = words[2..].iter().map(|word| {
        let id = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let id = id.filter(|id| id.starts_with("3.1.1:MQTT-") || id.starts_with("5:MQTT-"));
        id.map(str::to_owned).ok_or_else(|| format!("{word} is not like [5:MQTT-3.1.0-2]"))
    });
    Ok((name.clone(), ids.collect::<Result<_, _>>()?))
}

/// `for i in 1..3`, up to `end`: the lines between, once for each number, which `{i}` stands for.
fn repeat<'a>(
    words: &[String],
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<Vec<Step>, String> {
    let range = words.get(3).and_then(|range| range.split_once(".."));
    let range = range.and_then(|(low, high)| Some(low.parse::<u32>().ok()?..=high.parse::<u32>().ok()?));
    let (Some(name), Some(range)) = (words.get(1), range) else {
        return Err("a repetition is written: for i in 1..3".into());
    };
    let mut inner: Vec<(usize, &str)> = Vec::new();
    for (at, text) in lines {
        if text.trim() == "end" {
            let mut steps = Vec::new();
            for number in range {
                for (at, text) in &inner {
                    let text = text.replace(&format!("{{{name}}}"), &number.to_string());
                    let words = text::words(&text)?;
                    if !words.is_empty() {
                        steps.push(Step { line: at + 1, words });
                    }
                }
            }
            return Ok(steps);
        }
        inner.push((at, text));
    }
    Err("a repetition has no end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_given_once_for_each_version() {
        let text = "versions 3.1.1 5\ncase \"x\" [5:MQTT-1.5.4-1]\n a > pingreq # why\n\ncase \"y\"\n";
        let cases = parse(text, Path::new("cases/every/x.case")).unwrap();
        let found: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.version, c.steps.len())).collect();
        assert_eq!(
            found,
            [("x", Version::V311, 1), ("x", Version::V5, 1), ("y", Version::V311, 0), ("y", Version::V5, 0)]
        );
        assert_eq!(cases[0].ids, ["5:MQTT-1.5.4-1"]);
        assert_eq!(
            cases[0].steps[0],
            Step { line: 3, words: vec!["a".into(), ">".into(), "pingreq".into()] }
        );
    }

    #[test]
    fn the_folder_says_the_version() {
        let cases = parse("case \"x\"\n", Path::new("mqtt/v3.1/x.case")).unwrap();
        assert_eq!(cases[0].version, Version::V31);
        assert!(parse("case \"x\"\n", Path::new("mqtt/every/x.case")).is_err());
    }

    #[test]
    fn a_repetition_is_written_out() {
        let text = "case \"x\"\nfor i in 2..3\n a > publish topic={i} payload={i}\nend\n";
        let cases = parse(text, Path::new("mqtt/v5/x.case")).unwrap();
        assert_eq!(cases[0].steps[1].words[3..], ["topic=3", "payload=3"]);
        assert!(parse("case \"x\"\nfor i in 1..2\n", Path::new("v5/x.case")).is_err());
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let error = parse("case \"x\" MQTT-1.5.4-1\n", Path::new("v5/x.case")).unwrap_err();
        assert!(error.starts_with("v5/x.case:1: "), "{error}");
        assert!(parse("a > pingreq\n", Path::new("v5/x.case")).is_err());
    }
}
