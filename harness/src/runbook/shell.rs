//! The commands of a shell script, as far as they can be told without running it.

use brush_parser::{
    Parser, ParserOptions, ast,
    word::{self, TildeExpr, WordPiece, WordPieceWithSource},
};

/// A reader that descends into what it reads can be sent too deep. No script for people to read comes near this.
const DEEPEST: usize = 200;

/// A script's commands in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    pub commands: Vec<Command>,
    /// Variables that are given a value, with it and its line.
    pub assigned: Vec<(String, Word)>,
}

/// One simple command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Its line, counted from 1.
    pub line: usize,
    /// Its words without redirections.
    pub words: Vec<Word>,
    /// Files that its standard input comes from.
    pub reads: Vec<Word>,
    /// Files that its output goes to.
    pub writes: Vec<Word>,
    /// Whether its output goes into a pipe.
    pub piped: bool,
}

/// One word of a command.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Its line, counted from 1.
    pub line: usize,
    /// Without quotes where it says what it is, else as it is written.
    pub text: String,
    /// Whether it says what it is: nothing in it is expanded.
    pub literal: bool,
}

impl Script {
    /// Reads a script; none where it cannot be told, as in one that is malformed.
    pub fn read(text: &str) -> Option<Self> {
        let mut script = Self::default();
        script.add(text, 0, 0)?;
        Some(script)
    }

    /// Reads `text`, whose first line is `line` lines below the script's.
    fn add(&mut self, text: &str, line: usize, depth: usize) -> Option<()> {
        if depth > 4 || deep(text) {
            return None;
        }
        let program = Parser::new(text.as_bytes(), &ParserOptions::default()).parse_program().ok()?;
        let mut walk = Walk { script: self, line, depth };
        program.complete_commands.iter().for_each(|list| walk.list(list));
        Some(())
    }
}

/// Whether reading `text` could go deep: counted from above, since quotes are not looked at.
fn deep(text: &str) -> bool {
    let opening = text.bytes().filter(|byte| matches!(byte, b'(' | b'{' | b'`' | b'!')).count();
    let words = text
        .split_ascii_whitespace()
        .filter(|word| matches!(*word, "if" | "while" | "until" | "for" | "case" | "coproc"));
    opening + words.count() > DEEPEST || text.matches("||").count() + text.matches("&&").count() > DEEPEST * 5
}

impl Command {
    /// The program and its arguments, without what only runs another: `sudo -u x`, `env A=b`, `time`.
    pub fn program(&self) -> Option<(&str, &[Word])> {
        let mut words = self.words.as_slice();
        loop {
            let (first, rest) = words.split_first()?;
            match first.text.as_str() {
                "timeout" => {
                    // Its flags, and the time.
                    let flags = rest.iter().take_while(|word| word.text.starts_with('-')).count();
                    words = rest.get(flags + 1..).unwrap_or_default();
                }
                "sudo" => {
                    words = rest;
                    while let Some((flag, rest)) = words.split_first().filter(|(flag, _)| flag.text.starts_with('-')) {
                        let takes_one = matches!(flag.text.as_str(), "--user" | "--group" | "--host" | "--prompt")
                            || !flag.text.starts_with("--") && flag.text.ends_with(['u', 'g', 'h', 'p', 'C', 'U']);
                        words = if takes_one { rest.get(1..).unwrap_or_default() } else { rest };
                    }
                }
                "time" | "nohup" | "command" | "exec" => words = rest,
                "env" => words = rest,
                other if other.contains('=') && !other.starts_with('-') => words = rest,
                other => return Some((other.rsplit('/').next().unwrap_or(other), rest)),
            }
        }
    }
}

struct Walk<'a> {
    script: &'a mut Script,
    line: usize,
    depth: usize,
}

