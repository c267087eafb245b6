//! `cargo xtask practice`: a lab broken and left to its user, who has a shell in it, hints, and the judgement of `e2e`.

mod state;

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use chrono::Utc;
use clap::{Args, Subcommand};
use harness::{
    lab::{
        Lab, again,
        engine::{ConnectOptions, Engine},
    },
    nearest::did_you_mean,
    paths::Paths,
    report::{
        ReportOptions, Reporter, TerminalMode, copy,
        evidence::Evidence,
        text::{human, wrap},
    },
    run::{
        events::{EventKind, Events},
        practice,
        runner::Scenario,
    },
    runbook::terminal::{self, Program, Terminal},
    scenario::{HINTS, Role, ScenarioSpec, VariantSpec, Verdict},
};

use self::state::{Check, State};
use crate::{
    LabArgs, e2e,
    exit::{self, Failure},
    explain,
    session::{self, LabWish, Session, Setup},
};

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
In the shell: `hint` (three, growing), `check` (the judgement of e2e), `give-up` (shows the runbook), `pause`, `leave`. Leaving it \
and Ctrl-C remove the lab unless --keep was given; `pause`, and a terminal that closes, keep it."
)]
pub struct PracticeArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// SCENARIO or SCENARIO/VARIANT; a scenario's first variant when none is named
    #[arg(required = true)]
    what: Option<String>,
    /// The lab stays when you leave
    #[arg(long)]
    keep: bool,
    /// The folder for the report
    #[arg(long, default_value = "report")]
    report: PathBuf,
    #[command(flatten)]
    lab: LabArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Come back to a practice that was paused, or whose terminal closed
    Resume {
        /// Its lab; not needed where there is one practice
        lab: Option<String>,
    },
    /// Tell the next hint
    Hint(Which),
    /// Look whether the lab has healed, and tell what is still wrong
    Check(Which),
    /// Show the runbook that heals it
    GiveUp(Which),
    /// Say that the lab stays, and that you come back
    #[command(hide = true)]
    Pause(Which),
    /// Print what sets the variables of runbooks
    #[command(hide = true)]
    Vars(Which),
}

#[derive(Args)]
struct Which {
    /// The practice's lab; not needed where there is one practice
    #[arg(long)]
    lab: Option<String>,
}

pub async fn practice(args: PracticeArgs) -> Result<u8, Failure> {
    let Some(action) = &args.action else { return begin(args).await };
    let paths = Paths::from_env().map_err(Failure::input)?;
    match action {
        Action::Resume { lab } => resume(&paths, lab.as_deref()).await,
        Action::Hint(which) => hint(&state::find(&paths, which.lab.as_deref())?.dir),
        Action::Check(which) => check(&paths, which.lab.as_deref()).await,
        Action::GiveUp(which) => give_up(&state::find(&paths, which.lab.as_deref())?.dir),
        Action::Pause(which) => {
            State::change(&state::find(&paths, which.lab.as_deref())?.dir, |state| state.paused = true)?;
            Ok(exit::AS_EXPECTED)
        }
        Action::Vars(which) => vars(&paths, which.lab.as_deref()).await,
    }
}

/// A terminal that is gone is no reason to end in a panic: the lab has still to be kept or removed.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Columns that texts are broken at.
const WIDTH: usize = 80;

fn paragraph(text: &str) -> String {
    wrap(text, WIDTH).join("\n") + "\n"
}

/// The scenario and the variant that are meant.
fn chosen<'a>(specs: &[&'a ScenarioSpec], what: &str) -> Result<(&'a ScenarioSpec, &'a VariantSpec), Failure> {
    let shows = |variant: &&VariantSpec| variant.cells.iter().all(|it| it.expected != Some(Verdict::NotReproduced));
    let (spec, variant) = explain::find(specs, what)?;
    let chosen = match variant {
        Some(variant) => Some(variant).filter(shows),
        None => spec.variants.iter().find(shows),
    };
    let why = variant.and_then(|variant| variant.cells.first()?.why.clone()).unwrap_or_default();
    let none =
        || Failure::input(anyhow::anyhow!("there is nothing to repair in {what}: {why}; choose another variant"));
    chosen.map(|variant| (spec, variant)).ok_or_else(none)
}

/// In the lab's folder: the record of the practice, where no other run writes its own.
fn record(dir: &Path) -> PathBuf {
    dir.join("report")
}

