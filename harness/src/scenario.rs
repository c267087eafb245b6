//! Scenarios, their cells, and what a cell's verdict is.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    runbook::{
        derive::Part,
        library::{Library, LibraryError},
        lint::Finding,
    },
    strict::{self, TomlError},
};

/// What a cell's procedure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A plausible repair that must not heal: proof that the check can fail.
    Control,
    /// What the source document says.
    Documented,
    /// What works best.
    Recommended,
    /// A runbook that someone brought.
    Yours,
    /// A person who practises, without a runbook.
    Practice,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Control => "control",
            Role::Documented => "documented",
            Role::Recommended => "recommended",
            Role::Yours => "yours",
            Role::Practice => "practice",
        })
    }
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Image pulls came back on every node and nothing was lost.
    #[serde(rename = "healed")]
    Healed,
    /// Image pulls did not come back.
    #[serde(rename = "not healed")]
    NotHealed,
    /// Image pulls came back, or not, and the inventory lacks something.
    #[serde(rename = "data lost")]
    DataLost,
    /// The fault did not show its symptom.
    #[serde(rename = "not reproduced")]
    NotReproduced,
    /// The lab itself failed; nothing is said of the procedure.
    #[serde(rename = "lab broken")]
    LabBroken,
    /// The cell was planned and did not run.
    #[serde(rename = "skipped")]
    Skipped,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Healed => "healed",
            Verdict::NotHealed => "not healed",
            Verdict::DataLost => "data lost",
            Verdict::NotReproduced => "not reproduced",
            Verdict::LabBroken => "lab broken",
            Verdict::Skipped => "skipped",
        })
    }
}

/// One variant with one procedure, as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellPlan {
    /// The scenario's name, such as `untrusted-ca`.
    pub scenario: String,
    /// The variant's name, such as `no-trust`.
    pub variant: String,
    /// The procedure's name, such as `documented`.
    pub procedure: String,
    /// What the procedure is.
    pub role: Role,
    /// What the verdict is known to be; of a runbook that someone brings nothing is known.
    pub expected: Option<Verdict>,
    /// Why it is expected.
    pub why: Option<String>,
    /// The runbooks that make up the procedure, as `scenario/procedure`, in this order.
    #[serde(default)]
    pub runbooks: Vec<String>,
    /// The step at which the procedure is known to fail; none where it is known to run to its end. A control that stops half way
    /// for another reason proves nothing.
    #[serde(default)]
    pub stops_at: Option<String>,
    /// What was done to a runbook that someone brings, where it is not run as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// One variant with one procedure, as it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The scenario's name.
    pub scenario: String,
    /// The variant's name.
    pub variant: String,
    /// The procedure's name.
    pub procedure: String,
    /// What the procedure is.
    pub role: Role,
    /// What became of it.
    pub verdict: Verdict,
    /// What the verdict is known to be.
    pub expected: Option<Verdict>,
    /// Whether the verdict is the expected one. A runbook that someone brings is expected to heal, unless a step was left out of
    /// it.
    pub as_expected: bool,
    /// How long the cell took, in seconds.
    pub seconds: f64,
    /// What was seen that decided the verdict, and for an expected failure why it is expected.
    pub reason: String,
    /// The step at which the procedure failed; none where it ran to its end or did not run.
    #[serde(default)]
    pub stopped_at: Option<String>,
    /// What is told of a runbook that someone brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
}

/// How a runbook that someone brings went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Each block in each place where it ran.
    pub steps: Vec<DrillStep>,
    /// From the moment at which the symptom was seen to the first pull of the image under test on the last node, in seconds;
    /// none where it did not heal.
    pub recovery_seconds: Option<f64>,
    /// What its reader should know.
    pub findings: Vec<Finding>,
}

/// How one block went in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillStep {
    /// The step's heading.
    pub step: String,
    /// The runbook's file.
    pub file: String,
    /// The line of the block in its file.
    pub line: usize,
    /// `workstation`, or the node; empty where it did not run.
    pub place: String,
    /// How it ended.
    pub ended: String,
    /// Whether it ended as meant.
    pub ok: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl CellResult {
    /// Whether it is the result of this cell.
    pub fn is_of(&self, plan: &CellPlan) -> bool {
        (&self.scenario, &self.variant, &self.procedure) == (&plan.scenario, &plan.variant, &plan.procedure)
    }
}

