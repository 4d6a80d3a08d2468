//! Where another server does otherwise than a case says, with the reason why the case is right (`differences.toml`).
//!
//! The file holds tables `[[difference]]` with the keys `case`, `versions` (where it is not all that the case is played
//! in), `got` (what the other server does) and `reason`; each a text in quotes on one line.

use crate::script::{Case, Version};

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Line of the file where it begins.
    pub line: usize,
    /// Name of the case.
    pub case: String,
    /// Empty: every version that the case is played in.
    pub versions: Vec<Version>,
    /// What the other server does instead.
    pub got: String,
    /// Why the case stands.
    pub reason: String,
}

impl Difference {
    /// Whether it is about `case`.
    pub fn covers(&self, case: &Case) -> bool {
        self.case == case.name && (self.versions.is_empty() || self.versions.contains(&case.version))
    }
}

/// Reads the file; a mistake names its line.
pub fn parse(content: &str) -> Result<Vec<Difference>, String> {
    let mut all: Vec<Difference> = Vec::new();
    for (at, line) in content.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[difference]]" {
            all.push(Difference { line: at, ..Difference::default() });
            continue;
        }
        let (key, value) =
            line.split_once(" = ").ok_or_else(|| format!("line {at}: neither a table nor a key"))?;
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value =
            value.ok_or_else(|| format!("line {at}: a value stands in quotes"))?.replace("\\\"", "\"");
        let last = all.last_mut().ok_or_else(|| format!("line {at}: a key before any [[difference]]"))?;
        match key {
            "case" => last.case = value,
            "got" => last.got = value,
            "reason" => last.reason = value,
            "versions" => {
                let versions = value.split(' ').map(Version::from_text).collect::<Option<_>>();
                last.versions =
                    versions.ok_or_else(|| format!("line {at}: versions are 3.1, 3.1.1 and 5"))?;
            }
            _ => return Err(format!("line {at}: {key} is unknown")),
        }
    }
    match all.iter().find(|one| one.case.is_empty() || one.got.is_empty() || one.reason.is_empty()) {
        Some(one) => Err(format!("line {}: a difference has case, got and reason", one.line)),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_about_its_case_and_versions() {
        let text = "# why\n[[difference]]\ncase = \"x\"\nversions = \"3.1 5\"\ngot = \"y\"\nreason = \"a \\\"z\\\"\"\n";
        let all = parse(text).unwrap();
        assert_eq!(all[0].reason, "a \"z\"");
        let case = |version| Case {
            name: "x".into(),
            version,
            ids: Vec::new(),
            file: "x.case".into(),
            steps: Vec::new(),
        };
        assert!(all[0].covers(&case(Version::V5)));
        assert!(!all[0].covers(&case(Version::V311)));
    }

    #[test]
    fn a_difference_without_a_reason_is_a_mistake() {
        assert!(parse("[[difference]]\ncase = \"x\"\ngot = \"y\"\n").is_err());
        assert!(parse("case = \"x\"\n").is_err());
        assert!(parse("[[difference]]\ncase = x\n").is_err());
    }
}
