//! `cargo xtask runbook`: what concerns a runbook without a lab; and the cells of one that someone brings.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use harness::{
    nearest::did_you_mean,
    runbook::{
        Runbook,
        derive::{self, Part},
        library::Library,
        lint::{Finding, Level, lint},
        parse::parse_bytes,
        variables,
    },
    scenario::{CellPlan, Role, ScenarioSpec, Verdict},
    selection,
};

use crate::exit::{self, Failure};

#[derive(Subcommand)]
pub enum RunbookCommand {
    /// Look at runbooks without a lab: exit code 2 when one cannot be run as it is
    Lint {
        /// Markdown files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List the variables that every command of a runbook has
    Vars,
}

pub fn runbook(command: &RunbookCommand) -> Result<u8, Failure> {
    match command {
        RunbookCommand::Lint { files } => {
            let mut found = Vec::new();
            for file in files {
                found.extend(lint(&read(file)?));
            }
            found.iter().for_each(|finding| println!("{finding}"));
            let errors = found.iter().filter(|finding| finding.level == Level::Error).count();
            println!("{} file(s), {errors} error(s), {} warning(s)", files.len(), found.len() - errors);
            Ok(if errors == 0 { exit::AS_EXPECTED } else { exit::BAD_INPUT })
        }
        RunbookCommand::Vars => {
            let all = variables::VARIABLES.iter().chain(&variables::REACHES);
            all.for_each(|(name, meaning)| println!("{name:<22} {meaning}"));
            Ok(exit::AS_EXPECTED)
        }
    }
}

fn read(file: &Path) -> Result<Runbook, Failure> {
    let shown = file.display().to_string();
    let bytes = std::fs::read(file).map_err(|error| {
        let alike = if error.kind() == std::io::ErrorKind::NotFound { alike(file) } else { String::new() };
        Failure::input(anyhow::anyhow!("read the runbook {shown}: {error}; nothing was created{alike}"))
    })?;
    parse_bytes(&shown, &bytes).map_err(Failure::input)
}

/// `; did you mean …?` of a file that lies where this one does not, or nothing.
fn alike(file: &Path) -> String {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let wanted = file.file_name().unwrap_or_default().to_string_lossy();
    did_you_mean(&wanted, names.iter().map(String::as_str))
}

/// What is to be done with a runbook.
pub struct Wish<'a> {
    /// Its file.
    pub file: &'a Path,
    /// Also without each of its steps.
    pub ablate: bool,
    /// Also interrupted after each of its steps.
    pub interrupt: bool,
}

/// The cells of a runbook that someone brings, in the variants that are selected; the runbooks that they name are added to the
/// library.
pub fn cells(
    wish: &Wish<'_>,
    selected: &[String],
    scenarios: &[&ScenarioSpec],
    library: &mut Library,
) -> Result<Vec<CellPlan>, Failure> {
    let runbook = read(wish.file)?;
    let errors: Vec<Finding> = lint(&runbook).into_iter().filter(|finding| finding.level == Level::Error).collect();
    if !errors.is_empty() {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Failure::input(anyhow::anyhow!(
            "the runbook cannot be run as it is; nothing was created:\n{}",
            lines.join("\n")
        )));
    }
    let known: Vec<CellPlan> = scenarios.iter().flat_map(|spec| spec.cells()).collect();
    let variants = variants(&runbook, selected, &known)?;
    let name = name(wish.file);
    let mut parts: Vec<(String, Option<Part>, Vec<Runbook>)> = vec![(name.clone(), None, vec![runbook.clone()])];
    let derived = wish.ablate.then(|| derive::ablated(&runbook)).into_iter().flatten();
    let derived = derived.chain(wish.interrupt.then(|| derive::interrupted(&runbook)).into_iter().flatten());
    parts.extend(derived.map(|one| (format!("{name}-{}", one.suffix), Some(one.part), one.runbooks)));
    for (name, _, runbooks) in &parts {
        for (index, runbook) in runbooks.iter().enumerate() {
            library.add(&in_library(name, index), runbook.clone());
        }
    }
    let cell = |(scenario, variant): &(String, String),
                (name, part, runbooks): &(String, Option<Part>, Vec<Runbook>)| CellPlan {
        scenario: scenario.clone(),
        variant: variant.clone(),
        procedure: name.clone(),
        role: Role::Yours,
        expected: None,
        why: None,
        runbooks: (0..runbooks.len()).map(|index| in_library(name, index)).collect(),
        stops_at: None,
        part: part.clone(),
    };
    Ok(variants.iter().flat_map(|variant| parts.iter().map(move |part| cell(variant, part))).collect())
}