impl CellPlan {
    /// `scenario/variant/procedure`.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.scenario, self.variant, self.procedure)
    }

    /// The result of this cell, whose procedure ran to its end or was not run.
    pub fn result(&self, verdict: Verdict, seconds: f64, reason: impl Into<String>) -> CellResult {
        self.result_of(verdict, seconds, reason, None)
    }

    /// The result of this cell, whose procedure failed at the step `stopped_at` or ran to its end.
    pub fn result_of(
        &self,
        verdict: Verdict,
        seconds: f64,
        reason: impl Into<String>,
        stopped_at: Option<String>,
    ) -> CellResult {
        let mut reason = reason.into();
        let ran = matches!(verdict, Verdict::Healed | Verdict::NotHealed | Verdict::DataLost);
        let as_expected = match self.expected {
            Some(expected) if ran && verdict == expected && stopped_at != self.stops_at => {
                let known =
                    self.stops_at.as_ref().map_or("to run to its end".to_owned(), |at| format!("to stop at `{at}`"));
                reason = format!("the procedure was expected {known}; {reason}");
                false
            }
            Some(expected) => verdict == expected,
            // Which step is needed is a question: no answer to it is a failure.
            None if matches!(self.part, Some(Part::Without(_))) => {
                !matches!(verdict, Verdict::NotReproduced | Verdict::LabBroken | Verdict::Skipped)
            }
            // Who brings a runbook wants it to heal.
            None => verdict == Verdict::Healed,
        };
        CellResult {
            scenario: self.scenario.clone(),
            variant: self.variant.clone(),
            procedure: self.procedure.clone(),
            role: self.role,
            verdict,
            expected: self.expected,
            as_expected,
            seconds,
            reason,
            stopped_at,
            drill: None,
        }
    }
}

/// A scenario as its `scenario.toml` has it: its variants, and what each procedure is known to do to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioSpec {
    /// Its name, such as `untrusted-ca`.
    pub name: String,
    /// What fails, in one line.
    pub summary: String,
    /// What breaks, and why.
    pub about: String,
    /// How to see it, where a variant does not look otherwise.
    pub see: Vec<See>,
    /// Its variants, in the order in which they run; never empty.
    pub variants: Vec<VariantSpec>,
}

/// One way into a scenario's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantSpec {
    /// Its name, such as `no-trust`.
    pub name: String,
    /// What is wrong, in one line.
    pub summary: String,
    /// What is wrong, and what comes of it.
    pub about: String,
    /// How to see it.
    pub see: Vec<See>,
    /// What somebody on call is told: what is seen, and not why.
    pub page: String,
    /// For who is stuck, each telling more than the one before.
    pub hints: [String; HINTS],
    /// Whether all that the fault and its procedures do can be put back in a cluster that stays.
    pub undoable: bool,
    /// Its cells, in the order in which they run; never empty.
    pub cells: Vec<CellPlan>,
}

/// How many hints there are to each failure.
pub const HINTS: usize = 3;

/// One look at a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct See {
    /// The command.
    pub run: String,
    /// What it shows.
    pub shows: String,
}

