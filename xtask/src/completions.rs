//! `cargo xtask completions` and `man`: made from the command line's own description.

use clap::{Args, Command, CommandFactory, ValueEnum, builder::PossibleValuesParser};
use clap_complete::aot::{self, Bash, Fish, Zsh};
use harness::{
    nearest::{did_you_mean, list},
    source::versions::Versions,
};

use crate::{
    Cli, e2e,
    exit::{self, Failure},
};

#[derive(Args)]
#[command(after_help = "\
Load them where your shell starts:
  bash  source <(cargo xtask completions bash)   in ~/.bashrc
  zsh   source <(cargo xtask completions zsh)    in ~/.zshrc, after compinit
  fish  cargo xtask completions fish > ~/.config/fish/conf.d/drydock.fish

Run there in this folder, or keep the output in a file and load that. They complete `cargo xtask`, with the names of \
scenarios, variants and procedures as they are now.")]
pub struct CompletionsArgs {
    /// The shell that they are for
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

#[derive(Args)]
#[command(after_help = "\
Read it: cargo xtask man | man -l -
Keep it: cargo xtask man > ~/.local/share/man/man1/cargo-xtask.1")]
pub struct ManArgs {
    /// The command that the page is of, such as `e2e` or `runbook lint`; all of them in short when none is given
    command: Vec<String>,
}

pub fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    print!("{}", script(args.shell)?);
    Ok(exit::AS_EXPECTED)
}

fn script(shell: Shell) -> Result<String, Failure> {
    let names = Names::read()?;
    let mut command = names.given_to(Cli::command());
    let mut script = Vec::new();
    let more = match shell {
        Shell::Bash => {
            aot::generate(Bash, &mut command, "xtask", &mut script);
            include_str!("completions/cargo.bash")
        }
        Shell::Zsh => {
            aot::generate(Zsh, &mut command, "xtask", &mut script);
            include_str!("completions/cargo.zsh")
        }
        Shell::Fish => {
            aot::generate(Fish, &mut command, "xtask", &mut script);
            include_str!("completions/cargo.fish")
        }
    };
    let script = String::from_utf8_lossy(&script).into_owned();
    let names = if shell == Shell::Fish { names.for_fish(&command) } else { String::new() };
    Ok(script + &names + more)
}