async fn begin(args: PracticeArgs) -> Result<u8, Failure> {
    let (scenarios, _) = e2e::scenarios()?;
    let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
    let what = args.what.as_deref().unwrap_or_default();
    let (spec, variant) = chosen(&specs, what).map_err(|failure| {
        // What stands there may be meant as a command.
        let command = did_you_mean(what, ["resume", "hint", "check", "give-up"]);
        Failure::input(anyhow::anyhow!("{failure}{command}"))
    })?;
    let (scenario, variant) = (spec.name.clone(), variant.name.clone());
    let setup = Setup::read(&args.lab)?;
    let report = std::path::absolute(&args.report).map_err(Failure::input)?;
    let begun = Instant::now();
    let (events, receiver) = Events::channel();
    let options = ReportOptions { dir: Some(report.clone()), terminal: TerminalMode::Auto };
    let reporter = Reporter::start(receiver, options).map_err(Failure::input)?;
    let evidence = Evidence::new(Some(report.clone())).map_err(Failure::input)?;
    let id = session::new_id();
    events.emit(EventKind::RunStarted { run: id.clone(), cells: vec![practice::cell(&scenario, &variant)] });

    let session = Session::new(setup, events.clone());
    let made = Arc::new(Mutex::new(None));
    let scenarios: Arc<[Box<dyn Scenario>]> = scenarios.into();
    let work = {
        let (session, events, made, scenarios) = (session.clone(), events.clone(), made.clone(), scenarios.clone());
        let (report, keep) = (report.clone(), args.keep);
        async move {
            let (lab, _) = session.lab(&LabWish { id, port: None, at_once: 1 }).await?;
            session::hide_secrets(&lab, &evidence);
            let broken = match one(&scenarios, &scenario) {
                Some(it) => practice::break_it(&lab, it, &variant, &evidence, &events).await,
                None => return Ok(()),
            };
            let broken = match broken {
                Ok(broken) => broken,
                Err(error) => {
                    session.gather(&evidence).await;
                    return Err(Failure::lab(error));
                }
            };
            again::write_down(&lab).map_err(Failure::lab)?;
            let state = State::handed_over(scenario, variant, report, keep, broken.before);
            state.write(&lab.dir)?;
            *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(lab);
            Ok(())
        }
    };
    let outcome = session::guarded(&events, work).await;
    let lab = made.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (Ok(()), Some(lab)) = (&outcome, lab) else {
        let outcome = match (outcome, session.end(false).await) {
            (Err(failure), Err(cleaning)) => Err(failure.and(&cleaning)),
            (outcome, cleaned) => outcome.and(cleaned),
        };
        events.emit(EventKind::RunFinished {
            passed: false,
            seconds: begun.elapsed().as_secs_f64(),
            error: outcome.as_ref().err().map(ToString::to_string),
        });
        reporter.finish().map_err(Failure::lab)?;
        return outcome.map_or_else(|failure| Ok(failure.code()), |()| Ok(exit::LAB_BROKEN));
    };
    reporter.pause().map_err(Failure::lab)?;
    drop(events);
    copy(&report, &record(&lab.dir)).map_err(Failure::lab)?;
    hand_over(session, lab, &scenarios, false).await
}

fn one<'a>(scenarios: &'a [Box<dyn Scenario>], name: &str) -> Option<&'a dyn Scenario> {
    scenarios.iter().find(|scenario| scenario.spec().name == name).map(AsRef::as_ref)
}

/// The programs of the shell, which find this practice wherever they are called.
fn programs(lab: &str, paths: &Paths) -> Result<Vec<Program>, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::lab(anyhow::anyhow!("find this program: {error}")))?;
    // A newer one has taken its place since: that is as good.
    let own = own.to_string_lossy();
    let own = Path::new(own.strip_suffix(" (deleted)").unwrap_or(&own));
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    // Where the shell has other programs of a name, this one has this machine's.
    let path = PathBuf::from(std::env::var_os("PATH").unwrap_or_default());
    let xtask = format!(
        "#!/bin/sh\n# This practice, from its own shell.\n\
         exec env PATH={} DRYDOCK_CACHE={} {} practice \"$@\" --lab '{lab}'\n",
        quote(&path),
        quote(paths.cache()),
        quote(own)
    );
    let mut programs = vec![Program { name: "practice".to_owned(), script: xtask }];
    for name in ["hint", "check", "give-up"] {
        programs.push(Program { name: name.to_owned(), script: format!("#!/bin/sh\nexec practice {name}\n") });
    }
    Ok(programs)
}

