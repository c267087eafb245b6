//! A bundle is used as it was made, or refused.

use std::{collections::BTreeMap, fs, io::Read, path::Path, sync::atomic::AtomicBool};

use super::*;
use crate::{
    paths::Paths,
    run::events::{Events, HarborKind},
    source::{
        image::{Files, Image, Layer, architecture},
        ingredients::{Harbor, Ingredients, LocalPath, Network, Tools},
    },
};

/// Small ingredients in `dir`.
fn ingredients(dir: &Path) -> Ingredients {
    let tool = |name: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\necho {name}\n")).unwrap();
        path
    };
    fs::create_dir_all(dir.join("chart/templates")).unwrap();
    fs::write(dir.join("chart/Chart.yaml"), "name: harbor\n").unwrap();
    fs::write(dir.join("chart/templates/a.yaml"), "kind: Secret\n").unwrap();
    let image = |name: &str, content: &str| {
        Image::new(name, vec![Layer::Files(Files::new().text("etc/motd", content, 0o644))], &["sh"])
    };
    Ingredients {
        facts: Facts {
            kubernetes: "v1.34.4".to_owned(),
            network: Network::Drydock,
            harbor: Harbor { kind: HarborKind::StandIn, values: BTreeMap::new() },
            local_path: LocalPath { provisioner: "x.test/provisioner:1".into(), helper: "x.test/helper:1".into() },
        },
        tools: Tools { kind: tool("kind"), helm: tool("helm"), kubectl: tool("kubectl"), crane: tool("crane") },
        node: image("x.test/node:1", "node"),
        images: vec![image("x.test/provisioner:1", "provisioner"), image("x.test/helper:1", "helper")],
        chart: dir.join("chart"),
        versions: [("kind".to_owned(), "v0.32.0".to_owned())].into(),
        in_use: Vec::new(),
    }
}

/// A bundle in `dir`.
fn bundle(dir: &Path) -> PathBuf {
    let out = dir.join("drydock.tar.zst");
    create(&ingredients(dir), &out, &AtomicBool::new(false)).unwrap();
    out
}

/// Every file of a bundle, in its order.
fn files(bundle: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(fs::File::open(bundle).unwrap()).unwrap());
    let read = |entry: io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    };
    tar.entries().unwrap().map(read).collect()
}

/// Packs files as `tar --zstd` does.
fn pack(files: &[(String, Vec<u8>)], out: &Path) {
    let mut tar = tar::Builder::new(zstd::Encoder::new(fs::File::create(out).unwrap(), 1).unwrap());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, &**content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

/// Changes a bundle's files.
fn changed(dir: &Path, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> PathBuf {
    let mut files = files(&bundle(dir));
    change(&mut files);
    let out = dir.join("changed.tar.zst");
    pack(&files, &out);
    out
}

fn content<'a>(files: &'a mut [(String, Vec<u8>)], path: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(name, _)| name == path).unwrap().1
}

/// Opens a bundle with an empty cache; nothing may be left in it when that fails.
async fn open(file: &Path) -> Result<(Bundle, tempfile::TempDir), BundleError> {
    let cache = tempfile::tempdir().unwrap();
    let paths = Paths::at(cache.path());
    let opened = Bundle::open(file, &paths, &Events::discard()).await;
    if opened.is_err() {
        let shelf = fs::read_dir(paths.artifacts().join("bundle"));
        let left: Vec<_> = shelf.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.iter()
                .all(|name| name.to_string_lossy().starts_with('.') && !name.to_string_lossy().contains("building")),
            "{left:?}"
        );
    }
    Ok((opened?, cache))
}

/// Why a bundle is refused, without its path.
async fn refusal(file: &Path) -> String {
    open(file).await.map(drop).unwrap_err().to_string().replace(&file.display().to_string(), "FILE")
}

#[tokio::test]
async fn a_bundle_has_what_it_was_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = bundle(dir.path());
    let (opened, _cache) = open(&file).await.unwrap();
    assert_eq!(opened.description().node, "x.test/node:1");
    assert_eq!(opened.image_names().unwrap(), ["x.test/helper:1", "x.test/provisioner:1"]);
    opened.check_kubernetes(None).unwrap();
    opened.check_kubernetes(Some("1.34")).unwrap();
    let error = opened.check_kubernetes(Some("v1.33.1")).unwrap_err().to_string();
    assert!(error.ends_with("it has Kubernetes 1.34.4, asked for was 1.33.1"), "{error}");
    assert_eq!(files(&file)[0].0, DESCRIPTION);
}

#[test]
fn the_same_ingredients_make_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(fs::read(bundle(one.path())).unwrap() == fs::read(bundle(other.path())).unwrap());
}

#[test]
fn what_sha256sum_checks_is_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = bundle(dir.path());
    let to = dir.path().join("unpacked");
    tar::Archive::new(zstd::Decoder::new(fs::File::open(&file).unwrap()).unwrap()).unpack(&to).unwrap();
    let check = std::process::Command::new("sha256sum").args(["--check", "--strict", SUMS]).current_dir(&to).output();
    let output = check.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked = String::from_utf8(output.stdout).unwrap().lines().count();
    assert_eq!(checked, files(&file).len() - 1);
}