/// Why a `scenario.toml` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read the scenario: {0}")]
pub struct SpecError(#[from] TomlError);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioToml {
    name: Spanned<String>,
    summary: String,
    about: Spanned<String>,
    see: Spanned<Vec<See>>,
    page: Spanned<String>,
    hints: Spanned<Vec<String>>,
    variant: Spanned<Vec<VariantToml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantToml {
    name: Spanned<String>,
    summary: String,
    about: Spanned<String>,
    /// As the scenario's, where there is none.
    see: Option<Spanned<Vec<See>>>,
    /// As the scenario's, where there is none.
    page: Option<Spanned<String>>,
    /// As the scenario's, where there are none.
    hints: Option<Spanned<Vec<String>>>,
    /// Nobody has looked where it is not said.
    #[serde(default)]
    undoable: bool,
    cell: Spanned<Vec<CellToml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CellToml {
    procedure: Spanned<String>,
    role: Spanned<Role>,
    expected: Spanned<Verdict>,
    why: Option<String>,
    /// The runbook of this scenario that is called like the procedure, where none is named.
    runbooks: Option<Vec<String>>,
    stops_at: Option<String>,
}

impl ScenarioSpec {
    /// Reads the text of a `scenario.toml`; `file` is what errors call it.
    ///
    /// # Errors
    /// The text is not of the form, a name is not fit for a path or comes twice, a list or a text for people is empty, or an
    /// expectation makes no sense: a control that heals, a verdict that says nothing of the procedure, a documented or recommended repair
    /// that is expected not to heal without a `why`.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        let read: ScenarioToml = strict::parse(file, text)?;
        let refuse = |offset: usize, problem: String| Err(TomlError::at(file, text, offset, problem));
        let check_names = |what: &str, names: &[&Spanned<String>], list: std::ops::Range<usize>| {
            if names.is_empty() {
                return refuse(list.start, format!("there is no {what} in this list: there must be at least one"));
            }
            for (index, name) in names.iter().enumerate() {
                if !is_name(name.get_ref()) {
                    let problem = format!(
                        "`{}` is no name for a {what}: lower-case letters, digits and inner hyphens are",
                        name.get_ref()
                    );
                    return refuse(name.span().start, problem);
                }
                if names[..index].iter().any(|earlier| earlier.get_ref() == name.get_ref()) {
                    return refuse(name.span().start, format!("the {what} `{}` is here twice", name.get_ref()));
                }
            }
            Ok(())
        };
        check_names("scenario", &[&read.name], 0..0)?;
        let names: Vec<_> = read.variant.get_ref().iter().map(|variant| &variant.name).collect();
        check_names("variant", &names, read.variant.span())?;

        let wrong = |(offset, problem): Wrong| TomlError::at(file, text, offset, problem);
        let about = told("about", &read.about).map_err(wrong)?;
        let see = looks(&read.see).map_err(wrong)?;

        let mut variants = Vec::new();
        for variant in read.variant.into_inner() {
            let texts = variant.texts(&read.see, &read.page, &read.hints).map_err(wrong)?;
            let (own_about, own_see, page, hints) = texts;
            let names: Vec<_> = variant.cell.get_ref().iter().map(|cell| &cell.procedure).collect();
            check_names("procedure", &names, variant.cell.span())?;
            let mut cells = Vec::new();
            for cell in variant.cell.into_inner() {
                if let Some((offset, problem)) = cell.nonsense() {
                    refuse(offset, problem)?;
                }
                let procedure = cell.procedure.into_inner();
                let own = || vec![format!("{}/{procedure}", read.name.get_ref())];
                cells.push(CellPlan {
                    runbooks: cell.runbooks.unwrap_or_else(own),
                    scenario: read.name.get_ref().clone(),
                    variant: variant.name.get_ref().clone(),
                    procedure,
                    role: cell.role.into_inner(),
                    expected: Some(cell.expected.into_inner()),
                    why: cell.why,
                    stops_at: cell.stops_at,
                    part: None,
                });
            }
            variants.push(VariantSpec {
                name: variant.name.into_inner(),
                summary: variant.summary,
                about: own_about,
                see: own_see,
                page,
                hints,
                undoable: variant.undoable,
                cells,
            });
        }
        Ok(Self { name: read.name.into_inner(), summary: read.summary, about, see, variants })
    }

    /// All cells, in the order in which they run.
    pub fn cells(&self) -> Vec<CellPlan> {
        self.variants.iter().flat_map(|variant| variant.cells.iter().cloned()).collect()
    }

    /// Whether the variant of this name can be undone in a cluster that stays.
    pub fn is_undoable(&self, variant: &str) -> bool {
        self.variants.iter().any(|known| known.name == variant && known.undoable)
    }

    /// Looks whether every runbook that the cells name is there, and in it every step.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self, library: &Library) -> Result<(), LibraryError> {
        for cell in self.cells() {
            let runbooks = library.all(&cell.runbooks)?;
            let mut steps = runbooks.iter().flat_map(|runbook| &runbook.steps);
            if let Some(at) = &cell.stops_at
                && !steps.any(|step| &step.title == at)
            {
                return Err(LibraryError::NoStep { cell: cell.path(), step: at.clone() });
            }
        }
        Ok(())
    }
}

/// At which byte of the file something is wrong, and what.
type Wrong = (usize, String);

