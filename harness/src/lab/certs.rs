//! Which certificate authority the nodes trust, and how they came to.
//!
//! containerd reads `certs.d` at every pull, but only where its configuration names the folder (`config_path`), and that
//! it reads at start. It reads the system store at its first TLS check and never again.

use super::{
    Lab, LabError,
    node::{Node, on_each},
};

/// containerd's folder with one folder per registry.
const CERTS_D: &str = "/etc/containerd/certs.d";

/// What a node trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTrust {
    /// A folder in `certs.d` (containerd looks for `<host:port>`) and the `ca.crt` in it.
    pub certs_d: Option<(String, String)>,
    /// Whether containerd's configuration names `certs.d`.
    pub config_path: bool,
    /// The form of that configuration.
    pub config: Config,
    /// A certificate in the system store that containerd knows of.
    pub system_store: Option<String>,
}

/// The form of containerd's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Config {
    /// As the node image has it.
    #[default]
    Kept,
    /// Version 3, written out in full as containerd 2 itself writes it.
    Version3,
    /// Version 3, in which the table that containerd 1.x reads names `certs.d`. containerd 2.1.5 ignores it with a warning.
    Version3WithOldTable,
}

impl NodeTrust {
    /// What the document's repair leaves: all three.
    pub fn complete(host: &str, ca: &str) -> Self {
        Self {
            certs_d: Some((host.to_owned(), ca.to_owned())),
            config_path: true,
            config: Config::Kept,
            system_store: Some(ca.to_owned()),
        }
    }

    /// The script that brings a node to exactly this, whatever it was before, and restarts containerd.
    pub fn script(&self) -> String {
        let mut script = RESET.to_owned();
        if self.config != Config::Kept {
            script.push_str(VERSION_3);
        }
        if self.config == Config::Version3WithOldTable {
            script.push_str(OLD_TABLE);
        }
        if let Some((host, ca)) = &self.certs_d {
            script
                .push_str(&format!("mkdir -p '{CERTS_D}/{host}'\ncat > '{CERTS_D}/{host}/ca.crt' <<'PEM'\n{ca}PEM\n"));
        }
        if self.config_path {
            script.push_str(CONFIG_PATH);
        }
        if let Some(ca) = &self.system_store {
            script.push_str(&system_store_script(ca));
        }
        script.push_str(RESTART);
        script
    }
}

/// Adds `ca` to the system store as an administrator would, and restarts nothing.
pub fn system_store_script(ca: &str) -> String {
    format!(
        "cat > /usr/local/share/ca-certificates/harbor.crt <<'PEM'\n{ca}PEM\nupdate-ca-certificates >/dev/null 2>&1\n"
    )
}

