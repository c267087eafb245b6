//! What a runbook has left in its work folder, looked at as somebody would who has to restore from it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{
    Runbook,
    lint::{Finding, Level},
};
use crate::{
    harbor::inventory::Inventory,
    observe::{Observation, pods::PullObservation, symptom::UNKNOWN_AUTHORITY},
};

/// Files that are looked at, at most, and how deep folders are gone into.
const MOST_FILES: usize = 200;
const DEEPEST: usize = 4;
const DUMP_BEGINS: &str = "-- PostgreSQL database dump";
const DUMP_ENDS: &str = "-- PostgreSQL database dump complete";

/// Looks at the dumps and archives in `work`. `held` is what the registry held before the failure.
pub fn in_folder(work: &Path, runbooks: &[&Runbook], held: &Inventory) -> Vec<Finding> {
    let mut files = Vec::new();
    collect(work, DEEPEST, &mut files);
    let mut findings = Vec::new();
    for path in files {
        let name = path.strip_prefix(work).unwrap_or(&path).display().to_string();
        let what = match kind(&path) {
            Some(Kind::Dump { zipped }) => dump(&path, zipped),
            Some(Kind::Archive { zipped }) => archive(&path, zipped, held),
            None => Vec::new(),
        };
        for what in what {
            findings.push(at(runbooks, &name, format!("`{name}` {what}")));
        }
    }
    findings
}

/// Whether Harbor has another certificate authority than before, and nodes that do not trust it.
pub fn of_trust(runbooks: &[&Runbook], seen: &Observation, held: &Inventory) -> Option<Finding> {
    let distrusts = |pull: &&PullObservation| pull.failed() && pull.says(UNKNOWN_AUTHORITY);
    let mut nodes: Vec<&str> = seen.pulls.iter().filter(distrusts).map(|pull| pull.node.as_str()).collect();
    nodes.dedup();
    let renewed = seen.inventory.as_ref().is_some_and(|now| now.ca != held.ca);
    if nodes.is_empty() || !renewed {
        return None;
    }
    let what = format!(
        "Harbor has another certificate authority than before, and {} do not trust it: the runbook keeps neither the old \
         certificate nor lays the new authority on the nodes",
        nodes.join(", ")
    );
    Some(at(runbooks, "helm install", what))
}

/// A finding at the first block that names the file.
fn at(runbooks: &[&Runbook], name: &str, what: String) -> Finding {
    let short = name.rsplit('/').next().unwrap_or(name);
    let mut named = runbooks.iter().flat_map(|runbook| runbook.blocks().map(move |(_, block)| (runbook, block)));
    let found = named.find(|(_, block)| block.script.contains(short));
    let file =
        found.map(|(runbook, _)| runbook).or(runbooks.first()).map_or(String::new(), |runbook| runbook.file.clone());
    let line = found.map_or(1, |(_, block)| {
        block.line + 1 + block.script.lines().position(|line| line.contains(short)).unwrap_or_default()
    });
    Finding { file, line, level: Level::Warning, what }
}

/// The regular files under `dir`; links, such as those to the images, are not followed.
fn collect(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Ok(about) = path.symlink_metadata() else { continue };
        if about.is_dir() && depth > 0 {
            collect(&path, depth - 1, files);
        } else if about.is_file() && files.len() < MOST_FILES {
            files.push(path);
        }
    }
}

enum Kind {
    Dump { zipped: bool },
    Archive { zipped: bool },
}

/// By content; an archive that is spoilt is known by its name alone.
fn kind(path: &Path) -> Option<Kind> {
    let head = |reader: &mut dyn Read| {
        let mut head = Vec::new();
        let _ = reader.take(512).read_to_end(&mut head);
        head
    };
    let plain = head(&mut File::open(path).ok()?);
    let zipped = plain.starts_with(&[0x1f, 0x8b]);
    let inner = if zipped { head(&mut MultiGzDecoder::new(File::open(path).ok()?)) } else { plain };
    let name = path.file_name()?.to_string_lossy().into_owned();
    if String::from_utf8_lossy(&inner).contains(DUMP_BEGINS) {
        return Some(Kind::Dump { zipped });
    }
    let named_zipped = name.ends_with(".tgz") || name.ends_with(".tar.gz");
    (inner.get(257..262) == Some(b"ustar") || named_zipped || name.ends_with(".tar"))
        .then_some(Kind::Archive { zipped: zipped || named_zipped })
}

fn dump(path: &Path, zipped: bool) -> Vec<String> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let mut reader: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let (mut returns, mut before, mut tail, mut chunk) = (0, 0, Vec::new(), vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = reader.read(&mut chunk) {
        for byte in &chunk[..read] {
            returns += usize::from(before == b'\r' && *byte == b'\n');
            before = *byte;
        }
        tail.extend_from_slice(&chunk[..read]);
        tail.drain(..tail.len().saturating_sub(400));
    }
    let mut found = Vec::new();
    if returns > 0 {
        found.push(format!(
            "is a dump with carriage returns at the ends of {returns} lines: it came through a terminal (-t)"
        ));
    }
    if !String::from_utf8_lossy(&tail).contains(DUMP_ENDS) {
        found.push(
            "is a dump that is not complete: it does not end with \"PostgreSQL database dump complete\"".to_owned(),
        );
    }
    found
}