impl VariantToml {
    /// What a person is told of it: what is wrong, how to see it, the page and the hints; the scenario's where it has none of its own.
    fn texts(
        &self,
        see: &Spanned<Vec<See>>,
        page: &Spanned<String>,
        hints: &Spanned<Vec<String>>,
    ) -> Result<(String, Vec<See>, String, [String; HINTS]), Wrong> {
        let hints = self.hints.as_ref().unwrap_or(hints);
        let all = hints.get_ref().iter().map(|hint| plain(hint)).filter(|hint| !hint.is_empty());
        let three = <[String; HINTS]>::try_from(all.collect::<Vec<_>>());
        let three = three.map_err(|all| {
            (
                hints.span().start,
                format!("there are {} hints, and there must be {HINTS}, none of them empty", all.len()),
            )
        })?;
        Ok((
            told("about", &self.about)?,
            looks(self.see.as_ref().unwrap_or(see))?,
            told("page", self.page.as_ref().unwrap_or(page))?,
            three,
        ))
    }
}

/// A text in one line, however it is broken in the file.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn told(key: &str, text: &Spanned<String>) -> Result<String, Wrong> {
    let told = plain(text.get_ref());
    if told.is_empty() { Err((text.span().start, format!("`{key}` says nothing"))) } else { Ok(told) }
}

fn looks(see: &Spanned<Vec<See>>) -> Result<Vec<See>, Wrong> {
    let empty = |see: &See| see.run.trim().is_empty() || see.shows.trim().is_empty();
    if see.get_ref().is_empty() || see.get_ref().iter().any(empty) {
        let problem = "`see` must have a command, and say of each what it shows".to_owned();
        return Err((see.span().start, problem));
    }
    Ok(see.get_ref().clone())
}

impl CellToml {
    /// What makes no sense here, and at which byte of the file.
    fn nonsense(&self) -> Option<Wrong> {
        let (role, expected) = (*self.role.get_ref(), *self.expected.get_ref());
        let at = self.expected.span().start;
        match (role, expected) {
            (Role::Yours | Role::Practice, _) => {
                let problem = format!("`{role}` is for what someone brings or does, not for data");
                Some((self.role.span().start, problem))
            }
            (_, Verdict::LabBroken | Verdict::Skipped) => {
                Some((at, format!("`{expected}` says nothing of the procedure, so it cannot be expected")))
            }
            (_, Verdict::NotReproduced) if self.why.as_ref().is_none_or(|why| why.trim().is_empty()) => {
                Some((at, format!("a fault that is expected to end in `{expected}` needs a `why`")))
            }
            (Role::Control, Verdict::Healed) => {
                Some((at, "a control must not heal: it is there to prove that the check can fail".to_owned()))
            }
            (Role::Documented | Role::Recommended, Verdict::NotHealed | Verdict::DataLost)
                if self.why.as_ref().is_none_or(|why| why.trim().is_empty()) =>
            {
                Some((at, format!("a {role} repair that is expected to end in `{expected}` needs a `why`")))
            }
            _ => None,
        }
    }
}

/// Whether a text can be a name: it becomes part of paths and of object names.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "sample"
summary = "a sample"
about = "it breaks"
page = "nothing works"
hints = ["a", "b", "c"]
see = [{ run = "kubectl get pods", shows = "no pod" }]

[[variant]]
name = "one"
summary = "the first way"
about = """
it breaks
so"""
[[variant.cell]]
procedure = "no-op"
role = "control"
expected = "not healed"
[[variant.cell]]
procedure = "documented"
role = "documented"
expected = "data lost"
why = "it forgets the database"