/// kind's releases differ in whether their node's configuration has a `config_path`; here it starts without.
const RESET: &str = r#"
config=/etc/containerd/config.toml
[ -f $config.before ] || cp $config $config.before
sed '/^[[:space:]]*config_path[[:space:]]*=/d' $config.before > $config
rm -rf /etc/containerd/certs.d
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
  rm -f /usr/local/share/ca-certificates/*.crt
  update-ca-certificates --fresh >/dev/null 2>&1
fi
"#;

/// systemd calls containerd started also when its CRI part failed to load, for example for want of inotify instances.
const RESTART: &str = r#"
systemctl restart containerd
if ! ctr plugins ls | grep -E '^io.containerd.grpc.v1 +cri ' | grep -q ' ok'; then
  journalctl -u containerd -n 200 --no-pager -o cat | grep -E 'level=(error|warning)' | grep -i cri | tail -3
  echo "containerd runs without its CRI part" >&2
  exit 1
fi
"#;

/// containerd quotes the names of tables with single marks, people with double ones.
const CONFIG_PATH: &str = r#"
table='[plugins."io.containerd.cri.v1.images".registry]'
line='  config_path = "/etc/containerd/certs.d"'
quoted=$(echo "$table" | tr '"' "'")
if grep -qF -e "$table" -e "$quoted" $config; then
  awk -v table="$table" -v quoted="$quoted" -v line="$line" \
    '{ print } index($0, table) || index($0, quoted) { print line }' $config > $config.new
  mv $config.new $config
else
  printf '\n%s\n%s\n' "$table" "$line" >> $config
fi
"#;

/// Rewrites the configuration in version 3.
const VERSION_3: &str = r#"
containerd --config $config config migrate > $config.new 2>/dev/null
grep -q '^version = 3' $config.new
mv $config.new $config
"#;

const OLD_TABLE: &str = r#"
sed -i '/^[[:space:]]*config_path[[:space:]]*=/d' $config
printf '\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n' >> $config
"#;

/// Rewrites containerd's configuration on all of `nodes` in version 3, for good.
pub async fn configure_version_3(nodes: &[Node]) -> Result<(), LabError> {
    let script = format!("set -e\nconfig=/etc/containerd/config.toml\n{VERSION_3}{RESTART}");
    on_each(nodes, |_| script.clone()).await?;
    Ok(())
}

/// Brings all of `nodes` to `trust`.
pub async fn apply(nodes: &[Node], trust: &NodeTrust) -> Result<(), LabError> {
    let script = trust.script();
    on_each(nodes, |_| script.clone()).await?;
    Ok(())
}

/// Makes every node trust Harbor's current authority, in every way there is.
pub async fn trust_harbor(lab: &Lab) -> Result<(), LabError> {
    let ca = lab.harbor.ca(&lab.client).await?;
    apply(&lab.nodes, &NodeTrust::complete(&lab.harbor.host, &ca)).await
}

/// Makes every node trust Harbor's current authority; restarts nothing on a node that reads `certs.d` already. Tells whether
/// any node did not.
pub async fn trust_renewed(lab: &Lab) -> Result<bool, LabError> {
    let ca = lab.harbor.ca(&lab.client).await?;
    let script = renew_script(&lab.harbor.host, &ca);
    let said = on_each(&lab.nodes, |_| script.clone()).await?;
    Ok(said.iter().any(|said| said.contains(RENEWED)))
}

/// What a node says whose trust was changed.
const RENEWED: &str = "trust-renewed";

/// Lays the certificate where a containerd that reads `certs.d` finds it at the next pull. Any other is brought to the complete
/// trust: one without `config_path`, or with a configuration newer than the process.
fn renew_script(host: &str, ca: &str) -> String {
    let complete = NodeTrust::complete(host, ca).script();
    format!(
        r#"
pid=$(systemctl show -p MainPID --value containerd)
if grep -q '^[[:space:]]*config_path = "{CERTS_D}"' /etc/containerd/config.toml \
  && [ -z "$(find /etc/containerd/config.toml -newer "/proc/$pid")" ]; then
  ca=$(cat <<'PEM'
{ca}PEM
)
  if [ -e '{CERTS_D}/{host}/hosts.toml' ] || [ "$(cat '{CERTS_D}/{host}/ca.crt' 2>/dev/null)" != "$ca" ]; then
    mkdir -p '{CERTS_D}/{host}'
    rm -f '{CERTS_D}/{host}/hosts.toml'
    printf '%s\n' "$ca" > '{CERTS_D}/{host}/ca.crt'
    echo {RENEWED}
  fi
else
{complete}
echo {RENEWED}
fi
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_trust_gets_no_certificate() {
        let script = NodeTrust::default().script();
        assert!(!script.contains("PEM"));
        assert!(script.contains("restart containerd"));
    }

    #[test]
    fn the_complete_trust_has_all_three_ways() {
        let script = NodeTrust::complete("10.0.0.2:30003", "-----BEGIN CERTIFICATE-----\n").script();
        for part in ["certs.d/10.0.0.2:30003/ca.crt", "config_path = ", "update-ca-certificates >"] {
            assert!(script.contains(part), "{part} in {script}");
        }
    }
}
