//! What can be told of a runbook without running it.

use std::{collections::BTreeSet, process::Command as Process, sync::LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{
    Block, Place, Runbook,
    shell::{Command, Script, Word},
    variables,
    workstation::ELSEWHERE,
};
use crate::nearest::did_you_mean;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The runbook cannot be run as it is.
    Error,
    /// It can be run, and somebody will be sorry.
    Warning,
}

/// Something about a runbook that its reader should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The runbook's file.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// How bad it is.
    pub level: Level,
    /// What it is, and what to write instead.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(f, "{}:{}: {level}: {}", self.file, self.line, self.what)
    }
}

/// Looks at a runbook, and tells what it finds in the order of its lines.
pub fn lint(runbook: &Runbook) -> Vec<Finding> {
    let mut lint =
        Lint { runbook, findings: Vec::new(), made: KNOWN_FILES.iter().map(|name| (*name).to_owned()).collect() };
    let blocks: Vec<&Block> = runbook.blocks().map(|(_, block)| block).collect();
    if blocks.iter().all(|block| block.skip) {
        let what = "nothing to run: commands go into fenced blocks that begin with ```sh below a heading";
        lint.error(1, what.to_owned());
    }
    for block in blocks.into_iter().filter(|block| !block.skip) {
        lint.block(block);
    }
    for unmarked in &runbook.unmarked {
        lint.unmarked(unmarked.line, &unmarked.first);
    }
    let mut findings = lint.findings;
    findings.sort_by(|a, b| (a.line, &a.what).cmp(&(b.line, &b.what)));
    findings.dedup();
    findings
}

/// Files that lie in the work folder before the first command.
const KNOWN_FILES: [&str; 4] = ["values.yaml", "images/list", "backup", "harbor/harbor"];
/// Programs that wait for somebody to type or to look.
const INTERACTIVE: [&str; 5] = ["vi", "vim", "nano", "watch", "k9s"];
/// How a block of commands without a language often begins.
const COMMANDS: [&str; 14] = [
    "kubectl",
    "helm",
    "docker",
    "sudo",
    "systemctl",
    "psql",
    "pg_dump",
    "tar",
    "cp",
    "mkdir",
    "curl",
    "crane",
    "ssh",
    "$",
];

/// What to write in the place of a text.
type Instead = fn(&str) -> String;

/// A text that somebody is meant to replace, what it is known by, and what to write.
static PLACEHOLDERS: LazyLock<Vec<(Regex, Instead)>> = LazyLock::new(|| {
    let forms: [(&str, Instead); 5] = [
        // `<harbor-pv>`, and not the redirections of `a <b >c` and `a <b>c`.
        (r"<([A-Za-z][A-Za-z0-9_.-]*(?: [A-Za-z][A-Za-z0-9_.-]*)*)>(?:[^A-Za-z0-9.$/_&-]|$)", for_words),
        // `harbor-registry-xxx`, `XXXX`.
        (r"(?:^|[^A-Za-z0-9_-])([A-Za-z0-9.-]*-[xX]{3,}|[xX]{4,}|XXX)(?:[^A-Za-z0-9_]|$)", for_words),
        // `YOUR_PASSWORD`, `your-node`.
        (r"(?:^|[^A-Za-z0-9_$\{-])((?:YOUR|your)[_-][A-Za-z0-9_-]+)", for_words),
        // A pod's name of another day: a ReplicaSet's hash and five letters or digits, as Kubernetes draws them.
        (
            r"(?:^|[^A-Za-z0-9-])([a-z][a-z0-9-]*-[0-9a-f]{7,10}-[bcdfghjklmnpqrstvwxz2456789]{5})(?:[^A-Za-z0-9-]|$)",
            for_pod,
        ),
        // A volume's.
        (r"(pvc-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", |_| {
            "$(kubectl -n \"$HARBOR_NAMESPACE\" get pvc CLAIM -o jsonpath='{.spec.volumeName}')".to_owned()
        }),
    ];
    forms.into_iter().filter_map(|(form, instead)| Some((Regex::new(form).ok()?, instead))).collect()
});

