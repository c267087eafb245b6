//! Reading a runbook from Markdown.

use std::time::Duration;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{BLOCK_LIMIT, Block, Place, RUNBOOK_LIMIT, Runbook, RunbookStep, Unmarked, front};
use crate::nearest::did_you_mean;

/// The largest file that is read, in bytes.
pub const LARGEST: usize = 4 << 20;
/// The longest block, in bytes: what bash is given as an argument must be shorter than 128 KiB.
const LONGEST_BLOCK: usize = 100_000;
/// The longest time that a block or a runbook may be given.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// The languages whose blocks are run.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];
/// How a time is written.
pub(super) const DURATION: &str = "write seconds, minutes or hours such as 30s, 2m or 1h, 6h at most";

/// What is wrong with a runbook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct RunbookError {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there, and what may be written instead.
    pub what: String,
}

/// Reads a runbook from the bytes of a file.
///
/// # Errors
/// It is too large, no text, or no runbook: see [`parse`].
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Runbook, RunbookError> {
    let wrong = |line, what: String| Err(RunbookError { file: file.to_owned(), line, what });
    if bytes.len() > LARGEST {
        let size = bytes.len();
        return wrong(1, format!("the file has {size} bytes; a runbook has {LARGEST} at most"));
    }
    let line_at = |offset: usize| bytes[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    // Looked for twice: the first look is quick, and the second hardly ever made.
    if bytes.contains(&0) {
        let offset = bytes.iter().position(|byte| *byte == 0).unwrap_or_default();
        return wrong(line_at(offset), "there is a NUL byte here; a runbook is Markdown, plain text in UTF-8".into());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(file, text),
        Err(error) => wrong(line_at(error.valid_up_to()), "this is no UTF-8; save the file as UTF-8".into()),
    }
}

/// Reads a runbook. A block in another language than `sh`, `bash`, `shell` or `console` is prose.
///
/// # Errors
/// Front matter that is not of the form, an info string with an unknown word, a fence that is never closed, and a command
/// before the first heading.
pub fn parse(file: &str, text: &str) -> Result<Runbook, RunbookError> {
    let wrong = |line, what: String| RunbookError { file: file.to_owned(), line, what };
    // An editor's mark and line ends would become part of commands.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let unix = text.contains('\r').then(|| text.replace("\r\n", "\n"));
    let text = unix.as_deref().unwrap_or(text);
    let (front, begin) = front::read(file, text)?;
    let mut lines = Lines { text, offset: 0, line: 1 };
    let (mut heading, mut first, mut steps): (_, Option<String>, Vec<RunbookStep>) = (None, None, Vec::new());
    let mut open: Option<Open> = None;
    let mut unmarked = Vec::new();
    for (event, range) in Parser::new_ext(&text[begin..], Options::empty()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::Text(words) | Event::Code(words) if heading.is_some() => {
                if let Some((_, title)) = &mut heading {
                    title.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, title)) = heading.take() {
                    if level == HeadingLevel::H1 && first.is_none() {
                        first = Some(title.clone());
                    }
                    steps.push(RunbookStep { title, blocks: Vec::new() });
                }
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let line = lines.of(begin + range.start);
                open = Some(match kind {
                    CodeBlockKind::Fenced(info) => {
                        if !is_closed(&text[begin..][range]) {
                            return Err(wrong(
                                line,
                                "this fence is never closed: the rest of the file is in it".into(),
                            ));
                        }
                        Open::of(&info, line, front.block.unwrap_or(BLOCK_LIMIT)).map_err(|what| wrong(line, what))?
                    }
                    CodeBlockKind::Indented => Open::Unmarked { line, code: String::new() },
                });
            }
            Event::Text(words) => {
                if let Some(Open::Shell { code, .. } | Open::Unmarked { code, .. }) = &mut open {
                    code.push_str(&words);
                }
            }
            Event::End(TagEnd::CodeBlock) => match open.take() {
                Some(Open::Shell { mut block, console, code }) => {
                    let step = steps.last_mut().ok_or_else(|| {
                        let what = "commands before the first heading; put one such as `## Step 1` above";
                        wrong(block.line, what.into())
                    })?;
                    if code.len() > LONGEST_BLOCK {
                        let what = format!(
                            "this block has {} bytes; bash takes {LONGEST_BLOCK} at most: put them into a file",
                            code.len()
                        );
                        return Err(wrong(block.line, what));
                    }
                    block.script = if console { without_prompts(&code) } else { code };
                    step.blocks.push(block);
                }
                Some(Open::Unmarked { line, code }) => {
                    unmarked.push(Unmarked { line, first: code.lines().next().unwrap_or_default().to_owned() });
                }
                Some(Open::Like { line, language }) => {
                    unmarked.push(Unmarked { line, first: format!("```{language}") })
                }
                Some(Open::Other) | None => {}
            },
            _ => {}
        }
    }
    steps.retain(|step| !step.blocks.is_empty());
    Ok(Runbook {
        file: file.to_owned(),
        title: front.title.or(first).unwrap_or_default(),
        scenario: front.scenario,
        limit: front.runbook.unwrap_or(RUNBOOK_LIMIT),
        variables: front.variables,
        steps,
        unmarked,
    })
}

