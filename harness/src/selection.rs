//! Which cells a command line means.

use crate::{
    nearest::{did_you_mean, list},
    scenario::{CellPlan, Role},
};

/// The control that does nothing: the least that proves that a check can fail.
pub const NO_OP: &str = "no-op";

/// Why a selection is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Not of the form.
    #[error("`{argument}` selects nothing: it must be SCENARIO, SCENARIO/VARIANT or SCENARIO/VARIANT/PROCEDURE")]
    Malformed {
        /// As it was given.
        argument: String,
    },
    /// There is no such thing.
    #[error("there is no {what} `{name}`{of}{suggestion} (there are: {known})")]
    Unknown {
        /// `scenario`, `variant` or `procedure`.
        what: &'static str,
        /// As it was given.
        name: String,
        /// ` in SCENARIO`, or nothing.
        of: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are, as a list.
        known: String,
    },
    /// Nothing is left to run.
    #[error("{0}")]
    Empty(&'static str),
}

/// The cells of `catalogue` that the arguments mean, in the catalogue's order and each once; all where there are no
/// arguments. With `quick` only the documented and recommended repairs and the no-op control of those.
///
/// # Errors
/// An argument names something unknown or is not of the form `SCENARIO[/VARIANT[/PROCEDURE]]`, or no cell is left.
pub fn select<A: AsRef<str>>(
    catalogue: &[CellPlan],
    arguments: &[A],
    quick: bool,
) -> Result<Vec<CellPlan>, SelectionError> {
    let mut chosen = vec![arguments.is_empty(); catalogue.len()];
    for argument in arguments {
        let wanted: Vec<&str> = argument.as_ref().split('/').collect();
        if wanted.len() > 3 || wanted.iter().any(|part| part.is_empty()) {
            return Err(SelectionError::Malformed { argument: argument.as_ref().to_owned() });
        }
        check_known(catalogue, &wanted)?;
        for (chosen, cell) in chosen.iter_mut().zip(catalogue) {
            *chosen |= wanted.iter().zip(parts(cell)).all(|(wanted, part)| *wanted == part);
        }
    }
    let chosen: Vec<&CellPlan> =
        catalogue.iter().zip(chosen).filter_map(|(cell, chosen)| chosen.then_some(cell)).collect();
    if chosen.is_empty() {
        return Err(SelectionError::Empty("there is no cell to run: no scenario has any"));
    }
    let cells: Vec<CellPlan> = chosen.into_iter().filter(|cell| !quick || is_quick(cell)).cloned().collect();
    if cells.is_empty() {
        return Err(SelectionError::Empty(
            "there is no cell to run: a quick run has only the documented and recommended repairs and the no-op control, and \
             none of those is selected; select more, or run without --quick",
        ));
    }
    Ok(cells)
}

/// One of several like parts of a run, `K/N`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("write K/N, such as 1/3, with K from 1 to N".to_owned()),
        }
    }
}

impl Shard {
    /// This part of `cells`, which are in the order of their variants. A variant is never divided: its cells share a fault.
    ///
    /// # Errors
    /// There are fewer variants than parts, and this part has none.
    pub fn of(self, cells: &[CellPlan]) -> Result<Vec<CellPlan>, SelectionError> {
        let variants = cells.chunk_by(|a, b| parts(a)[..2] == parts(b)[..2]);
        let own: Vec<CellPlan> = variants
            .enumerate()
            .filter(|(index, _)| index % self.of == self.number - 1)
            .flat_map(|(_, cells)| cells.to_vec())
            .collect();
        if own.is_empty() {
            return Err(SelectionError::Empty(
                "there is no cell to run: fewer variants are selected than --shard has parts",
            ));
        }
        Ok(own)
    }
}

fn parts(cell: &CellPlan) -> [&str; 3] {
    [&cell.scenario, &cell.variant, &cell.procedure]
}

fn is_quick(cell: &CellPlan) -> bool {
    matches!(cell.role, Role::Documented | Role::Recommended) || cell.procedure == NO_OP
}