/// What to write in the place of words such as `harbor-registry-xxx` or `<node name>`.
fn for_words(words: &str) -> String {
    let words = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let variable = if has(&["password", "passwd"]) {
        "$HARBOR_ADMIN_PASSWORD"
    } else if has(&["pvc", "claim", "-pv", "volume"]) || words == "pv" {
        return "a name that is looked up, such as $(kubectl -n \"$HARBOR_NAMESPACE\" get pvc CLAIM -o jsonpath='{.spec.volumeName}')"
            .to_owned();
    } else if has(&["harbor-core", "jobservice", "portal", "nginx"]) {
        return "deploy/NAME, which needs no pod's name".to_owned();
    } else if has(&["host", "domain", "registry-ip", "harbor-ip", "url", "address", "fqdn"]) {
        "$HARBOR_HOST (host:port) or $HARBOR_URL"
    } else if has(&["registry"]) {
        "$HARBOR_REGISTRY_POD, or deploy/harbor-registry"
    } else if has(&["database", "postgres", "-db"]) {
        "$HARBOR_DATABASE_POD"
    } else if has(&["namespace"]) || words == "ns" {
        "$HARBOR_NAMESPACE"
    } else if has(&["release"]) {
        "$HARBOR_RELEASE"
    } else if has(&["chart"]) {
        "$HARBOR_CHART"
    } else if has(&["gpu"]) {
        "$GPU_NODE"
    } else if has(&["node", "worker"]) {
        "$GPU_NODE, or one of $WORKERS"
    } else {
        return "the value itself, a variable of the front matter, or $(a command that looks it up)".to_owned();
    };
    variable.to_owned()
}

fn for_pod(name: &str) -> String {
    if name.contains("registry") {
        return "$HARBOR_REGISTRY_POD, or deploy/harbor-registry".to_owned();
    }
    let workload: Vec<&str> = name.rsplitn(3, '-').collect();
    format!("deploy/{}, which stays the same when the pod is made anew", workload.last().unwrap_or(&name))
}

/// Whether what stands between `<` and `>` in a quoted text is one: it may be HTML.
fn is_placeholder(words: &str) -> bool {
    const NAMES: [&str; 18] = [
        "password",
        "namespace",
        "node",
        "pod",
        "host",
        "hostname",
        "domain",
        "ip",
        "version",
        "release",
        "name",
        "user",
        "username",
        "claim",
        "volume",
        "registry",
        "url",
        "port",
    ];
    words.contains(['-', '_']) || words.chars().all(|c| c.is_ascii_uppercase()) || NAMES.contains(&words)
}

/// Follows a script line by line to know which lines are the text of a here-document.
#[derive(Default)]
struct HereDocument {
    end: Option<String>,
}

impl HereDocument {
    fn holds(&mut self, line: &str) -> bool {
        if let Some(end) = &self.end {
            if line.trim() == end {
                self.end = None;
            }
            return true;
        }
        let word = line.split_once("<<").map(|(_, rest)| rest.trim_start_matches(['-', ' ', '"', '\'', '\\']));
        let word: Option<String> =
            word.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        self.end = word.filter(|word| !word.is_empty());
        false
    }
}

