//! Words and numbers as terminal, summary and JUnit have them.

use crate::scenario::{CellResult, Verdict};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Whether there are colours.
    pub colour: bool,
}

impl Paint {
    /// Good.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Bad.
    pub fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Open.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// By the way.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `ok`, `FAIL` or `skip`, four wide.
    pub fn mark(self, cell: &CellResult) -> String {
        match cell {
            CellResult { verdict: Verdict::Skipped, .. } => self.yellow("skip"),
            CellResult { as_expected: true, .. } => self.green("  ok"),
            CellResult { .. } => self.red("FAIL"),
        }
    }
}

/// `scenario/variant/procedure`.
pub fn path(cell: &CellResult) -> String {
    format!("{}/{}/{}", cell.scenario, cell.variant, cell.procedure)
}

/// `verdict not healed, expected healed: reason`.
pub fn verdict(cell: &CellResult) -> String {
    let expected = cell.expected.map(|expected| format!(", expected {expected}")).unwrap_or_default();
    format!("verdict {}{expected}: {}", cell.verdict, one_line(&cell.reason))
}

/// `12.3 s`.
pub fn exact(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

/// `12 s`, `5 min 12 s`, `2 h 5 min`.
pub fn human(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// All in one line, without what would move a terminal's cursor.
pub fn one_line(text: &str) -> String {
    lines(text).join(" ")
}

/// The lines that hold something, without what would move a terminal's cursor.
pub fn lines(text: &str) -> Vec<String> {
    let plain = console::strip_ansi_codes(text);
    plain
        .lines()
        .map(|line| {
            line.split(|c: char| c.is_control() || turns(c) || c == ' ')
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>()
        })
        .filter(|words| !words.is_empty())
        .map(|words| words.join(" "))
        .collect()
}

/// The text in its lines, without what is no text: colours, and characters that move, erase or turn the writing around.
pub fn plain(text: &str) -> String {
    let text = console::strip_ansi_codes(text);
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || turns(*c))).collect()
}

/// Whether a character turns the direction of writing around, so that a text says something else than it seems to.
fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Breaks `text` between words into lines of at most `width` columns; a longer word keeps a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match wrapped.last_mut() {
            Some(line) if console::measure_text_width(line) + 1 + console::measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => wrapped.push(word.to_owned()),
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0 s")]
    #[case(59, "59 s")]
    #[case(60, "1 min")]
    #[case(312, "5 min 12 s")]
    #[case(7500, "2 h 5 min")]
    fn time_is_told_in_words(#[case] seconds: u64, #[case] expected: &str) {
        assert_eq!(human(seconds), expected);
    }

    #[test]
    fn a_line_cannot_move_the_cursor() {
        assert_eq!(one_line("a\x1b[2J b\r\n\n\tc\u{8}d  e"), "a b c d e");
    }

    #[test]
    fn plain_text_keeps_its_lines_and_nothing_that_moves() {
        assert_eq!(plain("a\x1b[31mb\x1b[0m\r\n\tc\u{0}\u{202e}d"), "ab\n\tcd");
    }

    #[test]
    fn words_are_wrapped_and_never_cut() {
        assert_eq!(wrap("aa bb ccccccc d", 5), ["aa bb", "ccccccc", "d"]);
    }
}
