//! Strict reading of TOML: an unknown key, a missing one or a wrong value is an error that names file, line and column.

use serde::de::DeserializeOwned;

use crate::nearest::did_you_mean;

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct TomlError {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

impl TomlError {
    /// A problem at a byte offset of `text`.
    pub fn at(file: &str, text: &str, offset: usize, problem: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: problem.into(),
        }
    }
}

/// Reads `text`. Types read so carry `#[serde(deny_unknown_fields)]`, or unknown keys pass unseen.
///
/// # Errors
/// The text is no TOML, or not of the type's form.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        TomlError::at(file, text, offset, describe(error.message()))
    })
}

/// serde's words for a wrong key, with the nearest known one added.
fn describe(message: &str) -> String {
    for (words, what) in [("unknown field `", "key"), ("unknown variant `", "value")] {
        if let Some((name, known)) = message.strip_prefix(words).and_then(|rest| rest.split_once('`')) {
            // serde lists what it knows between backticks: "expected `a` or `b`", "expected one of `a`, `b`".
            let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
            let suggestion = did_you_mean(name, known.iter().copied());
            return format!("unknown {what} `{name}`{suggestion} (known here: {})", known.join(", "));
        }
    }
    match message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(name) => format!("the key `{name}` is missing here"),
        None => message.trim_end().replace('\n', "; "),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its form matters")]
    struct Sample {
        name: String,
        colour: Colour,
        #[serde(default)]
        part: Vec<Part>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its form matters")]
    struct Part {
        size: u8,
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let mistakes = [
            ("unknown key", "name = 'a'\ncolor = 'red'\n"),
            ("unknown value", "name = 'a'\ncolour = 'gren'\n"),
            ("nothing like it", "name = 'a'\ncolour = 'blue'\n"),
            ("unknown key in a list", "name = 'a'\ncolour = 'red'\n[[part]]\nsize = 1\n[[part]]\n  sise = 2\n"),
            ("missing key", "name = 'a'\n"),
            ("missing key in a list", "name = 'a'\ncolour = 'red'\n[[part]]\nsize = 1\n[[part]]\n"),
            ("key given twice", "name = 'a'\nname = 'b'\ncolour = 'red'\n"),
            ("wrong type", "name = 1\ncolour = 'red'\n"),
            ("wrong number", "name = 'a'\ncolour = 'red'\n[[part]]\nsize = 256\n"),
            ("column in characters", "name = 'é'; colour = 'red'\n"),
            ("not TOML", "name = 'a\n"),
        ];
        let said: Vec<String> = mistakes
            .iter()
            .map(|(mistake, text)| format!("{mistake}: {}", parse::<Sample>("sample.toml", text).unwrap_err()))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn what_is_right_is_read() {
        let sample: Sample = parse("sample.toml", "name = 'a'\ncolour = 'green'\n[[part]]\nsize = 1\n").unwrap();
        assert!(matches!(sample.colour, Colour::Green));
    }
}