/// Whether every part names something within what the parts before it name.
fn check_known(catalogue: &[CellPlan], wanted: &[&str]) -> Result<(), SelectionError> {
    for (depth, what) in ["scenario", "variant", "procedure"].into_iter().enumerate().take(wanted.len()) {
        let mut known: Vec<&str> = Vec::new();
        for cell in catalogue.iter().filter(|cell| parts(cell)[..depth] == wanted[..depth]) {
            let name = parts(cell)[depth];
            if !known.contains(&name) {
                known.push(name);
            }
        }
        let name = wanted[depth];
        if !known.contains(&name) {
            return Err(SelectionError::Unknown {
                what,
                name: name.to_owned(),
                of: if depth == 0 { String::new() } else { format!(" in {}", wanted[..depth].join("/")) },
                suggestion: did_you_mean(name, known.iter().copied()),
                known: list(known),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::report::fixture::plan;

    fn cell(path: &str, role: Role) -> CellPlan {
        plan(path, role, None, None)
    }

    fn catalogue() -> Vec<CellPlan> {
        vec![
            cell("untrusted-ca/no-trust/no-op", Role::Control),
            cell("untrusted-ca/no-trust/redeploy-pods", Role::Control),
            cell("untrusted-ca/no-trust/documented", Role::Documented),
            cell("untrusted-ca/ca-rotated/no-op", Role::Control),
            cell("untrusted-ca/ca-rotated/documented", Role::Documented),
            cell("pv-drift/blobs-lost/documented", Role::Documented),
            cell("pv-drift/blobs-lost/recommended", Role::Recommended),
        ]
    }

    #[rstest]
    #[case::all(&[], false, &[0, 1, 2, 3, 4, 5, 6])]
    #[case::scenario(&["pv-drift"], false, &[5, 6])]
    #[case::variant(&["untrusted-ca/no-trust"], false, &[0, 1, 2])]
    #[case::procedure(&["untrusted-ca/no-trust/documented"], false, &[2])]
    #[case::catalogue_order(&["pv-drift", "untrusted-ca/ca-rotated"], false, &[3, 4, 5, 6])]
    #[case::each_once(&["untrusted-ca", "untrusted-ca/no-trust"], false, &[0, 1, 2, 3, 4])]
    #[case::quick(&[], true, &[0, 2, 3, 4, 5, 6])]
    fn arguments_mean_cells(#[case] arguments: &[&str], #[case] quick: bool, #[case] expected: &[usize]) {
        let catalogue = catalogue();
        let expected: Vec<CellPlan> = expected.iter().map(|index| catalogue[*index].clone()).collect();
        assert_eq!(select(&catalogue, arguments, quick).unwrap(), expected);
    }

    #[test]
    fn every_variant_is_in_one_shard() {
        let catalogue = catalogue();
        let shard = |text: &str| text.parse::<Shard>().unwrap().of(&catalogue).unwrap();
        let paths = |cells: &[CellPlan]| cells.iter().map(CellPlan::path).collect::<Vec<_>>();
        assert_eq!(paths(&shard("1/2")), paths(&[&catalogue[..3], &catalogue[5..]].concat()));
        assert_eq!(paths(&shard("2/2")), paths(&catalogue[3..5]));
        assert_eq!(shard("1/1"), catalogue);
        let few = "4/4".parse::<Shard>().unwrap().of(&catalogue).unwrap_err().to_string();
        assert_eq!(few, "there is no cell to run: fewer variants are selected than --shard has parts");
        for wrong in ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let mistakes: [(&[&str], bool); 11] = [
            (&["untrsuted-ca"], false),
            (&["something-else"], false),
            (&["untrusted-ca/no-trsut"], false),
            (&["untrusted-ca/blobs-lost"], false),
            (&["untrusted-ca/no-trust/documentd"], false),
            (&["no-trust"], false),
            (&["pv-drift", "untrusted-ca/rotated"], false),
            (&["untrusted-ca/"], false),
            (&["a/b/c/d"], false),
            (&[""], false),
            (&["untrusted-ca/no-trust/redeploy-pods"], true),
        ];
        let mut said: Vec<String> = mistakes
            .iter()
            .map(|(arguments, quick)| {
                let quick_flag = if *quick { " --quick" } else { "" };
                format!("{}{quick_flag}: {}", arguments.join(" "), select(&catalogue(), arguments, *quick).unwrap_err())
            })
            .collect();
        said.push(format!("(no scenario): {}", select::<&str>(&[], &[], false).unwrap_err()));
        insta::assert_snapshot!(said.join("\n"));
    }
}