/// Line numbers of offsets that only grow: looking for each from the beginning would take its time in a long file.
struct Lines<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, offset: usize) -> usize {
        if offset > self.offset {
            self.line += self.text[self.offset..offset].matches('\n').count();
            self.offset = offset;
        }
        self.line
    }
}

/// A code block that is being read.
enum Open {
    Shell {
        block: Block,
        console: bool,
        code: String,
    },
    Unmarked {
        line: usize,
        code: String,
    },
    /// Another name of a shell.
    Like {
        line: usize,
        language: String,
    },
    Other,
}

impl Open {
    /// Reads an info string: `sh on=each-node timeout=2m`.
    fn of(info: &str, line: usize, timeout: Duration) -> Result<Self, String> {
        let mut words = info.split_whitespace();
        let language = match words.next() {
            None => return Ok(Open::Unmarked { line, code: String::new() }),
            Some(language) if SHELLS.contains(&language) => language,
            Some(language) => {
                let language = language.to_lowercase();
                let like = ["bash", "shell", "zsh", "console"].iter().any(|shell| language.contains(shell))
                    || language == "sh";
                return Ok(if like { Open::Like { line, language } } else { Open::Other });
            }
        };
        let mut block = Block {
            line,
            on: Place::Workstation,
            timeout,
            fails: false,
            retry: None,
            skip: false,
            script: String::new(),
        };
        for word in words {
            block.set(word)?;
        }
        Ok(Open::Shell { block, console: language == "console", code: String::new() })
    }
}

impl Block {
    /// Takes in one word of an info string.
    fn set(&mut self, word: &str) -> Result<(), String> {
        let time = |time: &str| duration(time).ok_or_else(|| format!("`{time}` is no time; {DURATION}"));
        match word.split_once('=') {
            Some(("on", place)) => {
                let known = Place::NAMES.map(|(name, _)| name);
                let found = Place::NAMES.iter().find(|(name, _)| *name == place);
                self.on = found.map(|(_, place)| *place).ok_or_else(|| {
                    let suggestion = did_you_mean(place, known);
                    format!("there is no place `{place}`{suggestion}; write one of {}", known.join(", "))
                })?;
            }
            Some(("timeout", text)) => self.timeout = time(text)?,
            Some(("retry", text)) => self.retry = Some(time(text)?),
            Some(("expect", "fail")) => self.fails = true,
            Some(("expect", other)) => {
                return Err(format!(
                    "`expect={other}` means nothing; commands are expected to succeed, or expect=fail"
                ));
            }
            _ if word == "skip" => self.skip = true,
            _ => {
                let known = ["on=", "timeout=", "expect=fail", "retry=", "skip"];
                let suggestion = did_you_mean(word, known);
                let which = "write on=…, timeout=…, expect=fail, retry=… or skip";
                return Err(format!("`{word}` means nothing after the language{suggestion}; {which}"));
            }
        }
        Ok(())
    }
}

/// The commands of a terminal's record: what follows a prompt, without what was printed. A record without prompts is commands as
/// it stands. Left-out lines stay as empty ones, so that a command keeps its line.
fn without_prompts(record: &str) -> String {
    if !record.lines().any(|line| after_prompt(line).is_some()) {
        return record.to_owned();
    }
    let mut commands = String::new();
    let mut goes_on = false;
    for line in record.lines() {
        let command = match (after_prompt(line), line.strip_prefix("> ")) {
            (Some(command), _) => command,
            // The shell's second prompt, as long as the command is not complete.
            (None, Some(rest)) if goes_on => rest,
            (None, None) if goes_on && commands.ends_with("\\\n") => line,
            (None, _) => "",
        };
        goes_on = !command.is_empty() || (goes_on && line.starts_with('>'));
        commands.push_str(command);
        commands.push('\n');
    }
    commands
}

/// What follows `$ `, `user@host:~$ ` or `[root@host ~]# `. A `# ` alone begins a comment more often than it is root's prompt.
fn after_prompt(line: &str) -> Option<&str> {
    if let Some(command) = line.strip_prefix("$ ") {
        return Some(command);
    }
    let at = line.find(['$', '#'])?;
    let (prompt, rest) = (&line[..at], line[at + 1..].strip_prefix(' ')?);
    let named = prompt.contains('@') && !prompt.contains(['"', '\'', '|', '=']);
    named.then_some(rest)
}

/// A time such as `30s`, `2m` or `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let time = Duration::from_secs(number.checked_mul(seconds)?);
    (!time.is_zero() && time <= LONGEST).then_some(time)
}

/// Whether the source of a fenced block ends with its closing fence.
fn is_closed(block: &str) -> bool {
    let plain = |line: &str| line.trim_matches([' ', '\t', '>']).to_owned();
    let mut lines = block.trim_end().lines();
    let (Some(first), Some(last)) = (lines.next().map(plain), lines.next_back().map(plain)) else { return false };
    let fence = if first.starts_with('~') { '~' } else { '`' };
    let length = first.chars().take_while(|c| *c == fence).count();
    last.chars().count() >= length && last.chars().all(|c| c == fence)
}