/// What names a kubeconfig, and its value.
static KUBECONFIG: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?:--kubeconfig[= ]+|\bKUBECONFIG=)["']?([^\s"';|&)]+)"#).ok());
/// What writes another cluster into the kubeconfig.
const LOGINS: [&str; 4] = ["update-kubeconfig", "get-credentials", "oc login", "kubelogin"];

static HARBOR_VARIABLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\$\{?(HARBOR_[A-Z0-9_]+)").ok());

struct Lint<'a> {
    runbook: &'a Runbook,
    findings: Vec<Finding>,
    /// Files that are in the work folder by now.
    made: BTreeSet<String>,
}

impl Lint<'_> {
    fn find(&mut self, line: usize, level: Level, what: String) {
        self.findings.push(Finding { file: self.runbook.file.clone(), line, level, what });
    }

    fn error(&mut self, line: usize, what: String) {
        self.find(line, Level::Error, what);
    }

    fn warn(&mut self, line: usize, what: String) {
        self.find(line, Level::Warning, what);
    }

    fn block(&mut self, block: &Block) {
        let replaced = self.placeholders(block);
        self.unknown_variables(block);
        if block.on == Place::Workstation {
            self.other_clusters(block);
        }
        let Some(script) = Script::read(&block.script) else {
            if !replaced {
                self.syntax(block);
            }
            return;
        };
        for command in &script.commands {
            self.command(block, command);
            if block.on == Place::Workstation {
                self.files(block, command);
            }
        }
    }

    /// Whether there are any.
    fn placeholders(&mut self, block: &Block) -> bool {
        let before = self.findings.len();
        let mut document = HereDocument::default();
        for (index, line) in block.script.lines().enumerate() {
            let literal = document.holds(line);
            let line = if literal { line } else { without_comment(line) };
            // A name that is drawn has X in it.
            if line.contains("mktemp") {
                continue;
            }
            for (form, instead) in PLACEHOLDERS.iter() {
                for found in form.captures_iter(line) {
                    let (Some(whole), Some(inner)) = (found.get(0), found.get(1)) else { continue };
                    // A here-document begins with `<<` too, and `$(<file)` is bash's.
                    if whole.as_str().starts_with('<') && line[..whole.start()].ends_with(['<', '(']) {
                        continue;
                    }
                    let quoted = literal || is_quoted(line, whole.start()) || line[..whole.start()].ends_with('>');
                    if whole.as_str().starts_with('<') && quoted && !is_placeholder(inner.as_str()) {
                        continue;
                    }
                    let shown = if whole.as_str().starts_with('<') {
                        format!("<{}>", inner.as_str())
                    } else {
                        inner.as_str().to_owned()
                    };
                    let what = format!("`{shown}` stands for something else; write {}", instead(inner.as_str()));
                    self.error(block.line + 1 + index, what);
                }
            }
        }
        self.findings.len() > before
    }

    fn unknown_variables(&mut self, block: &Block) {
        let own = || variables::VARIABLES.iter().map(|(name, _)| *name);
        for (index, line) in block.script.lines().enumerate() {
            let line = without_comment(line);
            for found in HARBOR_VARIABLE.iter().flat_map(|form| form.captures_iter(line)) {
                let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else { continue };
                let name = name.as_str();
                // A default is given, or a pod's own shell is meant.
                let rest = &line[whole.end()..];
                let defaulted = whole.as_str().starts_with("${") && rest.starts_with([':', '-', '=', '+', '?']);
                if defaulted || is_single_quoted(line, whole.start()) || self.sets(name) || own().any(|own| own == name)
                {
                    continue;
                }
                let suggestion = did_you_mean(name, own());
                let misspelt = own().any(|own| strsim::levenshtein(own, name) <= 2);
                let level = if misspelt { Level::Error } else { Level::Warning };
                let what = format!("nothing sets `${name}`{suggestion}; `cargo xtask runbook vars` lists what is set");
                self.find(block.line + 1 + index, level, what);
            }
        }
    }

    /// Whether the runbook may set a variable: its name stands somewhere without a `$`, as in `read -r NAME`.
    fn sets(&self, name: &str) -> bool {
        let bare = |script: &str| {
            script.match_indices(name).any(|(at, _)| {
                let before = script[..at].chars().next_back();
                let after = script[at + name.len()..].chars().next();
                let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
                !before.is_some_and(|c| inner(c) || c == '$' || c == '{') && !after.is_some_and(inner)
            })
        };
        self.runbook.variables.iter().any(|(own, _)| own == name)
            || self.runbook.blocks().any(|(_, block)| bare(&block.script))
    }

    /// What bash says of a script that could not be read.
    fn syntax(&mut self, block: &Block) {
        let Ok(said) = Process::new("bash").args(["-n", "-c", &block.script]).output() else { return };
        if said.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let first = said.lines().next().unwrap_or("bash cannot read it");
        // `bash: -c: line 2: syntax error near …`
        let (line, what) = first
            .split_once("line ")
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(line, what)| Some((line.parse::<usize>().ok()?, what)))
            .unwrap_or((1, first));
        self.error(block.line + line, what.to_owned());
    }

    fn command(&mut self, block: &Block, command: &Command) {
        let line = block.line + command.line;
        let Some((program, rest)) = command.program() else { return };
        let has = |flags: &[&str]| rest.iter().any(|word| flags.contains(&word.text.as_str()));
        let edits =
            program == "kubectl" && is(rest, "edit") && !command.words.iter().any(|word| word.text.contains("EDITOR="));
        if INTERACTIVE.contains(&program) || edits {
            let what = format!(
                "`{program}` waits for somebody to type or to look, and nobody is there; write the change as a command"
            );
            self.error(line, what);
        }
        let follows = (program == "kubectl" && is(rest, "logs") || program == "tail" || program == "journalctl")
            && has(&["-f", "--follow"])
            || program == "kubectl" && has(&["-w", "--watch"]);
        if follows {
            self.warn(line, format!("this `{program}` never ends by itself: the block is stopped when its time is over; leave -f or -w out"));
        }
        if block.on == Place::Workstation && ELSEWHERE.contains(&program) {
            let instead = match program {
                "docker" | "podman" | "nerdctl" => {
                    "`crane` copies, pushes and pulls images; the images to push are in images/"
                }
                _ => "a block that says on=each-node, on=workers or on=gpu-node runs on nodes",
            };
            self.warn(line, format!("there is no `{program}` on the lab's workstation; {instead}"));
        }
        match program {
            "kubectl" => self.kubectl(block, command, rest),
            "helm" => self.helm(line, rest),
            "psql" => self.psql(line, rest, !command.reads.is_empty()),
            _ => {}
        }
    }

    /// A kubeconfig by its path is somebody's own, and so is a cluster that a cloud's program names. The text is looked at, since
    /// what is in a variable or behind `timeout` is a command all the same.
    fn other_clusters(&mut self, block: &Block) {
        for (index, line) in block.script.lines().enumerate() {
            let line_number = block.line + 1 + index;
            let line = without_comment(line);
            for found in KUBECONFIG.iter().flat_map(|form| form.captures_iter(line)) {
                let value = found.get(1).map_or("", |value| value.as_str());
                let elsewhere = |part: &str| {
                    part.starts_with('/') && part != "/dev/null"
                        || part.starts_with('~') && !part.starts_with("~/") && part != "~"
                };
                if let Some(part) = value.split(':').find(|part| elsewhere(part)) {
                    let what = format!("`{part}` leads to another cluster; leave it out: KUBECONFIG is the lab's");
                    self.error(line_number, what);
                }
            }
            if let Some(words) = LOGINS.iter().find(|words| line.contains(**words)) {
                self.error(
                    line_number,
                    format!("`{words}` leads to another cluster; leave it out: KUBECONFIG is the lab's"),
                );
            }
        }
    }

    fn kubectl(&mut self, block: &Block, command: &Command, rest: &[Word]) {
        let line = block.line + command.line;
        for (index, word) in rest.iter().enumerate() {
            let next = rest.get(index + 1).map_or("", |next| next.text.as_str());
            let (flag, value) = word.text.split_once('=').unwrap_or((&word.text, next));
            match flag {
                "--" => break,
                "--context" | "--cluster" => {
                    let what = format!("the lab's kubeconfig knows no `{value}`; leave {flag} out");
                    self.warn(line, what);
                }
                _ => {}
            }
        }
        if is(rest, "config") && rest.get(1).is_some_and(|word| word.text == "use-context") {
            self.warn(line, "the lab's kubeconfig has one context, which is in use; leave this out".to_owned());
        }
        if is(rest, "exec") || is(rest, "run") {
            let end = rest.iter().position(|word| word.text == "--").unwrap_or(rest.len());
            let (own, inner) = rest.split_at(end);
            if own.iter().any(|word| is_terminal(&word.text)) {
                self.terminal(line, command);
            }
            // What runs in the pod is a command as well.
            let inner = inner.get(1..).unwrap_or_default();
            if let Some((_, rest)) = inner.split_first().filter(|(program, _)| program.text == "psql") {
                self.psql(line, rest, !command.reads.is_empty());
            }
        }
    }

    fn terminal(&mut self, line: usize, command: &Command) {
        let what = if command.piped || !command.writes.is_empty() {
            "with a terminal (-t) what is saved is spoilt: a dump gets a carriage return at each line's end, an archive cannot be read; \
             here no terminal is there, so it is not seen; write without -t"
        } else {
            "a terminal (-t) is for somebody who types; here none is there; write without -t"
        };
        self.warn(line, what.to_owned());
    }

    fn helm(&mut self, line: usize, rest: &[Word]) {
        if let Some(at) = rest.iter().position(|word| word.text.starts_with("--kube-context")) {
            let next = rest.get(at + 1).map_or("", |next| next.text.as_str());
            let value = rest[at].text.split_once('=').map_or(next, |(_, value)| value);
            self.warn(line, format!("the lab's kubeconfig knows no `{value}`; leave --kube-context out"));
        }
        if is(rest, "repo") || is(rest, "pull") {
            let what = "the chart is here already, as harbor/harbor and $HARBOR_CHART; one from a repository may be another Harbor";
            self.warn(line, what.to_owned());
        }
        let of_own =
            rest.iter().any(|word| word.text.contains("certSource=secret") || word.text.contains("tls.enabled=false"));
        if (is(rest, "install") || is(rest, "upgrade")) && !of_own {
            let what = "the chart makes a new certificate authority at each install and upgrade, which no node trusts; keep the old \
                        certificate (expose.tls.certSource=secret), or lay the new authority on every node afterwards";
            self.warn(line, what.to_owned());
        }
    }

    fn psql(&mut self, line: usize, rest: &[Word], reads: bool) {
        let file =
            rest.iter().any(|word| matches!(word.text.as_str(), "-f" | "--file") || word.text.starts_with("--file="));
        let stops = rest.iter().any(|word| word.text.contains("ON_ERROR_STOP"));
        if (reads || file) && !stops {
            let what = "psql ends with 0 when statements of its input fail: half a restore looks like a whole one; add \
                        -v ON_ERROR_STOP=1";
            self.warn(line, what.to_owned());
        }
    }

    /// Files of the work folder: what no command before has made cannot be read.
    fn files(&mut self, block: &Block, command: &Command) {
        let (mut used, mut made) = (command.reads.clone(), command.writes.clone());
        if let Some((program, rest)) = command.program() {
            files_of(program, rest, &mut used, &mut made);
        }
        for word in used {
            let Some(name) = in_work_folder(&word) else { continue };
            let there = |made: &String| {
                made == "."
                    || *made == name
                    || name.starts_with(&format!("{made}/"))
                    || made.starts_with(&format!("{name}/"))
            };
            if !self.made.iter().any(there) {
                let suggestion = did_you_mean(&name, self.made.iter().map(String::as_str));
                let what = format!("no step before has made the file `{name}`{suggestion}");
                self.warn(block.line + word.line, what);
                // Once is enough.
                self.made.insert(name);
            }
        }
        self.made.extend(made.iter().filter_map(in_work_folder));
    }

    fn unmarked(&mut self, line: usize, first: &str) {
        let word = first.split_whitespace().next().unwrap_or_default();
        if COMMANDS.contains(&word) || word.starts_with("```") || word.starts_with("~~~") {
            let what = "this block is not run: it does not say that it is shell; begin it with ```sh if it should be";
            self.warn(line, what.to_owned());
        }
    }
}

