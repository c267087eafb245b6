//! The nearest known name, for "did you mean".

/// Below this likeness a suggestion confuses more than it helps. The same limit as clap's.
const ALIKE: f64 = 0.7;

/// The known name that is most like `name`, if any is like it at all. The first of equals.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let likeness = strsim::jaro(&name.to_lowercase(), &candidate.to_lowercase());
        if likeness > best.map_or(ALIKE, |(most, _)| most) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `; did you mean NAME?`, or nothing: to end a message with.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

/// Names as `a, b, c`; `none` for no names.
pub fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("no-trsut", Some("no-trust"))]
    #[case("rotated", Some("ca-rotated"))]
    #[case("CA-ROTATED", Some("ca-rotated"))]
    #[case("v1.35.0", None)]
    #[case("", None)]
    fn suggests_only_what_is_alike(#[case] name: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(name, ["no-trust", "ca-rotated", "wrong-host-dir"]), expected);
    }

    #[test]
    fn the_first_of_equals_is_taken() {
        assert_eq!(nearest("v1.34.9", ["v1.34.4", "v1.34.2"]), Some("v1.34.4"));
    }
}