[[variant]]
name = "two"
summary = "the second way"
about = "it breaks otherwise"
page = "little works"
[[variant.cell]]
procedure = "recommended"
role = "recommended"
expected = "healed"
"#;

    #[test]
    fn a_procedure_that_stops_elsewhere_than_is_known_is_not_as_expected() {
        let mut cell = ScenarioSpec::parse("scenario.toml", GOOD).unwrap().cells().remove(0);
        let result = |cell: &CellPlan, at: Option<&str>| {
            let result = cell.result_of(Verdict::NotHealed, 1.0, "no pull", at.map(str::to_owned));
            (result.as_expected, result.reason)
        };
        assert_eq!(result(&cell, None), (true, "no pull".to_owned()));
        let (as_expected, reason) = result(&cell, Some("Step 1"));
        assert_eq!((as_expected, reason.as_str()), (false, "the procedure was expected to run to its end; no pull"));
        cell.stops_at = Some("Step 1".to_owned());
        assert!(result(&cell, Some("Step 1")).0);
        assert!(!result(&cell, Some("Step 2")).0);
        assert_eq!(result(&cell, None).1, "the procedure was expected to stop at `Step 1`; no pull");
    }

    #[test]
    fn cells_come_in_the_order_of_the_file() {
        let spec = ScenarioSpec::parse("scenario.toml", GOOD).unwrap();
        let paths: Vec<String> = spec.cells().iter().map(CellPlan::path).collect();
        assert_eq!(paths, ["sample/one/no-op", "sample/one/documented", "sample/two/recommended"]);
        assert_eq!(spec.cells()[1].why.as_deref(), Some("it forgets the database"));
    }

    #[test]
    fn a_variant_tells_what_its_scenario_does_where_it_has_nothing_of_its_own() {
        let spec = ScenarioSpec::parse("scenario.toml", GOOD).unwrap();
        let [one, two] = &spec.variants[..] else { panic!("{spec:?}") };
        assert_eq!((one.about.as_str(), one.page.as_str()), ("it breaks so", "nothing works"));
        assert_eq!((two.about.as_str(), two.page.as_str()), ("it breaks otherwise", "little works"));
        assert_eq!((&one.see, &one.hints), (&spec.see, &two.hints));
    }

    #[test]
    fn a_variant_can_be_undone_only_where_it_says_so() {
        let text = GOOD.replace("summary = \"the first way\"", "summary = \"the first way\"\nundoable = true");
        let spec = ScenarioSpec::parse("scenario.toml", &text).unwrap();
        assert_eq!(["one", "two", "three"].map(|variant| spec.is_undoable(variant)), [true, false, false]);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let changed = |from: &str, to: &str| {
            assert!(GOOD.contains(from), "{from}");
            GOOD.replacen(from, to, 1)
        };
        let (head, rest) = GOOD.split_once("[[variant]]").unwrap();
        let (first, _) = rest.split_once("[[variant.cell]]").unwrap();
        let mistakes = [
            ("unknown key", changed("expected", "expect")),
            ("unknown verdict", changed("\"not healed\"", "\"not heeled\"")),
            ("unknown role", changed("\"control\"", "\"controll\"")),
            ("missing summary", changed("summary = \"the second way\"\n", "")),
            ("variant twice", changed("\"two\"", "\"one\"")),
            ("procedure twice", changed("procedure = \"documented\"", "procedure = \"no-op\"")),
            ("name with a slash", changed("\"sample\"", "\"sam/ple\"")),
            ("empty name", changed("\"two\"", "\"\"")),
            ("no variant", format!("{head}variant = []\n")),
            ("no cell", format!("{head}[[variant]]{first}cell = []\n")),
            ("control that heals", changed("\"not healed\"", "\"healed\"")),
            ("lab broken expected", changed("\"not healed\"", "\"lab broken\"")),
            ("no why", changed("why = \"it forgets the database\"\n", "")),
            ("blank why", changed("\"it forgets the database\"", "\" \"")),
            ("no about", changed("about = \"it breaks otherwise\"\n", "")),
            ("blank about", changed("it breaks otherwise", " ")),
            ("blank page", changed("little works", "")),
            ("two hints", changed("\"a\", ", "")),
            ("nothing to see", changed("{ run = \"kubectl get pods\", shows = \"no pod\" }", "")),
            ("a look that shows nothing", changed("no pod", " ")),
            ("someone's runbook", changed("\"recommended\"\nexpected", "\"yours\"\nexpected")),
        ];
        let said: Vec<String> = mistakes
            .iter()
            .map(|(mistake, text)| format!("{mistake}: {}", ScenarioSpec::parse("scenario.toml", text).unwrap_err()))
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn every_scenario_in_this_repository_can_be_read_and_bears_its_folders_name() {
        let scenarios = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let mut seen = 0;
        for entry in std::fs::read_dir(scenarios).unwrap() {
            let file = entry.unwrap().path().join("scenario.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            let spec = ScenarioSpec::parse(&file.display().to_string(), &text).unwrap();
            assert_eq!(Some(spec.name.as_str()), file.parent().and_then(|dir| dir.file_name()?.to_str()));
            for variant in &spec.variants {
                let control = variant.cells.iter().any(|cell| cell.procedure == "no-op");
                assert!(control, "{}/{} lacks the no-op control", spec.name, variant.name);
            }
            seen += 1;
        }
        assert!(seen > 0);
    }
}