/// Flags of kubectl and helm that may stand before the subcommand and take a value.
const VALUED: [&str; 12] = [
    "-n",
    "--namespace",
    "--context",
    "--kube-context",
    "--kubeconfig",
    "--cluster",
    "--user",
    "-s",
    "--server",
    "--token",
    "--request-timeout",
    "-v",
];

/// Whether it is this subcommand.
fn is(words: &[Word], subcommand: &str) -> bool {
    let mut words = words.iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        if VALUED.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return word == subcommand;
        }
    }
    false
}

/// A line without the comment at its end.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (index, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return &line[..index],
            (None, '"' | '\'') if before != '\\' => quote = Some(c),
            (Some(open), c) if open == c && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    line
}

/// Whether what begins at `at` is within quotes.
fn is_quoted(line: &str, at: usize) -> bool {
    open_quote(line, at).is_some()
}

fn is_single_quoted(line: &str, at: usize) -> bool {
    open_quote(line, at) == Some('\'')
}

/// The quote that is open before `at`.
fn open_quote(line: &str, at: usize) -> Option<char> {
    let mut quote = None;
    let mut before = ' ';
    for c in line[..at].chars() {
        match (quote, c) {
            (None, '"' | '\'') if before != '\\' => quote = Some(c),
            (Some(open), c) if open == c && before != '\\' => quote = None,
            _ => {}
        }
        before = c;
    }
    quote
}