impl Walk<'_> {
    fn list(&mut self, list: &ast::CompoundList) {
        for ast::CompoundListItem(item, _) in &list.0 {
            self.pipeline(&item.first);
            for ast::AndOr::And(pipeline) | ast::AndOr::Or(pipeline) in &item.additional {
                self.pipeline(pipeline);
            }
        }
    }

    fn pipeline(&mut self, pipeline: &ast::Pipeline) {
        for (index, command) in pipeline.seq.iter().enumerate() {
            self.command(command, index + 1 < pipeline.seq.len());
        }
    }

    fn command(&mut self, command: &ast::Command, piped: bool) {
        match command {
            ast::Command::Simple(simple) => self.simple(simple, piped),
            ast::Command::Compound(compound, redirects) => {
                self.compound(compound);
                self.redirected(redirects.as_ref());
            }
            ast::Command::Function(function) => {
                self.compound(&function.body.0);
                self.redirected(function.body.1.as_ref());
            }
            ast::Command::ExtendedTest(_, redirects) => self.redirected(redirects.as_ref()),
        }
    }

    fn compound(&mut self, compound: &ast::CompoundCommand) {
        match compound {
            ast::CompoundCommand::BraceGroup(group) => self.list(&group.list),
            ast::CompoundCommand::Subshell(shell) => self.list(&shell.list),
            ast::CompoundCommand::ForClause(each) => {
                for value in each.values.iter().flatten() {
                    self.word(value);
                }
                self.list(&each.body.list);
            }
            ast::CompoundCommand::ArithmeticForClause(each) => self.list(&each.body.list),
            ast::CompoundCommand::CaseClause(case) => {
                self.word(&case.value);
                case.cases.iter().filter_map(|case| case.cmd.as_ref()).for_each(|list| self.list(list));
            }
            ast::CompoundCommand::IfClause(clause) => {
                self.list(&clause.condition);
                self.list(&clause.then);
                for other in clause.elses.iter().flatten() {
                    other.condition.iter().for_each(|list| self.list(list));
                    self.list(&other.body);
                }
            }
            ast::CompoundCommand::WhileClause(clause) | ast::CompoundCommand::UntilClause(clause) => {
                self.list(&clause.0);
                self.list(&clause.1.list);
            }
            ast::CompoundCommand::Coprocess(process) => self.command(&process.body, true),
            ast::CompoundCommand::Arithmetic(_) => {}
        }
    }

    /// The redirections of a group of commands, as of a command without words.
    fn redirected(&mut self, redirects: Option<&ast::RedirectList>) {
        let mut command = Command::default();
        for redirect in redirects.iter().flat_map(|list| &list.0) {
            self.redirect(redirect, &mut command);
        }
        if !command.reads.is_empty() || !command.writes.is_empty() {
            command.line = command.reads.iter().chain(&command.writes).map(|word| word.line).min().unwrap_or(1);
            self.script.commands.push(command);
        }
    }

    fn simple(&mut self, simple: &ast::SimpleCommand, piped: bool) {
        let mut command = Command { piped, ..Command::default() };
        for item in simple.prefix.iter().flat_map(|prefix| &prefix.0) {
            self.item(item, &mut command, simple.word_or_name.is_none());
        }
        if let Some(name) = &simple.word_or_name {
            let name = self.word(name);
            command.words.push(name);
        }
        // `export A=b` sets a variable too.
        let sets =
            command.words.first().is_some_and(|name| matches!(name.text.as_str(), "export" | "declare" | "readonly"));
        for item in simple.suffix.iter().flat_map(|suffix| &suffix.0) {
            self.item(item, &mut command, sets);
        }
        let all = command.words.iter().chain(&command.reads).chain(&command.writes);
        command.line = all.map(|word| word.line).min().unwrap_or(self.line + 1);
        if !command.words.is_empty() || !command.reads.is_empty() || !command.writes.is_empty() {
            self.script.commands.push(command);
        }
    }

    fn item(&mut self, item: &ast::CommandPrefixOrSuffixItem, command: &mut Command, sets: bool) {
        match item {
            ast::CommandPrefixOrSuffixItem::IoRedirect(redirect) => self.redirect(redirect, command),
            ast::CommandPrefixOrSuffixItem::Word(word) => {
                let word = self.word(word);
                command.words.push(word);
            }
            ast::CommandPrefixOrSuffixItem::AssignmentWord(assignment, word) => {
                let whole = self.word(word);
                if let (ast::AssignmentName::VariableName(name), ast::AssignmentValue::Scalar(value)) =
                    (&assignment.name, &assignment.value)
                    && sets
                {
                    let value = Word { line: whole.line, ..plain(&value.value) };
                    self.script.assigned.push((name.clone(), value));
                }
                // Before a command it is the command's alone, and says of it what `env A=b` says.
                if !sets {
                    command.words.push(whole);
                }
            }
            ast::CommandPrefixOrSuffixItem::ProcessSubstitution(_, shell) => self.list(&shell.list),
        }
    }

    fn redirect(&mut self, redirect: &ast::IoRedirect, command: &mut Command) {
        match redirect {
            ast::IoRedirect::File(_, kind, ast::IoFileRedirectTarget::Filename(word)) => {
                let word = self.word(word);
                match kind {
                    ast::IoFileRedirectKind::Read => command.reads.push(word),
                    ast::IoFileRedirectKind::Write
                    | ast::IoFileRedirectKind::Append
                    | ast::IoFileRedirectKind::Clobber => command.writes.push(word),
                    _ => {}
                }
            }
            ast::IoRedirect::OutputAndError(word, _) => {
                let word = self.word(word);
                command.writes.push(word);
            }
            ast::IoRedirect::File(_, _, ast::IoFileRedirectTarget::ProcessSubstitution(_, shell)) => {
                self.list(&shell.list)
            }
            ast::IoRedirect::File(..) | ast::IoRedirect::HereDocument(..) | ast::IoRedirect::HereString(..) => {}
        }
    }

    /// The word, and the commands in its substitutions.
    fn word(&mut self, word: &ast::Word) -> Word {
        let line = self.line + word.loc.as_ref().map_or(1, |at| at.start.line);
        if word.value.contains(['$', '`']) && !deep(&word.value) {
            let pieces = word::parse(&word.value, &ParserOptions::default()).unwrap_or_default();
            self.substitutions(&pieces, line);
        }
        Word { line, ..plain(&word.value) }
    }

    fn substitutions(&mut self, pieces: &[WordPieceWithSource], line: usize) {
        for piece in pieces {
            match &piece.piece {
                WordPiece::CommandSubstitution(inner) | WordPiece::BackquotedCommandSubstitution(inner) => {
                    let before = self.script.commands.len();
                    let _ = self.script.add(inner, line - 1, self.depth + 1);
                    // What a substitution prints does not go to a terminal.
                    self.script.commands[before..].iter_mut().for_each(|command| command.piped = true);
                }
                WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                    self.substitutions(inner, line);
                }
                _ => {}
            }
        }
    }
}

