//! The topics of a device, as a listener's templates say.

use gateway::topic::{check_filter, check_name};

/// Templates of topics; `{device}` and `{kind}` are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Where a value of this kind is published.
    pub up: Up,
    /// What a device is subscribed to.
    pub down: Down,
}

/// Text around `{device}` and `{kind}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up(Box<str>);

/// Text around `{device}`, without the `#` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down(Box<str>);

impl Default for Topics {
    fn default() -> Topics {
        Topics { up: Up("{device}/up/{kind}".into()), down: Down("{device}/dn/".into()) }
    }
}

impl Topics {
    /// Reads the template of values.
    pub(crate) fn up(text: &str) -> Result<Up, String> {
        let up = Up(text.into());
        let is_whole = text.contains("{device}") && text.contains("{kind}");
        match check_name(&up.name("d", "k")) {
            Ok(()) if is_whole => Ok(up),
            Ok(()) => Err("needs {device} and {kind}, as \"{device}/up/{kind}\" has".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Reads the template of commands.
    pub(crate) fn down(text: &str) -> Result<Down, String> {
        let begin = text.strip_suffix('#').filter(|begin| begin.ends_with('/') && begin.contains("{device}"));
        let Some(begin) = begin else {
            return Err("needs {device}, and /# at its end, as \"{device}/dn/#\" has".to_owned());
        };
        let down = Down(begin.into());
        check_filter(&format!("{}#", down.prefix("d"))).map(|()| down).map_err(|e| e.to_string())
    }
}

impl Up {
    /// The topic of a value.
    pub(crate) fn name(&self, device: &str, kind: &str) -> String {
        // In one go: what is filled in is no template.
        let mut name = String::with_capacity(self.0.len() + device.len() + kind.len());
        let mut rest = &*self.0;
        while let Some(at) = rest.find('{') {
            name.push_str(&rest[..at]);
            let tail = &rest[at..];
            if let Some(tail) = tail.strip_prefix("{device}") {
                name.push_str(device);
                rest = tail;
            } else if let Some(tail) = tail.strip_prefix("{kind}") {
                name.push_str(kind);
                rest = tail;
            } else {
                name.push('{');
                rest = &tail[1..];
            }
        }
        name.push_str(rest);
        name
    }
}

impl Down {
    /// What all topics of a device's commands begin with.
    pub(crate) fn prefix(&self, device: &str) -> String {
        self.0.replace("{device}", device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let up = Topics::up("v1/{device}/{kind}/x").unwrap();
        assert_eq!(up.name("{kind}", "a/b"), "v1/{kind}/a/b/x", "a name is no template");
        assert_eq!(Topics::default().down.prefix("d1"), "d1/dn/");
        assert!(Topics::up("{device}/up").is_err());
        assert!(Topics::up("{device}/+/{kind}").is_err());
        assert!(Topics::down("{device}/dn").is_err());
        assert!(Topics::down("dn/#").is_err());
        assert!(Topics::down("{device}/+x/#").is_err());
    }
}
