//! A runbook's front matter: YAML between two lines `---` at the top of the file.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{
    parse::{DURATION, RunbookError, duration},
    variables,
};
use crate::nearest::did_you_mean;

/// What the front matter says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Front {
    pub title: Option<String>,
    pub scenario: Option<String>,
    pub block: Option<Duration>,
    pub runbook: Option<Duration>,
    pub variables: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: Option<String>,
    scenario: Option<String>,
    #[serde(default)]
    timeouts: Timeouts,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timeouts {
    block: Option<String>,
    runbook: Option<String>,
}

/// The longest value of a variable, in bytes: the environment of a process is bounded.
const LONGEST: usize = 64 << 10;

/// Splits the front matter off: what it says, and at which byte the Markdown begins. A file that does not begin with `---`, or in
/// which it is never closed, has none.
pub(super) fn read(file: &str, text: &str) -> Result<(Front, usize), RunbookError> {
    let Some(rest) = text.strip_prefix("---\n") else { return Ok((Front::default(), 0)) };
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        if matches!(line.trim_end(), "---" | "...") {
            return front(file, &rest[..end]).map(|front| (front, 4 + end + line.len()));
        }
        end += line.len();
    }
    Ok((Front::default(), 0))
}

fn front(file: &str, yaml: &str) -> Result<Front, RunbookError> {
    // The first line of the file is the `---`.
    let line_of = |key: &str| {
        let quotes = ['"', '\'', ' '];
        let begins = |line: &str| {
            let rest = line.trim_start_matches(quotes).strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start_matches(quotes).starts_with(':'))
        };
        yaml.lines().position(begins).map_or(1, |index| index + 2)
    };
    let wrong = |line: usize, what: String| RunbookError { file: file.to_owned(), line, what };
    if yaml.trim().is_empty() {
        return Ok(Front::default());
    }
    let written: Written = serde_saphyr::from_str(yaml).map_err(|error| {
        let line = error.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1) + 1);
        wrong(line, format!("the front matter: {}", describe(&error.without_snippet().to_string())))
    })?;
    let time = |key: &str, text: &Option<String>| {
        let read = |text: &String| {
            duration(text).ok_or_else(|| wrong(line_of(key), format!("`{key}: {text}` is no time; {DURATION}")))
        };
        text.as_ref().map(read).transpose()
    };
    for (name, value) in &written.variables {
        if !variables::is_name(name) {
            return Err(wrong(line_of(name), format!("`{name}` cannot be a variable: letters, digits and _ can")));
        }
        if variables::is_own(name) {
            let what = format!("`{name}` is set by Drydock, anew for each block; give yours another name");
            return Err(wrong(line_of(name), what));
        }
        if value.contains('\0') || value.len() > LONGEST {
            let what =
                format!("the value of `{name}` cannot be a variable's: it has a NUL byte or more than {LONGEST} bytes");
            return Err(wrong(line_of(name), what));
        }
    }
    Ok(Front {
        block: time("block", &written.timeouts.block)?,
        runbook: time("runbook", &written.timeouts.runbook)?,
        title: written.title,
        scenario: written.scenario,
        variables: written.variables.into_iter().collect(),
    })
}

/// The reader's words in one line, without a place that counts from another line than the file's first.
fn describe(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    let first = first.split_once(" at line ").map_or(first, |(words, _)| words);
    let Some((name, known)) = first.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`')) else {
        return first.to_owned();
    };
    let known: Vec<&str> =
        known.split(['`', ',', ' ']).filter(|word| word.chars().all(char::is_alphanumeric)).collect();
    let known: Vec<&str> =
        known.into_iter().filter(|word| !matches!(*word, "" | "expected" | "one" | "of" | "or")).collect();
    let suggestion = did_you_mean(name, known.iter().copied());
    format!("unknown key `{name}`{suggestion} (known here: {})", known.join(", "))
}