/// A word without its quotes, if it says what it is; its line is not known here.
fn plain(written: &str) -> Word {
    let as_written = || Word { line: 0, text: written.to_owned(), literal: false };
    if written.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte)) {
        return Word { literal: true, ..as_written() };
    }
    if deep(written) {
        return as_written();
    }
    let Ok(pieces) = word::parse(written, &ParserOptions::default()) else { return as_written() };
    let mut text = String::new();
    if unquoted(&pieces, false, &mut text) { Word { line: 0, text, literal: true } } else { as_written() }
}

fn unquoted(pieces: &[WordPieceWithSource], quoted: bool, text: &mut String) -> bool {
    pieces.iter().all(|piece| match &piece.piece {
        WordPiece::Text(part) => {
            text.push_str(part);
            quoted || !part.contains(['*', '?', '['])
        }
        WordPiece::SingleQuotedText(part) => {
            text.push_str(part);
            true
        }
        WordPiece::EscapeSequence(part) => {
            text.push_str(part.strip_prefix('\\').unwrap_or(part));
            true
        }
        WordPiece::DoubleQuotedSequence(inner) => unquoted(inner, true, text),
        WordPiece::TildeExpansion(TildeExpr::Home) => {
            text.push('~');
            true
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line: words < read > written |` of each command.
    fn told(text: &str) -> Vec<String> {
        let words = |words: &[Word]| words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let script = Script::read(text).unwrap();
        let command = |command: &Command| {
            let mut line = format!("{}: {}", command.line, words(&command.words));
            command.reads.iter().for_each(|word| line.push_str(&format!(" < {}", word.text)));
            command.writes.iter().for_each(|word| line.push_str(&format!(" > {}", word.text)));
            line + if command.piped { " |" } else { "" }
        };
        script.commands.iter().map(command).collect()
    }

    #[test]
    fn commands_are_found_wherever_they_are() {
        let text = "A=1 tar -czf 'a b' . | gzip > \"b.gz\" && c\nfor x in $(ls q); do\n  ( d < \"in put\" ) >> all\ndone\nif ! e \"$(f `g`)\"; then h; else i; fi\ncase x in x) j;; esac\nk() { l; }\nwhile m; do n; done <o\np <<END\nq\nEND\n";
        insta::assert_snapshot!(told(text).join("\n"));
    }

    #[test]
    fn a_word_says_what_it_is_or_not() {
        let words = Script::read("a 'b c' \"d\" e\\ f ~/g \"$h\" i* \"j*\" $(k)").unwrap();
        let command = words.commands.last().unwrap();
        let told: Vec<_> = command.words.iter().map(|word| (word.text.as_str(), word.literal)).collect();
        assert_eq!(
            told,
            [
                ("a", true),
                ("b c", true),
                ("d", true),
                ("e f", true),
                ("~/g", true),
                ("\"$h\"", false),
                ("i*", false),
                ("j*", true),
                ("$(k)", false)
            ]
        );
    }

    #[test]
    fn what_only_runs_another_program_is_looked_through() {
        let program = |text: &str| {
            let script = Script::read(text).unwrap();
            let (program, rest) = script.commands[0].program().unwrap();
            format!("{program} {}", rest.len())
        };
        assert_eq!(program("sudo -u postgres -E env A=b /usr/bin/tar -x f"), "tar 2");
        assert_eq!(program("timeout --foreground 20m kubectl get po"), "kubectl 2");
        assert_eq!(program("KUBECONFIG=x time kubectl get po"), "kubectl 2");
        assert_eq!(Script::read("sudo -i").unwrap().commands[0].program(), None);
    }

    #[test]
    fn variables_are_told_with_their_values() {
        let script = Script::read("A=b\nexport C=\"$D\"\nE=f g").unwrap();
        let told: Vec<_> =
            script.assigned.iter().map(|(name, value)| (name.as_str(), value.line, value.text.as_str())).collect();
        assert_eq!(told, [("A", 1, "b"), ("C", 2, "\"$D\"")]);
    }

    #[test]
    fn what_is_malformed_or_very_deep_is_not_told() {
        assert_eq!(Script::read("echo 'a"), None);
        assert_eq!(Script::read("kubectl delete pv <harbor-pv>\n"), None);
        for open in ["(", "$(", "{ ", "if ", "`", "! ", "<(", "${a:-", "\"$(", "coproc ", "[[ a || ", "b && "] {
            let text = format!("echo {}", open.repeat(100_000));
            assert!(Script::read(&text).is_none_or(|script| script.commands.len() < 10), "{open}");
        }
        // Just not too deep to be read.
        for (open, close) in [("(", ")"), ("$(echo ", ")"), ("{ ", "; }"), ("if true; then ", "; fi")] {
            let text = format!("{}true{}", open.repeat(99), close.repeat(99));
            let _ = Script::read(&text);
        }
    }
}
