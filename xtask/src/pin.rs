//! `cargo xtask pin`: the digests of what is pinned, filled in and checked.

use std::io::Write as _;

use clap::Args;
use futures::StreamExt;
use harness::source::{
    mirror::Mirror,
    pin::{self, Found},
    registry::Registry,
    versions::Versions,
};

use crate::exit::{self, Failure};

/// From the project's folder.
const FILE: &str = "fixtures/versions.toml";

#[derive(Args)]
pub struct PinArgs {
    /// Ask a mirror of Docker Hub instead, with the credentials and CAs that Docker has for it
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    mirror: Option<Mirror>,
}

pub async fn pin(args: PinArgs) -> Result<u8, Failure> {
    let path = crate::root().join(FILE);
    let text =
        std::fs::read_to_string(&path).map_err(|error| Failure::input(anyhow::anyhow!("read {FILE}: {error}")))?;
    let versions = Versions::parse(FILE, &text).map_err(Failure::input)?;
    let client = Registry::from_env(args.mirror).map_err(Failure::input)?;

    let mut pins = Vec::new();
    let mut looked_up = std::pin::pin!(pin::look_up(&versions, &client));
    while let Some(pin) = looked_up.next().await {
        // Who reads no further wants the file filled in all the same.
        let _ = writeln!(std::io::stdout(), "{pin}");
        pins.push(pin);
    }

    let filled = pin::fill(&text, &pins);
    if filled != text {
        Versions::parse(FILE, &filled).map_err(Failure::lab)?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(&path))?;
            file.write_all(filled.as_bytes())?;
            file.as_file().set_permissions(std::fs::metadata(&path)?.permissions())?;
            file.persist(&path).map_err(|error| error.error).map(drop)
        };
        write()
            .map_err(|error: std::io::Error| Failure::lab(anyhow::anyhow!("write {FILE}: {error}; it is as it was")))?;
    }
    let count = |counts: fn(&Found) -> bool| pins.iter().filter(|pin| counts(&pin.found)).count();
    let new = count(|found| matches!(found, Found::New(_)));
    let amiss = count(|found| matches!(found, Found::Amiss(_)));
    let _ =
        writeln!(std::io::stdout(), "\n{FILE}: {new} filled in, {} as pinned, {amiss} amiss", pins.len() - new - amiss);
    Ok(if amiss == 0 { exit::AS_EXPECTED } else { exit::NOT_AS_EXPECTED })
}