/// What may stand where the command line takes any text: an argument's id, and its values.
struct Names([(&'static str, Vec<String>); 3]);

impl Names {
    fn read() -> Result<Self, Failure> {
        let (scenarios, _) = e2e::scenarios()?;
        let specs = scenarios.iter().map(|scenario| scenario.spec());
        let mut failures = Vec::new();
        let mut cells = Vec::new();
        for spec in specs {
            failures.push(spec.name.clone());
            failures.extend(spec.variants.iter().map(|variant| format!("{}/{}", spec.name, variant.name)));
            cells.extend(spec.cells().iter().map(|cell| cell.path()));
        }
        let versions = Versions::load(&crate::root().join("fixtures/versions.toml")).map_err(Failure::input)?;
        let minor = |version: String| {
            let plain = version.trim_start_matches('v');
            plain.rsplit_once('.').map_or(plain, |(minor, _)| minor).to_owned()
        };
        let kubernetes: Vec<String> = versions.all_kubernetes().map(|it| minor(it.version.to_string())).collect();
        cells.splice(0..0, failures.clone());
        Ok(Self([("selection", cells), ("what", failures), ("k8s", kubernetes)]))
    }

    /// The arguments of `command` that have names, with them.
    fn of<'a>(&'a self, command: &'a Command) -> impl Iterator<Item = &'a (&'static str, Vec<String>)> {
        self.0.iter().filter(|(argument, _)| command.get_arguments().any(|known| known.get_id() == argument))
    }

    fn given_to(&self, mut command: Command) -> Command {
        let subcommands: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in subcommands {
            command = command.mut_subcommand(name, |sub| {
                let arguments: Vec<_> = self.of(&sub).cloned().collect();
                arguments.into_iter().fold(sub, |sub, (argument, values)| {
                    sub.mut_arg(argument, |known| known.value_parser(PossibleValuesParser::new(values)))
                })
            });
        }
        command
    }

    /// clap's script for fish leaves out what stands without a flag.
    fn for_fish(&self, command: &Command) -> String {
        let mut lines = String::new();
        for sub in command.get_subcommands() {
            for (_, values) in self.of(sub).filter(|(argument, _)| *argument != "k8s") {
                let (name, values) = (sub.get_name(), values.join(" "));
                lines += &format!("complete -c xtask -n \"__fish_xtask_using_subcommand {name}\" -f -a \"{values}\"\n");
            }
        }
        lines
    }
}

pub fn man(args: &ManArgs) -> Result<u8, Failure> {
    print!("{}", page(&args.command)?);
    Ok(exit::AS_EXPECTED)
}

fn page(path: &[String]) -> Result<String, Failure> {
    // A page is called by one word.
    let mut title = "cargo-xtask".to_owned();
    let mut command = Cli::command().name(&title).display_name(&title);
    command.build();
    for name in path {
        let known: Vec<&str> = command.get_subcommands().map(Command::get_name).filter(|it| *it != "help").collect();
        let found = command.get_subcommands().find(|sub| sub.get_name() == name).cloned();
        command = found.ok_or_else(|| {
            let suggestion = did_you_mean(name, known.iter().copied());
            Failure::input(anyhow::anyhow!("there is no command `{name}`{suggestion} (there are: {})", list(known)))
        })?;
        title = format!("{title}-{name}");
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).title(title).render(&mut page).map_err(Failure::lab)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    /// What bash would offer after these words, of which the last is being typed.
    fn offered(words: &[&str]) -> Vec<String> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let last = words.len() - 1;
        let ask = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={last}\n_drydock_cargo cargo '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(Shell::Bash).unwrap(),
            quoted.join(" "),
            words[last],
            words[last - 1],
        );
        let asked = Process::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_cargo_xtask_with_commands_flags_and_names() {
        assert_eq!(offered(&["cargo", "xtask", "expl"]), ["explain"]);
        assert_eq!(offered(&["cargo", "xtask", "e2e", "--ke"]), ["--keep"]);
        assert_eq!(offered(&["cargo", "xtask", "e2e", "--keep", "on"]), ["on-failure"]);
        assert!(
            offered(&["cargo", "xtask", "e2e", "pv-drift/blobs-lost/d"])
                .contains(&"pv-drift/blobs-lost/documented".to_owned())
        );
        assert_eq!(offered(&["cargo", "xtask", "explain", "affinity-conflict/roll"]), ["affinity-conflict/rollout"]);
        assert_eq!(offered(&["cargo", "xtask", "up", "--k8s", "1.33"]), ["1.33"]);
        assert_eq!(offered(&["cargo", "xta"]), ["xtask"]);
    }

    #[test]
    fn fish_is_told_the_names_that_clap_leaves_out() {
        let script = script(Shell::Fish).unwrap();
        for command in ["e2e", "plan", "explain", "practice"] {
            let begins = format!("complete -c xtask -n \"__fish_xtask_using_subcommand {command}\" -f -a \"");
            let line = script.lines().find(|line| line.starts_with(&begins) && line.contains("pv-drift/blobs-lost"));
            assert!(line.is_some(), "{command}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let main = page(&[]).unwrap();
        assert!(main.contains("cargo\\-xtask\\-e2e(1)"), "{main}");
        assert!(main.contains("TH cargo-xtask 1") && main.contains("Exit codes: "), "{main}");
        for command in Cli::command().get_subcommands() {
            let page = page(&[command.get_name().to_owned()]).unwrap();
            assert!(page.starts_with(".ie") && page.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(page(&["runbook".to_owned(), "lint".to_owned()]).unwrap().contains("cargo-xtask-runbook-lint"));
    }

    #[test]
    fn a_page_of_no_command_is_told_with_what_is_like_it() {
        let error = page(&["doctr".to_owned()]).unwrap_err();
        assert_eq!(error.code(), exit::BAD_INPUT);
        assert!(
            error.to_string().starts_with("there is no command `doctr`; did you mean `doctor`? (there are: e2e, "),
            "{error}"
        );
    }
}
