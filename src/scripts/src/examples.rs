//! Examples beside a script, which are its tests: for payload codecs in the form of The Things Network's device repository,
//! for stream codecs in that of [`codecs::examples`], both in one file.

use bytes::Bytes;
use codecs::Options;
use codecs::examples::{same, yaml};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::pipe::{Convention, Request};
use crate::remote::Remote;

/// A file of examples.
#[derive(Clone, Debug)]
pub struct Examples {
    sections: Vec<(Convention, Section)>,
    streams: codecs::examples::Examples,
}

/// What else stands in such files is for others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    uplink_decoder: Option<Section>,
    downlink_encoder: Option<Section>,
    downlink_decoder: Option<Section>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Section {
    #[serde(default)]
    file_name: Option<String>,
    #[serde(default)]
    examples: Option<Vec<Example>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Example {
    #[serde(default)]
    description: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    output: Value,
    #[serde(default)]
    normalized_output: Option<Value>,
}

/// What came of the examples of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many there are.
    pub count: usize,
    /// What the script does otherwise, an example each.
    pub failures: Vec<String>,
}

impl Examples {
    /// Reads a file.
    pub fn from_yaml(text: &str) -> Result<Examples, String> {
        let file: File = yaml(text)?;
        let sections = [
            (Convention::DecodeUplink, file.uplink_decoder),
            (Convention::EncodeDownlink, file.downlink_encoder),
            (Convention::DecodeDownlink, file.downlink_decoder),
        ];
        let sections = sections.into_iter().filter_map(|(function, section)| Some((function, section?)));
        let streams = codecs::examples::Examples::from_yaml(text)?;
        Ok(Examples { sections: sections.collect(), streams })
    }

    /// The scripts that it names.
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> =
            self.sections.iter().filter_map(|(_, section)| section.file_name.as_deref()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Whether there are examples of a stream, of which the file does not name the script.
    pub fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Plays those that are of this file.
    pub fn check(&self, file: &str, script: &Remote) -> Report {
        let mut report = Report::default();
        for (function, section) in &self.sections {
            if section.file_name.as_deref().is_some_and(|name| name.rsplit('/').next() != Some(file)) {
                continue;
            }
            for (at, example) in section.examples.iter().flatten().enumerate() {
                report.count += 1;
                if let Err(why) = example.check(*function, script) {
                    let name = if example.description.is_empty() {
                        format!("{} {}", function.section(), at + 1)
                    } else {
                        format!("{} {:?}", function.section(), example.description)
                    };
                    report.failures.push(format!("example {name}: {why}"));
                }
            }
        }
        if script.shape() == codecs::Shape::Stream {
            report.count += self.streams.len();
            report.failures.extend(self.streams.check(script, &Options::default()));
        }
        report
    }
}

impl Convention {
    fn section(self) -> &'static str {
        match self {
            Convention::DecodeUplink => "uplinkDecoder",
            Convention::EncodeDownlink => "downlinkEncoder",
            Convention::DecodeDownlink => "downlinkDecoder",
            Convention::NormalizeUplink => "normalizedOutput",
        }
    }
}

impl Example {
    fn check(&self, function: Convention, script: &Remote) -> Result<(), String> {
        let found = call(function, &self.input, script)?;
        agree(&self.output, &found)?;
        let Some(normalized) = &self.normalized_output else { return Ok(()) };
        let found = call(Convention::NormalizeUplink, &found, script)?;
        agree(&listed(normalized), &listed(&found)).map_err(|why| format!("normalized: {why}"))
    }
}

/// Normalised data is a list of measurements; a function may give the only one as it is, where an example has a list.
fn listed(output: &Value) -> Value {
    let mut output = output.clone();
    if let Some(data) = output.get_mut("data").filter(|data| data.is_object()) {
        *data = Value::Array(vec![data.take()]);
    }
    output
}

fn call(function: Convention, input: &Value, script: &Remote) -> Result<Value, String> {
    let input = Bytes::from(input.to_string());
    let output = script.ask(Request::Example { seq: 0, program: script.program(), function, input })?;
    serde_json::from_slice(&output).map_err(|e| e.to_string())
}

/// Whether an output is the expected one. A list of errors or warnings that is empty may as well not be there, and FPort is
/// compared only where the example names it.
fn agree(expected: &Value, found: &Value) -> Result<(), String> {
    let told = |value: &Value| -> Map<String, Value> {
        let keys = ["data", "bytes", "fPort", "errors", "warnings"];
        let some = |key: &&str| {
            let value = value.get(*key).filter(|value| !value.is_null())?;
            let is_empty_list =
                value.as_array().is_some_and(Vec::is_empty) && *key != "bytes" && *key != "data";
            (!is_empty_list).then(|| ((*key).to_owned(), value.clone()))
        };
        keys.iter().filter_map(some).collect()
    };
    let (expected, mut found) = (told(expected), told(found));
    if !expected.contains_key("fPort") {
        found.remove("fPort");
    }
    let (expected, found) = (Value::Object(expected), Value::Object(found));
    if same(&expected, &found) { Ok(()) } else { Err(format!("\n  expected {expected}\n  found    {found}")) }
}

#[cfg(test)]
mod tests;