fn archive(path: &Path, zipped: bool, held: &Inventory) -> Vec<String> {
    let size = path.metadata().map_or(0, |about| about.len());
    let names = File::open(path).and_then(|file| if zipped { names(MultiGzDecoder::new(file)) } else { names(file) });
    let names = match names {
        Ok(names) if !names.is_empty() => names,
        Ok(_) => return vec![format!("is an archive with nothing in it ({size} bytes)")],
        Err(error) => return vec![format!("cannot be read as an archive ({size} bytes): {error}")],
    };
    // Another archive than one of the registry's storage is none of this.
    let of_registry =
        |name: &String| name.contains("docker/registry") || name.contains("blobs/sha256") && name.ends_with("/data");
    if !names.iter().any(of_registry) {
        return Vec::new();
    }
    let there: BTreeSet<&str> =
        names.iter().filter_map(|name| name.strip_suffix("/data")?.rsplit('/').next()).collect();
    let lacks: Vec<&str> = held
        .storage
        .keys()
        .map(String::as_str)
        .filter(|digest| !there.contains(digest.trim_start_matches("sha256:")))
        .collect();
    match lacks.as_slice() {
        [] => Vec::new(),
        [first, ..] => vec![format!(
            "lacks {} of the {} blobs that the registry held: {first}{}",
            lacks.len(),
            held.storage.keys().map(String::as_str).count(),
            if lacks.len() > 1 { ", …" } else { "" }
        )],
    }
}

fn names(reader: impl Read) -> std::io::Result<Vec<String>> {
    let mut archive = tar::Archive::new(reader);
    archive.entries()?.map(|entry| Ok(entry?.path()?.to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::runbook::parse::parse;

    const BLOBS: [&str; 2] = ["aa11", "bb22"];

    fn tar_of(names: &[String]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, b"x".as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn of_blobs(digests: &[&str]) -> Vec<u8> {
        let name = |digest: &&str| format!("docker/registry/v2/blobs/sha256/{}/{digest}/data", &digest[..2]);
        tar_of(&digests.iter().map(name).collect::<Vec<_>>())
    }

    #[test]
    fn a_backup_is_looked_at_as_it_would_be_restored() {
        let whole = format!("--\n{DUMP_BEGINS}\n--\nselect 1;\n--\n{DUMP_ENDS}\n--\n");
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write("good.sql", whole.as_bytes());
        write("deep/returns.sql", whole.replace('\n', "\r\n").as_bytes());
        write("cut.sql", &whole.as_bytes()[..40]);
        write("good.tgz", &of_blobs(&BLOBS));
        write("lacks.tgz", &of_blobs(&BLOBS[..1]));
        write("spoilt.tar.gz", b"Unable to use a TTY");
        write("other.tgz", &tar_of(&["etc/hosts".to_owned()]));
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::Write::write_all(&mut zipped, whole.as_bytes()).unwrap();
        write("dump.sql.gz", &zipped.finish().unwrap());
        write("layout.tgz", &tar_of(&["blobs/sha256/aa11".to_owned(), "oci-layout".to_owned()]));
        write("notes.txt", b"-- not a dump");
        let held = Inventory {
            storage: BLOBS.iter().map(|digest| (format!("sha256:{digest}"), 1)).collect(),
            ..Inventory::default()
        };
        let text = "## A\n```sh\ntrue\n```\n## B\n```sh\ntrue\nsave > deep/returns.sql\nsave > lacks.tgz\n```\n";
        let runbook = parse("r.md", text).unwrap();
        let found = in_folder(dir.path(), &[&runbook], &held);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(found.join("\n"));
    }

    #[test]
    fn a_new_authority_is_a_finding_where_nodes_do_not_trust_it() {
        let runbook = parse("r.md", "## A\n```sh\ntrue\n\nhelm install harbor\n```\n").unwrap();
        let pull = |node: &str, says: &str| PullObservation {
            node: node.to_owned(),
            waiting_reason: Some("ErrImagePull".to_owned()),
            waiting_message: Some(says.to_owned()),
            ..PullObservation::default()
        };
        let held = Inventory { ca: "old".to_owned(), ..Inventory::default() };
        let seen = |ca: &str, says: &str| Observation {
            pulls: vec![pull("worker1", says), pull("worker2", says)],
            inventory: Some(Inventory { ca: ca.to_owned(), ..Inventory::default() }),
            ..Observation::default()
        };
        let found = of_trust(&[&runbook], &seen("new", UNKNOWN_AUTHORITY), &held).unwrap().to_string();
        assert!(
            found.starts_with("r.md:5: warning: Harbor has another") && found.contains("worker1, worker2"),
            "{found}"
        );
        assert_eq!(of_trust(&[&runbook], &seen("old", UNKNOWN_AUTHORITY), &held), None);
        assert_eq!(of_trust(&[&runbook], &seen("new", "not found"), &held), None);
    }
}