/// What somebody on call is told, and what there is to work with.
fn story(state: &State, variant: &VariantSpec, lab: &Lab) -> String {
    let nodes = lab.node_names().join(", ");
    let leave = if state.keep { "the lab stays" } else { "the lab is removed" };
    format!(
        "\n{}\n{}\n{}",
        paragraph(&format!("You are on call. {}", variant.page)),
        paragraph(&format!(
            "kubectl, helm and crane reach this lab and nothing else. `ssh NODE` leads to a node ({nodes}). In this folder are \
             values.yaml, the chart as harbor/harbor, and the images as their build machine has them (images/list); variables such \
             as $HARBOR_HOST and $HARBOR_ADMIN_PASSWORD are set (cargo xtask runbook vars lists them)."
        )),
        format_args!(
            "  hint      the next of {HINTS}, each telling more\n  \
               check     has it healed? The judgement of e2e, and what is still wrong\n  \
               give-up   show the runbook that heals it\n  \
               vars      look up the variables anew, as after a reinstallation\n  \
               pause     leave and keep the lab: cargo xtask practice resume {}\n  \
               leave     the end: {leave}\n\n\
             The clock runs.\n",
            lab.id
        )
    )
}

/// How somebody left the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// By `leave`, `exit`, or the end of the commands.
    Meant,
    /// It was not left: the terminal closed, or something ended the shell.
    Torn,
}

fn left(status: ExitStatus) -> Left {
    // A shell that a signal has ended, or that tells so of SIGHUP.
    if status.signal().is_some() || status.code() == Some(129) { Left::Torn } else { Left::Meant }
}

/// Opens the shell, and when it was left tells how it went, and keeps or removes the lab.
async fn hand_over(session: Session, lab: Lab, scenarios: &[Box<dyn Scenario>], again: bool) -> Result<u8, Failure> {
    let dir = lab.dir.clone();
    let sat = sit(&session, lab, scenarios, again).await;
    let state = State::change(&dir, |state| {
        state.left = Some(Utc::now());
        state.paused |= matches!(sat, Ok(Left::Torn)) || is_hangup(&sat);
    })?;
    // What happens from here on is told in the report of its user's choice.
    let (events, reporter) = match copy(&record(&dir), &state.report).and_then(|()| Reporter::resume(&state.report)) {
        Ok(resumed) => resumed,
        Err(error) => {
            let cleaned = session.end(state.keep || state.paused).await;
            let failure = Failure::lab(error);
            return Err(match cleaned {
                Ok(()) => failure,
                Err(cleaning) => failure.and(&cleaning),
            });
        }
    };
    let result = state.result(Utc::now());
    let healed = result.as_expected;
    events.emit(EventKind::CellFinished { cell: result.clone() });
    let keep = state.keep || state.paused;
    let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ended = session.with_events(events.clone()).end(keep).await;
    let failure = match (sat, ended) {
        (Ok(_), ended) => ended.err(),
        (Err(failure), Ok(())) => Some(failure),
        (Err(failure), Err(cleaning)) => Some(failure.and(&cleaning)),
    };
    events.emit(EventKind::RunFinished {
        passed: healed && failure.is_none(),
        seconds: result.seconds,
        error: failure.as_ref().map(ToString::to_string),
    });
    drop(events);
    reporter.finish().map_err(Failure::lab)?;
    if keep {
        say(&format!(
            "\nthe lab stays\ncome back:  cargo xtask practice resume {id}\nremove it:  cargo xtask down {id}\n"
        ));
    }
    Ok(match failure {
        Some(failure) => failure.code(),
        None if healed || state.paused => exit::AS_EXPECTED,
        None => exit::NOT_AS_EXPECTED,
    })
}

fn is_hangup(sat: &Result<Left, Failure>) -> bool {
    sat.as_ref().is_err_and(|failure| failure.to_string().contains("SIGHUP"))
}