#[test]
fn a_file_that_is_there_is_not_written_over_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mine");
    fs::write(&out, "mine").unwrap();
    let error = create(&ingredients(dir.path()), &out, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, BundleError::Exists { .. }), "{error}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    let mut spoilt = ingredients(dir.path());
    spoilt.tools.crane = dir.path().join("no such file");
    let new = dir.path().join("new.tar.zst");
    create(&spoilt, &new, &AtomicBool::new(false)).unwrap_err();
    let cancelled = create(&ingredients(dir.path()), &new, &AtomicBool::new(true)).unwrap_err();
    assert!(cancelled.to_string().ends_with("no longer wanted"), "{cancelled}");
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("drydock-bundle") && name != "new.tar.zst"));
}

#[tokio::test]
async fn a_bundle_that_ends_early_is_refused_wherever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(bundle(dir.path())).unwrap();
    let file = dir.path().join("cut.tar.zst");
    for size in [10, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..size]).unwrap();
        assert_eq!(
            refusal(&file).await,
            format!(
                "read the bundle FILE: it ends in the middle, after {size} bytes; copy it again, nothing was changed"
            )
        );
    }
}

#[tokio::test]
async fn a_bundle_of_which_a_byte_was_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(bundle(dir.path())).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let file = dir.path().join("flipped.tar.zst");
    fs::write(&file, bytes).unwrap();
    let error = open(&file).await.map(drop).unwrap_err();
    assert!(matches!(error, BundleError::Altered { .. } | BundleError::Truncated { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_bundle_is_said_to_be_none() {
    let mut said = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other");
    fs::write(&file, "#!/bin/sh").unwrap();
    said.push(refusal(&file).await);
    fs::write(&file, "").unwrap();
    said.push(refusal(&file).await);
    pack(&[("README".to_owned(), b"hello".to_vec())], &file);
    said.push(refusal(&file).await);
    said.push(refusal(&dir.path().join("none")).await);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn what_does_not_agree_with_the_checksums_is_named() {
    let mut said = Vec::new();
    let of = |change: fn(&mut Vec<(String, Vec<u8>)>)| async move {
        let dir = tempfile::tempdir().unwrap();
        refusal(&changed(dir.path(), change)).await
    };
    let tool = of(|files| content(files, "tools/helm").push(b'x')).await;
    assert!(tool.starts_with("read the bundle FILE: the SHA-256 of tools/helm is "), "{tool}");
    said.push(of(|files| files.retain(|(path, _)| path != "tools/helm")).await);
    said.push(of(|files| files.push(("tools/extra".into(), Vec::new()))).await);
    said.push(of(|files| files.push(files[2].clone())).await);
    said.push(of(|files| *content(files, SUMS) = b"x\n".to_vec()).await);
    said.push(of(|files| files.retain(|(path, _)| path != SUMS)).await);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn a_path_that_leads_elsewhere_is_refused() {
    let mut said = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("evil.tar.zst");
    let mut tar = tar::Builder::new(zstd::Encoder::new(fs::File::create(&file).unwrap(), 1).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    tar.append(&header, io::empty()).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    said.push(refusal(&file).await);
    let mut tar = tar::Builder::new(zstd::Encoder::new(fs::File::create(&file).unwrap(), 1).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "tools/kind", "/bin/sh").unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    said.push(refusal(&file).await);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn a_description_that_does_not_fit_is_refused_before_the_rest_is_read() {
    let mut said = Vec::new();
    let of = |from: &'static str, to: &'static str| async move {
        let dir = tempfile::tempdir().unwrap();
        let file = changed(dir.path(), |files| {
            let text = content(files, DESCRIPTION);
            let changed = String::from_utf8(text.clone()).unwrap().replace(from, to);
            *text = changed.into_bytes();
            files.truncate(1);
        });
        refusal(&file).await.replace(architecture(), "OURS")
    };
    said.push(of("\"format\": 1", "\"format\": 2").await);
    let arch = if architecture() == "amd64" { "arm64" } else { "amd64" };
    let theirs = of(architecture(), arch).await.replace(arch, "THEIRS");
    said.push(theirs);
    said.push(of("\"node\"", "\"nodes\"").await);
    said.push(of("{", "").await);
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn what_the_description_names_must_be_there() {
    let mut said = Vec::new();
    let dir = tempfile::tempdir().unwrap();
    let file = changed(dir.path(), |files| {
        let text = content(files, DESCRIPTION);
        *text =
            String::from_utf8(text.clone()).unwrap().replace("\"chart\": \"chart\"", "\"chart\": \"c\"").into_bytes();
        let (digest, sums) = (crate::hash::of_bytes(text), content(files, SUMS));
        let lines = String::from_utf8(sums.clone()).unwrap();
        let line = lines.lines().find(|line| line.ends_with(DESCRIPTION)).unwrap().to_owned();
        *sums = lines.replace(&line, &format!("{digest}  {DESCRIPTION}")).into_bytes();
    });
    said.push(refusal(&file).await);
    insta::assert_snapshot!(said.join("\n"));
}
