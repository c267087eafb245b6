//! Reading a runbook from Markdown.

use std::time::Duration;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Parser, Tag, TagEnd};

use super::{Block, Place, Runbook, RunbookStep};

/// How long a block may take that does not say so itself.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is wrong with a runbook.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct RunbookError {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there, and what may be written instead.
    pub what: String,
}

/// Reads a runbook. A block in another language than `sh`, `bash`, `shell` or `console` is prose.
///
/// # Errors
/// An info string with an unknown word, and a command before the first step's heading.
pub fn parse(file: &str, text: &str) -> Result<Runbook, RunbookError> {
    let wrong = |line, what: String| RunbookError { file: file.to_owned(), line, what };
    let mut runbook = Runbook { file: file.to_owned(), title: String::new(), steps: Vec::new() };
    let mut heading: Option<(HeadingLevel, String)> = None;
    let mut open: Option<Block> = None;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::Text(words) | Event::Code(words) if heading.is_some() => {
                if let Some((_, title)) = &mut heading {
                    title.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => match heading.take() {
                Some((HeadingLevel::H1, title)) => runbook.title = title,
                Some((_, title)) => runbook.steps.push(RunbookStep { title, blocks: Vec::new() }),
                None => {}
            },
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let line = text[..range.start].matches('\n').count() + 1;
                open = block(&info, line).map_err(|what| wrong(line, what))?;
            }
            Event::Text(script) => {
                if let Some(block) = &mut open {
                    block.script.push_str(&script);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some(block) = open.take() {
                    let line = block.line;
                    let step = runbook.steps.last_mut().ok_or_else(|| {
                        wrong(line, "commands before the first step; put a heading such as `## Step 1` above".into())
                    })?;
                    step.blocks.push(block);
                }
            }
            _ => {}
        }
    }
    Ok(runbook)
}

/// Reads an info string: `sh on=each-node timeout=2m`.
fn block(info: &str, line: usize) -> Result<Option<Block>, String> {
    let mut words = info.split_whitespace();
    if !matches!(words.next(), Some("sh" | "bash" | "shell" | "console")) {
        return Ok(None);
    }
    let mut block = Block { line, on: Place::Workstation, timeout: TIMEOUT, script: String::new() };
    for word in words {
        match word.split_once('=') {
            Some(("on", place)) => {
                block.on =
                    Place::NAMES.iter().find(|(name, _)| *name == place).map(|(_, place)| *place).ok_or_else(|| {
                        let names = Place::NAMES.map(|(name, _)| name).join(", ");
                        format!("there is no place `{place}`; write one of {names}")
                    })?;
            }
            Some(("timeout", time)) => {
                block.timeout = duration(time)
                    .ok_or_else(|| format!("`{time}` is no time; write seconds or minutes such as 30s or 2m"))?;
            }
            _ => return Err(format!("`{word}` means nothing after the language; write on=… or timeout=…")),
        }
    }
    Ok(Some(block))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn headings_are_steps_and_shell_blocks_their_commands() {
        let text = "# Title\nprose\n\n## One `thing`\n\n```sh on=each-node timeout=2m\nls\nid\n```\n\n```yaml\nno: command\n```\n## Two\n```bash\npwd\n```\n";
        let runbook = parse("r.md", text).unwrap();
        assert_eq!(runbook.title, "Title");
        let titles: Vec<&str> = runbook.steps.iter().map(|step| step.title.as_str()).collect();
        assert_eq!(titles, ["One thing", "Two"]);
        let block = &runbook.steps[0].blocks[0];
        assert_eq!((block.line, block.on, block.timeout.as_secs()), (6, Place::EachNode, 120));
        assert_eq!(block.script, "ls\nid\n");
        assert_eq!(runbook.steps[0].blocks.len(), 1);
    }

    #[rstest]
    #[case(
        "# T\n## S\n```sh on=every-node\n```\n",
        "r.md:3: there is no place `every-node`; write one of workstation, each-node, workers, gpu-node"
    )]
    #[case(
        "# T\n## S\n\n```sh timeout=soon\n```\n",
        "r.md:4: `soon` is no time; write seconds or minutes such as 30s or 2m"
    )]
    #[case("# T\n## S\n```sh fast\n```\n", "r.md:3: `fast` means nothing after the language; write on=… or timeout=…")]
    #[case("# T\n```sh\nls\n```\n", "r.md:2: commands before the first step; put a heading such as `## Step 1` above")]
    fn a_mistake_is_told_with_its_line(#[case] text: &str, #[case] message: &str) {
        assert_eq!(parse("r.md", text).unwrap_err().to_string(), message);
    }
}