/// The story, and the shell until it is left.
async fn sit(session: &Session, lab: Lab, scenarios: &[Box<dyn Scenario>], again: bool) -> Result<Left, Failure> {
    let state = State::change(&lab.dir, |state| {
        let now = Utc::now();
        match state.left.take() {
            Some(left) => state.away += (now - left).as_seconds_f64(),
            // The time in which the first shell was prepared is nobody's.
            None if !again => state.handed_over = now,
            None => {}
        }
        state.paused = false;
    })?;
    let spec = one(scenarios, &state.scenario).map(Scenario::spec);
    let variant = spec.and_then(|spec| spec.variants.iter().find(|variant| variant.name == state.variant));
    let told = variant.map(|variant| story(&state, variant, &lab)).unwrap_or_default();
    let engine = session.engine().await?;
    let host = engine.host().to_owned();
    drop(engine);
    let programs = programs(&lab.id, session.paths())?;
    let how = Arc::new(Mutex::new(Left::Meant));
    let work = {
        let how = how.clone();
        async move {
            let terminal = if again {
                Terminal::again(&lab, &host, &programs).await
            } else {
                Terminal::new(&lab, &host, &programs).await
            };
            let terminal = terminal.map_err(Failure::lab)?;
            say(&told);
            let status = terminal.sit().await.map_err(Failure::lab)?;
            *how.lock().unwrap_or_else(PoisonError::into_inner) = left(status);
            Ok(())
        }
    };
    session::guarded(&Events::discard(), work).await?;
    let how = *how.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(how)
}

async fn resume(paths: &Paths, name: Option<&str>) -> Result<u8, Failure> {
    let (scenarios, _) = e2e::scenarios()?;
    let listed = state::find(paths, name)?;
    state::must_be_free(&listed)?;
    State::read(&listed.dir)?;
    let setup = Setup::read(&LabArgs::default())?;
    let session = Session::new(setup, Events::discard());
    let engine = session.take_over(&listed.lab).await?;
    let lab = again::reach(&engine, listed.dir.clone()).await;
    drop(engine);
    match lab {
        Ok(lab) => hand_over(session, lab, &scenarios, true).await,
        Err(error) => {
            session.end(true).await?;
            Err(Failure::lab(error))
        }
    }
}

fn spec_of(dir: &Path) -> Result<(State, VariantSpec), Failure> {
    let state = State::read(dir)?;
    let (scenarios, _) = e2e::scenarios()?;
    let specs: Vec<&ScenarioSpec> = scenarios.iter().map(|scenario| scenario.spec()).collect();
    let (_, variant) = chosen(&specs, &format!("{}/{}", state.scenario, state.variant))?;
    Ok((state, variant.clone()))
}

/// Adds a line to what is kept of the practice.
fn note(dir: &Path, text: String) -> Result<(), Failure> {
    let (events, reporter) = Reporter::resume_quietly(&record(dir)).map_err(Failure::lab)?;
    events.note(text);
    drop(events);
    reporter.pause().map(drop).map_err(Failure::lab)
}

fn hint(dir: &Path) -> Result<u8, Failure> {
    let (state, variant) = spec_of(dir)?;
    say(&hint_text(&state, &variant));
    if state.hints < HINTS {
        let state = State::change(dir, |state| state.hints += 1)?;
        note(dir, format!("hint {} of {HINTS}", state.hints))?;
    }
    Ok(exit::AS_EXPECTED)
}

/// The next hint; when all are told, the last again and where to go from there.
fn hint_text(state: &State, variant: &VariantSpec) -> String {
    let number = (state.hints + 1).min(HINTS);
    let more = match (state.hints >= HINTS, number == HINTS) {
        (true, _) => "There are no more: `give-up` shows the runbook.\n",
        (false, true) => "That was the last; `give-up` shows the runbook.\n",
        (false, false) => "",
    };
    let hint = variant.hints.get(number - 1).map_or("", String::as_str);
    format!("{}{more}", paragraph(&format!("hint {number} of {HINTS}: {hint}")))
}

fn give_up(dir: &Path) -> Result<u8, Failure> {
    let (state, variant) = spec_of(dir)?;
    say(&runbook_text(&variant)?);
    if !state.gave_up {
        State::change(dir, |state| state.gave_up = true)?;
        note(dir, "gave up: the runbook was shown".to_owned())?;
    }
    Ok(exit::AS_EXPECTED)
}

/// The runbooks of the variant's best repair, as they are written.
fn runbook_text(variant: &VariantSpec) -> Result<String, Failure> {
    let heals =
        |role: Role| variant.cells.iter().find(move |cell| cell.role == role && cell.expected == Some(Verdict::Healed));
    let (_, library) = e2e::scenarios()?;
    let Some(cell) = heals(Role::Recommended).or_else(|| heals(Role::Documented)) else {
        return Ok("no procedure is known to heal this\n".to_owned());
    };
    let mut text = String::new();
    for runbook in library.all(&cell.runbooks).map_err(Failure::lab)? {
        let path = crate::root().join(&runbook.file);
        let written = std::fs::read_to_string(&path)
            .map_err(|error| Failure::lab(anyhow::anyhow!("read {}: {error}", path.display())))?;
        text += &format!("--- {}\n\n{written}\n", runbook.file);
    }
    text += &paragraph("A block that says on=each-node, on=workers or on=gpu-node is for nodes: `ssh NODE`.");
    Ok(text)
}