/// `-t`, `-it`, `--tty`.
fn is_terminal(flag: &str) -> bool {
    let short = flag.strip_prefix('-').is_some_and(|rest| matches!(rest, "t" | "it" | "ti"));
    short || matches!(flag, "--tty" | "--tty=true")
}

/// The name of a file in the work folder, if the word names one.
fn in_work_folder(word: &Word) -> Option<String> {
    let name = word.text.strip_prefix("./").unwrap_or(&word.text);
    let elsewhere =
        !word.literal || name.is_empty() || name.starts_with(['/', '~', '-', '&']) || name.starts_with("..");
    (!elsewhere).then(|| name.trim_end_matches('/').to_owned())
}

/// What can have made files of any name: an archive that is unpacked, a program that is run.
fn anything() -> Word {
    Word { text: ".".to_owned(), literal: true, ..Word::default() }
}

/// The files that a command of the workstation reads and writes, as far as its words tell.
fn files_of(program: &str, rest: &[Word], used: &mut Vec<Word>, made: &mut Vec<Word>) {
    let after = |flags: &[&str]| -> Vec<Word> {
        let pairs = rest.windows(2).filter(|pair| flags.contains(&pair[0].text.as_str()));
        pairs.map(|pair| pair[1].clone()).collect()
    };
    let operands: Vec<&Word> = rest.iter().filter(|word| !word.text.starts_with('-')).collect();
    match program {
        "tar" => {
            let mode = rest.first().map(|word| word.text.trim_start_matches('-')).unwrap_or_default();
            // `-czf FILE`, `czf FILE`, `-c -f FILE`.
            let bundled =
                rest.windows(2).find(|pair| pair[0].text.trim_start_matches('-') == mode && mode.ends_with('f'));
            let file = bundled.map(|pair| pair[1].clone()).or_else(|| after(&["-f", "--file"]).into_iter().next());
            let creates = mode.contains('c') || rest.iter().any(|word| matches!(word.text.as_str(), "-c" | "--create"));
            if let Some(file) = file {
                if creates { made.push(file) } else { used.push(file) }
            }
            if !creates {
                let folder = after(&["-C"]);
                made.extend(if folder.is_empty() { vec![anything()] } else { folder });
            }
        }
        "kubectl" if is(rest, "cp") => {
            let ends: Vec<&&Word> = operands.iter().filter(|word| word.text != "cp").collect();
            if let [.., from, to] = ends[..] {
                if !from.text.contains(':') {
                    used.push((*from).clone());
                }
                if !to.text.contains(':') {
                    made.push((*to).clone());
                }
            }
        }
        "kubectl" if ["apply", "create", "replace", "delete"].iter().any(|verb| is(rest, verb)) => {
            used.extend(after(&["-f", "--filename"]));
        }
        "helm" => used.extend(after(&["-f", "--values"])),
        "cat" => used.extend(operands.into_iter().cloned()),
        "cp" | "mv" => {
            if let [from @ .., to] = operands.as_slice() {
                used.extend(from.iter().map(|word| (*word).clone()));
                made.push((*to).clone());
            }
        }
        "mkdir" | "touch" | "tee" => made.extend(operands.into_iter().cloned()),
        "gzip" => {
            made.extend(operands.iter().map(|word| Word { text: format!("{}.gz", word.text), ..(*word).clone() }))
        }
        "gunzip" => made.extend(
            operands.iter().map(|word| Word { text: word.text.trim_end_matches(".gz").to_owned(), ..(*word).clone() }),
        ),
        "curl" => made.extend(after(&["-o", "--output"])),
        "wget" => made.extend(after(&["-O"])),
        "openssl" => made.extend(after(&["-out", "-keyout"])),
        "pg_dump" => made.extend(after(&["-f", "--file"])),
        "crane" if is(rest, "pull") => made.extend(operands.last().into_iter().map(|word| (*word).clone())),
        "git" | "unzip" | "bash" | "sh" | "source" | "." | "make" | "python3" | "perl" => made.push(anything()),
        _ => {}
    }
}