/// No scenario is called so: its name would not be one.
fn in_library(name: &str, index: usize) -> String {
    format!("(yours)/{name}/{index}")
}

/// The variants that the arguments mean, or the runbook itself names. One whose fault is known not to show a symptom is meant only by
/// its own name.
fn variants(runbook: &Runbook, selected: &[String], known: &[CellPlan]) -> Result<Vec<(String, String)>, Failure> {
    let own: Vec<String> = runbook.scenario.iter().cloned().collect();
    let selected = if selected.is_empty() { &own } else { selected };
    if selected.is_empty() {
        return Err(Failure::input(anyhow::anyhow!(
            "which failure is {} for? Name a scenario, or put `scenario: NAME` into its front matter",
            runbook.file
        )));
    }
    if let Some(argument) = selected.iter().find(|argument| argument.matches('/').count() > 1) {
        return Err(Failure::input(anyhow::anyhow!(
            "`{argument}` names a procedure, and --runbook brings one: write SCENARIO or SCENARIO/VARIANT"
        )));
    }
    let mut variants = Vec::new();
    for cell in selection::select(known, selected, false).map_err(Failure::input)? {
        let variant = (cell.scenario.clone(), cell.variant.clone());
        let named = selected.contains(&format!("{}/{}", cell.scenario, cell.variant));
        if (named || cell.expected != Some(Verdict::NotReproduced)) && !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    Ok(variants)
}

/// The name of a runbook's cells: its file's, as a name may be.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "yours".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e;

    fn told(text: &str, selected: &[&str], ablate: bool, interrupt: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Our Move_2.md");
        std::fs::write(&file, text).unwrap();
        let (scenarios, mut library) = e2e::scenarios().unwrap();
        let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
        let selected: Vec<String> = selected.iter().map(|name| (*name).to_owned()).collect();
        let wish = Wish { file: &file, ablate, interrupt };
        match cells(&wish, &selected, &specs, &mut library) {
            Ok(cells) => {
                let steps = |cell: &CellPlan| {
                    let runbooks = library.all(&cell.runbooks).unwrap();
                    let titles = runbooks
                        .iter()
                        .map(|runbook| runbook.steps.iter().map(|step| step.title.clone()).collect::<String>());
                    titles.collect::<Vec<_>>().join(", ")
                };
                cells.iter().map(|cell| format!("{}: {}\n", cell.path(), steps(cell))).collect()
            }
            Err(failure) => format!("{}: {failure}", failure.code()).replace(&dir.path().display().to_string(), "DIR"),
        }
    }

    const GOOD: &str = "## A\n```sh\ntrue\n```\n## B\n```sh\ntrue\n```\n";

    #[test]
    fn a_runbook_has_a_cell_in_each_variant_and_more_when_it_is_taken_apart() {
        insta::assert_snapshot!(told(GOOD, &["affinity-conflict"], false, false));
        let text = format!("---\nscenario: pv-drift/blobs-lost\n---\n{GOOD}");
        insta::assert_snapshot!("taken_apart", told(&text, &[], true, true));
        assert_eq!(
            told(GOOD, &["affinity-conflict/node-restarted"], false, false),
            "affinity-conflict/node-restarted/our-move-2: AB\n"
        );
    }

    #[test]
    fn the_readme_s_runbook_is_one_that_nothing_is_found_in() {
        let readme = std::fs::read_to_string(crate::root().join("README.md")).unwrap();
        let inner = readme.lines().skip_while(|line| *line != "    ---");
        let inner = inner.take_while(|line| line.is_empty() || line.starts_with("    "));
        let text: Vec<&str> = inner.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
        let runbook = parse_bytes("ours.md", text.join("\n").as_bytes()).unwrap();
        assert_eq!((runbook.steps.len(), lint(&runbook)), (3, Vec::new()));
        assert_eq!(told(&text.join("\n"), &[], false, false).lines().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_there_is_told_with_one_that_is_called_alike() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ours.md"), GOOD).unwrap();
        let error = read(&dir.path().join("our.md")).unwrap_err();
        assert_eq!(error.code(), exit::BAD_INPUT);
        assert!(error.to_string().ends_with("; nothing was created; did you mean `ours.md`?"), "{error}");
    }

    #[test]
    fn what_cannot_be_run_is_told_before_anything_is_created() {
        let said = [
            told(GOOD, &[], false, false),
            told(GOOD, &["pv-drfit"], false, false),
            told(GOOD, &["pv-drift/blobs-lost/documented"], false, false),
            told(
                "## A\n```sh\nkubectl delete pv <harbor-pv>\necho harbor-core-xxx\n```\n",
                &["pv-drift"],
                false,
                false,
            ),
            told("## A\n```sh on=mars\n```\n", &["pv-drift"], false, false),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }
}