/// What a command has of a practice while it looks at its lab.
struct Reached {
    engine: Arc<Engine>,
    lab: Lab,
}

async fn reach(paths: &Paths, name: Option<&str>, events: &Events) -> Result<Reached, Failure> {
    let listed = state::find(paths, name)?;
    let host = listed.record.map_err(Failure::lab)?.docker_host;
    let engine = Engine::attach(&host, &ConnectOptions::from_env(false), paths, events).await.map_err(Failure::lab)?;
    let lab = again::reach(&engine, listed.dir).await.map_err(Failure::lab)?;
    Ok(Reached { engine: Arc::new(engine), lab })
}

async fn leave_engine(engine: Arc<Engine>, events: &Events) -> Result<(), Failure> {
    match Arc::into_inner(engine) {
        Some(engine) => engine.leave(events).await.map_err(Failure::lab),
        None => Ok(()),
    }
}

async fn vars(paths: &Paths, name: Option<&str>) -> Result<u8, Failure> {
    let events = Events::discard();
    let Reached { engine, lab } = reach(paths, name, &events).await?;
    let exports = terminal::exports(&lab).await.map_err(Failure::lab);
    leave_engine(engine, &events).await?;
    say(&exports?);
    Ok(exit::AS_EXPECTED)
}

async fn check(paths: &Paths, name: Option<&str>) -> Result<u8, Failure> {
    let dir = state::find(paths, name)?.dir;
    let _alone = state::lock(&dir)?;
    let state = State::read(&dir)?;
    let number = state.checks.len() + 1;
    let (scenarios, _) = e2e::scenarios()?;
    let (events, reporter) = Reporter::resume(&record(&dir)).map_err(Failure::lab)?;
    let evidence = Evidence::new(Some(record(&dir))).map_err(Failure::lab)?;
    let found = Arc::new(Mutex::new(None));
    let held = Arc::new(Mutex::new(None));
    let work = {
        let (found, held, events, state) = (found.clone(), held.clone(), events.clone(), state.clone());
        let (paths, name) = (paths.clone(), name.map(str::to_owned));
        async move {
            let Reached { engine, lab } = reach(&paths, name.as_deref(), &events).await?;
            *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(engine);
            session::hide_secrets(&lab, &evidence);
            let Some(scenario) = one(&scenarios, &state.scenario) else { return Ok(()) };
            let name = format!("check-{number}");
            let checked = practice::check(&lab, scenario, &state.variant, &state.before, &name, &evidence, &events);
            let checked = checked.await.map_err(Failure::lab)?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(checked);
            Ok(())
        }
    };
    let mut outcome = session::guarded(&events, work).await;
    let engine = held.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(engine) = engine {
        let left = leave_engine(engine, &events).await;
        outcome = outcome.and(left);
    }
    let checked = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let checked = match (&outcome, checked) {
        (Ok(()), Some(checked)) => checked,
        _ => {
            reporter.pause().map_err(Failure::lab)?;
            return outcome.map(|()| exit::LAB_BROKEN);
        }
    };
    let healed = checked.verdict == Verdict::Healed;
    let recovery_seconds = checked.pulled.filter(|_| healed).map(|pulled| state.seconds_until(pulled));
    let check = Check { verdict: checked.verdict, reason: checked.reason, recovery_seconds };
    drop(events);
    reporter.pause().map_err(Failure::lab)?;
    note(&dir, format!("check {number}: {}: {}", check.verdict, check.reason))?;
    State::change(&dir, |state| state.checks.push(check.clone()))?;
    say(&check_text(&check));
    Ok(if healed { exit::AS_EXPECTED } else { exit::NOT_AS_EXPECTED })
}

