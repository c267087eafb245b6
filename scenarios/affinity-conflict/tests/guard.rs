//! The recommended runbook looks at its backup before it deletes anything: its own commands, run on good and bad backups.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output},
};

use harness::runbook::library::Library;
use rstest::rstest;

const GUARD: &str = "See that the backup can be restored, before anything is deleted";
const BLOB: &str = "aa11";

fn library() -> Library {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Library::read(&root, &root.join("fixtures/runbooks")).unwrap()
}

fn sh(dir: &Path, script: &str) -> Output {
    Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(dir).output().unwrap()
}

/// A backup that can be restored.
const GOOD: &str = "
mkdir -p docker/registry/v2/blobs/sha256/aa/aa11
echo blob > docker/registry/v2/blobs/sha256/aa/aa11/data
tar -czf registry-backup.tar.gz docker/registry
printf '%s\\n' '--' '-- PostgreSQL database dump complete' '--' > harbor-db-backup.sql
echo sha256:aa11 > blobs
for part in ca.crt tls.crt tls.key; do echo '-----BEGIN CERTIFICATE-----' > harbor-$part; done
";

#[rstest]
#[case::good("true", None)]
#[case::dump_cut_short("echo 'COPY public.artifact' > harbor-db-backup.sql", Some("the dump is not complete"))]
#[case::archive_of_a_terminal("echo garbage > registry-backup.tar.gz", Some("the archive cannot be read"))]
#[case::archive_lacks_a_blob("echo sha256:bb22 >> blobs", Some("the archive lacks blob sha256:bb22"))]
#[case::no_blobs("> blobs", Some("the database names no blobs"))]
#[case::no_certificate("> harbor-tls.key", Some("harbor-tls.key is no PEM"))]
fn a_backup_is_let_through_only_if_it_can_be_restored(#[case] damage: &str, #[case] refusal: Option<&str>) {
    assert!(GOOD.contains(BLOB));
    let library = library();
    let runbook = library.get("affinity-conflict/recommended").unwrap();
    let guard = runbook.steps.iter().find(|step| step.title == GUARD).unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(sh(dir.path(), GOOD).status.success());
    assert!(sh(dir.path(), damage).status.success());
    let looked = sh(dir.path(), &guard.blocks[0].script);
    let said = String::from_utf8_lossy(&looked.stderr);
    assert_eq!(looked.status.success(), refusal.is_none(), "{said}");
    assert!(said.contains(refusal.unwrap_or_default()), "{said}");
}

#[test]
fn nothing_is_deleted_before_the_backup_was_looked_at() {
    let library = library();
    let runbook = library.get("affinity-conflict/recommended").unwrap();
    let at = runbook.steps.iter().position(|step| step.title == GUARD).unwrap();
    let deletes =
        |script: &str| ["delete pvc", "delete pv", "helm uninstall"].iter().any(|words| script.contains(words));
    let first = runbook.steps.iter().position(|step| step.blocks.iter().any(|block| deletes(&block.script))).unwrap();
    assert!(at < first, "the guard is step {at}, the first deletion step {first}");
}