fn check_text(check: &Check) -> String {
    let item = |reason: &str| format!("  - {}\n", wrap(reason, WIDTH - 4).join("\n    "));
    let reasons: String = check.reason.split("; ").map(item).collect();
    let end = match (check.verdict, check.recovery_seconds) {
        (Verdict::Healed, Some(seconds)) => {
            let time = human(seconds.round().max(0.0) as u64);
            format!("pulls were back on every node {time} after the hand-over; `leave` ends the practice\n")
        }
        (Verdict::Healed, None) => "`leave` ends the practice\n".to_owned(),
        _ => String::new(),
    };
    format!("{}\n{reasons}{end}", check.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs<T>(work: impl FnOnce(&[&ScenarioSpec]) -> T) -> T {
        let (scenarios, _) = e2e::scenarios().unwrap();
        work(&scenarios.iter().map(|scenario| scenario.spec()).collect::<Vec<_>>())
    }

    #[test]
    fn every_scenario_has_a_first_variant_to_practise() {
        let first = |what: &str| {
            specs(|specs| chosen(specs, what).map(|(spec, variant)| format!("{}/{}", spec.name, variant.name)))
                .unwrap_or_else(|failure| format!("{}: {failure}", failure.code()))
        };
        let said = [
            "untrusted-ca",
            "pv-drift",
            "affinity-conflict",
            "pv-drift/database-lost",
            "affinity-conflict/node-restarted",
            "afinity-conflict",
            "pv-drift/blobs-lost/documented",
        ]
        .map(first);
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn every_variant_that_can_be_practised_has_a_runbook_to_show_and_three_hints() {
        specs(|specs| {
            let all = specs.iter().flat_map(|spec| spec.variants.iter().map(|it| format!("{}/{}", spec.name, it.name)));
            let practised: Vec<&VariantSpec> =
                all.filter_map(|name| chosen(specs, &name).ok()).map(|(_, variant)| variant).collect();
            assert_eq!(practised.len(), 17);
            for variant in practised {
                assert!(runbook_text(variant).unwrap().contains("```sh"), "{}", variant.name);
                let [first, second, third] = &variant.hints;
                assert!(first != second && second != third && !first.contains(third), "{}", variant.name);
            }
        });
    }

    /// Whoever is on call is not told the cause: no page names what the fault is made of.
    #[test]
    fn no_page_tells_the_cause() {
        const CAUSES: [&str; 11] = [
            "x509",
            "certificate",
            "authority",
            "containerd",
            "taint",
            "nodeAffinity",
            "Redis",
            "cache",
            "blob",
            "drift",
            "certs.d",
        ];
        specs(|specs| {
            for variant in specs.iter().flat_map(|spec| &spec.variants) {
                let told = CAUSES.iter().find(|cause| variant.page.contains(*cause));
                assert_eq!(told, None, "{}: {}", variant.name, variant.page);
            }
        });
    }

    #[test]
    fn hints_come_one_after_the_other_and_the_last_stays() {
        let variant = specs(|specs| chosen(specs, "untrusted-ca").unwrap().1.clone());
        let mut state: State = serde_json::from_value(serde_json::json!({
            "scenario": "untrusted-ca", "variant": "no-trust", "report": "/r", "keep": false,
            "before": harness::harbor::inventory::Inventory::default(), "handed_over": "2026-01-01T00:00:00Z",
            "away": 0.0, "left": null, "paused": false, "hints": 0, "gave_up": false, "checks": [],
        }))
        .unwrap();
        let mut said = String::new();
        for hints in 0..=HINTS {
            state.hints = hints;
            said += &hint_text(&state, &variant);
        }
        insta::assert_snapshot!(said);
    }

    #[test]
    fn a_check_tells_what_is_still_wrong_or_how_long_it_took() {
        let check = |verdict, reason: &str, recovery_seconds| {
            check_text(&Check { verdict, reason: reason.to_owned(), recovery_seconds })
        };
        let not =
            "worker1, library/app:v1: ErrImagePull: not found; worker2-gpu, library/app:v1: ErrImagePull: not found";
        insta::assert_snapshot!(
            check(Verdict::NotHealed, not, None)
                + &check(Verdict::Healed, "all 5 images pulled; nothing of the inventory is lost", Some(432.4))
        );
    }

    #[test]
    fn a_shell_that_its_terminal_took_along_was_not_left_on_purpose() {
        for ended in [1, 9, 15, 129 << 8] {
            assert_eq!(left(ExitStatus::from_raw(ended)), Left::Torn);
        }
        assert_eq!(left(ExitStatus::from_raw(0)), Left::Meant);
        assert_eq!(left(ExitStatus::from_raw(2 << 8)), Left::Meant);
    }
}
