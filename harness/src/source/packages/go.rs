//! Programs built here from Go packages. Each group of programs is one module, generated from what is pinned; the Go tool
//! fetches the packages and checks them against Go's checksum database.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cmd::{Cmd, CmdError},
    paths::Paths,
};

/// A build that does not come to an end in this time is stuck: the longest takes under ten minutes on two cores.
const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The package that holds what Kubernetes programs say of their version.
const KUBERNETES_VERSION: &str = "k8s.io/component-base/version";
const ETCD: &str = "go.etcd.io/etcd/server/v3";
const HELM: &str = "helm.sh/helm/v3";
const LOCAL_PATH: &str = "github.com/rancher/local-path-provisioner";

/// Why a program could not be built from Go packages.
#[derive(Debug, thiserror::Error)]
pub enum GoError {
    /// There is no Go.
    #[error("look for Go: {0}; install Go {1} or later (go.dev/doc/install) and put it on the PATH")]
    Missing(CmdError, String),
    /// It is too old.
    #[error("Go {found} is too old: the packages need {needed} or later (go.dev/doc/install)")]
    TooOld {
        /// What was found.
        found: String,
        /// What is needed.
        needed: String,
    },
    /// The Go tool failed.
    #[error("build from Go packages: {0}")]
    Failed(#[from] CmdError),
    /// A file could not be handled.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Kubernetes' own module file has not the form that it is known to have.
    #[error("read which modules Kubernetes {0} is made of: its go.mod names none; this version needs a newer Drydock")]
    NoStaging(String),
}

/// The Go tool, with the caches of the project.
#[derive(Debug, Clone)]
pub struct Go {
    caches: PathBuf,
    version: String,
}

impl Go {
    /// Finds Go.
    ///
    /// # Errors
    /// There is none, or it is older than `needed`.
    pub async fn find(paths: &Paths, needed: &str) -> Result<Self, GoError> {
        let mut go = Self { caches: paths.go(), version: String::new() };
        let asked = go.cmd().args(["env", "GOVERSION"]).limit(Duration::from_secs(20)).run().await;
        let said = asked.map_err(|error| GoError::Missing(error, needed.to_owned()))?.stdout;
        go.version = said.trim().trim_start_matches("go").to_owned();
        if numbers(&go.version) < numbers(needed) {
            return Err(GoError::TooOld { found: go.version, needed: needed.to_owned() });
        }
        Ok(go)
    }

    /// Its version, such as `1.26.8`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The tool as it is always run: nothing of the user's settings but where packages come from, and no tool fetched
    /// behind the user's back.
    fn cmd(&self) -> Cmd {
        Cmd::new("go")
            .env("GOCACHE", self.caches.join("build"))
            .env("GOMODCACHE", self.caches.join("mod"))
            .env("GOFLAGS", "-buildvcs=false -modcacherw -mod=mod")
            .env("GOTOOLCHAIN", "local")
            .env("GOWORK", "off")
            .env("CGO_ENABLED", "0")
            .limit(BUILD_LIMIT)
    }

    /// Builds a module's programs into `out`.
    ///
    /// # Errors
    /// A package cannot be had or does not compile.
    pub async fn build(&self, module: &Module, scratch: &Path, out: &Path) -> Result<(), GoError> {
        write(&scratch.join("go.mod"), &module.file)?;
        for (name, source) in &module.own {
            copy(source, &scratch.join(name))?;
        }
        for build in &module.builds {
            let mut flags = vec!["-s".to_owned(), "-w".to_owned()];
            flags.extend(build.variables.iter().map(|(name, value)| format!("-X {name}={value}")));
            let tags = build.tags.join(",");
            let built = self.cmd().args(["build", "-trimpath", "-tags", &tags, "-ldflags", &flags.join(" "), "-o"]);
            built.arg(format!("{}/", out.display())).args(&build.packages).dir(scratch).run().await?;
        }
        for (from, to) in &module.renames {
            let (from, to) = (out.join(from), out.join(to));
            fs::rename(&from, &to).map_err(|source| GoError::Io { doing: "rename", path: from, source })?;
        }
        Ok(())
    }

    /// Kubernetes' own module file, fetched with its package.
    ///
    /// # Errors
    /// The package cannot be had.
    pub async fn kubernetes_module(&self, version: &str, scratch: &Path) -> Result<String, GoError> {
        #[derive(serde::Deserialize)]
        struct Downloaded {
            #[serde(rename = "GoMod")]
            go_mod: PathBuf,
        }
        let package = format!("k8s.io/kubernetes@{version}");
        let download = self.cmd().args(["mod", "download", "-json", &package]).dir(scratch).run().await?;
        let downloaded: Downloaded = serde_json::from_str(&download.stdout).map_err(|source| GoError::Io {
            doing: "read what Go says of",
            path: PathBuf::from(&package),
            source: source.into(),
        })?;
        fs::read_to_string(&downloaded.go_mod).map_err(|source| GoError::Io {
            doing: "read",
            path: downloaded.go_mod,
            source,
        })
    }
}

/// A group of programs that share a module, and with it the packages that are compiled for them.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its module file.
    file: String,
    /// Programs of this project, by the folder they have in the module.
    own: Vec<(&'static str, PathBuf)>,
    builds: Vec<Build>,
    /// What to call a program whose package has another name.
    renames: Vec<(&'static str, &'static str)>,
}

/// One run of the Go tool: packages that can be compiled side by side.
#[derive(Debug, Clone)]
struct Build {
    packages: Vec<String>,
    variables: Vec<(String, String)>,
    tags: Vec<&'static str>,
}

/// What the module of a Kubernetes is made of.
#[derive(Debug, Clone)]
pub struct KubernetesPins<'a> {
    /// Kubernetes.
    pub kubernetes: &'a str,
    /// etcd.
    pub etcd: &'a str,
    /// The tools that are built with its packages. Its own programs must be built from the same list, or what both need
    /// would be compiled twice, in two versions.
    pub tools: Option<ToolPins<'a>>,
}

/// The tools that are built with a Kubernetes' packages.
#[derive(Debug, Clone)]
pub struct ToolPins<'a> {
    /// helm.
    pub helm: &'a str,
    /// The storage provisioner.
    pub local_path: &'a str,
}

impl Module {
    /// Kubernetes, its etcd, the pause program and `cri-pull`.
    ///
    /// # Errors
    /// `kubernetes_module`, Kubernetes' own module file, does not name the modules that it is made of.
    pub fn kubernetes(pins: &KubernetesPins<'_>, kubernetes_module: &str, fixtures: &Path) -> Result<Self, GoError> {
        let mut numbers = pins.kubernetes.trim_start_matches('v').split('.');
        let variable = |name: &str, value: &str| (format!("{KUBERNETES_VERSION}.{name}"), value.to_owned());
        let variables = vec![
            variable("gitVersion", pins.kubernetes),
            variable("gitMajor", numbers.next().unwrap_or_default()),
            variable("gitMinor", numbers.next().unwrap_or_default()),
            variable("gitTreeState", "clean"),
            variable("buildDate", "1970-01-01T00:00:00Z"),
        ];
        let programs = ["apiserver", "controller-manager", "proxy", "scheduler"]
            .map(|name| format!("k8s.io/kubernetes/cmd/kube-{name}"));
        let tools = ["kubeadm", "kubectl", "kubelet"].map(|name| format!("k8s.io/kubernetes/cmd/{name}"));
        let others = [ETCD, "./pause", "./cri-pull"];
        let packages = programs.into_iter().chain(tools).chain(others.map(str::to_owned)).collect();
        Ok(Self {
            file: kubernetes_file(pins, kubernetes_module)?,
            own: vec![("pause", fixtures.join("pause")), ("cri-pull", fixtures.join("cri-pull"))],
            builds: vec![Build { packages, variables, tags: vec![] }],
            renames: vec![("server", "etcd")],
        })
    }

    /// helm and the storage provisioner.
    ///
    /// # Errors
    /// As for [`Module::kubernetes`].
    pub fn tools(pins: &KubernetesPins<'_>, kubernetes_module: &str) -> Result<Self, GoError> {
        // Each alone: the two name one package with different capitals, which Go refuses within one build.
        let build = |package: String, variable: &str, version: &str| Build {
            packages: vec![package],
            variables: vec![(variable.to_owned(), version.to_owned())],
            tags: vec![],
        };
        let of_tools = |tools: &ToolPins<'_>| {
            vec![
                build(format!("{HELM}/cmd/helm"), &format!("{HELM}/internal/version.version"), tools.helm),
                build(LOCAL_PATH.to_owned(), "main.VERSION", tools.local_path),
            ]
        };
        Ok(Self {
            file: kubernetes_file(pins, kubernetes_module)?,
            own: vec![],
            builds: pins.tools.iter().flat_map(of_tools).collect(),
            renames: vec![],
        })
    }

    /// coredns with the few plugins that a cluster needs.
    pub fn coredns(version: &str, fixtures: &Path) -> Self {
        Self {
            file: module_file("coredns", "1.23.0", &[("github.com/coredns/coredns", version)]),
            own: vec![("coredns", fixtures.join("coredns"))],
            builds: vec![Build { packages: vec!["./coredns".to_owned()], variables: vec![], tags: vec![] }],
            renames: vec![],
        }
    }

    /// containerd, its client and its shim, without the snapshotters that no node here has.
    pub fn containerd(version: &str) -> Self {
        const PATH: &str = "github.com/containerd/containerd/v2";
        let version_variable = (format!("{PATH}/version.Version"), version.trim_start_matches('v').to_owned());
        Self {
            file: module_file("containerd", "1.23.0", &[(PATH, version)]),
            own: vec![],
            builds: vec![Build {
                packages: ["containerd", "ctr", "containerd-shim-runc-v2"]
                    .map(|name| format!("{PATH}/cmd/{name}"))
                    .to_vec(),
                variables: vec![version_variable],
                tags: vec!["no_btrfs", "no_devmapper", "no_zfs", "osusergo", "netgo", "urfave_cli_no_docs"],
            }],
            renames: vec![],
        }
    }

    /// The plugins of the pod network.
    pub fn cni_plugins(version: &str) -> Self {
        const PATH: &str = "github.com/containernetworking/plugins";
        let packages = CNI_PLUGINS.map(|(folder, name)| format!("{PATH}/plugins/{folder}/{name}")).to_vec();
        let variable = (format!("{PATH}/pkg/utils/buildversion.BuildVersion"), version.to_owned());
        Self {
            file: module_file("cni-plugins", "1.23.0", &[(PATH, version)]),
            own: vec![],
            builds: vec![Build { packages, variables: vec![variable], tags: vec![] }],
            renames: vec![],
        }
    }

    /// crane.
    pub fn crane(version: &str) -> Self {
        const PATH: &str = "github.com/google/go-containerregistry";
        // The second is what it calls itself to registries.
        let variables = ["cmd/crane/cmd.Version", "pkg/v1/remote/transport.Version"]
            .map(|name| (format!("{PATH}/{name}"), version.to_owned()))
            .to_vec();
        Self {
            file: module_file("crane", "1.23.0", &[(PATH, version)]),
            own: vec![],
            builds: vec![Build { packages: vec![format!("{PATH}/cmd/crane")], variables, tags: vec![] }],
            renames: vec![],
        }
    }

    /// actionlint.
    pub fn actionlint(version: &str) -> Self {
        const PATH: &str = "github.com/rhysd/actionlint";
        Self {
            file: module_file("actionlint", "1.24.0", &[(PATH, version)]),
            own: vec![],
            builds: vec![Build {
                packages: vec![format!("{PATH}/cmd/actionlint")],
                variables: vec![(format!("{PATH}.version"), version.to_owned())],
                tags: vec![],
            }],
            renames: vec![],
        }
    }

    /// kind.
    pub fn kind(version: &str) -> Self {
        Self {
            file: module_file("kind", "1.23.0", &[("sigs.k8s.io/kind", version)]),
            own: vec![],
            builds: vec![Build { packages: vec!["sigs.k8s.io/kind".to_owned()], variables: vec![], tags: vec![] }],
            renames: vec![],
        }
    }
}

/// The plugins of the pod network, with the folders that their packages are in.
pub const CNI_PLUGINS: [(&str, &str); 4] =
    [("main", "loopback"), ("main", "ptp"), ("ipam", "host-local"), ("meta", "portmap")];

/// A module file. All that is required indirectly is added by the Go tool when it builds.
fn module_file(name: &str, go: &str, requires: &[(&str, &str)]) -> String {
    let requires: Vec<String> = requires.iter().map(|(path, version)| format!("\t{path} {version}\n")).collect();
    format!("module drydock/{name}\n\ngo {go}\n\nrequire (\n{})\n", requires.concat())
}

/// The module file of what is built with a Kubernetes' packages. `kubernetes_module` is Kubernetes' own.
fn kubernetes_file(pins: &KubernetesPins<'_>, kubernetes_module: &str) -> Result<String, GoError> {
    let staging = staging(kubernetes_module);
    if staging.is_empty() {
        return Err(GoError::NoStaging(pins.kubernetes.to_owned()));
    }
    // v1.34.4 of Kubernetes is made of v0.34.4 of its parts.
    let part = pins.kubernetes.replacen("v1.", "v0.", 1);
    let replaces: Vec<String> = staging.iter().map(|name| format!("\t{name} => {name} {part}\n")).collect();
    let mut requires = vec![(ETCD, pins.etcd), ("k8s.io/kubernetes", pins.kubernetes)];
    if let Some(tools) = &pins.tools {
        requires.extend([(HELM, tools.helm), (LOCAL_PATH, tools.local_path)]);
    }
    let go = kubernetes_module.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.24.0");
    Ok(format!("{}\nreplace (\n{})\n", module_file("kubernetes", go, &requires), replaces.concat()))
}

/// The modules that Kubernetes has in its own tree, which outside of it are modules of their own.
fn staging(kubernetes_module: &str) -> Vec<&str> {
    let name = |line: &'_ str| line.split_once(" => ./staging/").is_some();
    kubernetes_module
        .lines()
        .filter(|line| name(line))
        .filter_map(|line| line.trim().trim_start_matches("replace ").split_once(" => "))
        .map(|(name, _)| name)
        .collect()
}

fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or_default())
        .collect()
}

fn write(path: &Path, text: &str) -> Result<(), GoError> {
    fs::write(path, text).map_err(|source| GoError::Io { doing: "write", path: path.to_owned(), source })
}

fn copy(from: &Path, to: &Path) -> Result<(), GoError> {
    let failed = |source| GoError::Io { doing: "copy", path: from.to_owned(), source };
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBERNETES: &str = "module k8s.io/kubernetes\n\ngo 1.24.0\n\nrequire k8s.io/klog/v2 v2.130.1\n\nreplace (\n\
        \tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/cri-api => ./staging/src/k8s.io/cri-api\n\
        \texample.org/x => example.org/y v1.0.0\n)\n";

    fn pins() -> KubernetesPins<'static> {
        let tools = ToolPins { helm: "v3.19.5", local_path: "v0.0.30" };
        KubernetesPins { kubernetes: "v1.34.4", etcd: "v3.6.5", tools: Some(tools) }
    }

    #[test]
    fn kubernetes_is_put_together_from_the_parts_of_its_version() {
        let module = Module::kubernetes(&pins(), KUBERNETES, Path::new("go")).unwrap();
        assert_eq!(
            module.file,
            "module drydock/kubernetes\n\ngo 1.24.0\n\nrequire (\n\
             \tgo.etcd.io/etcd/server/v3 v3.6.5\n\tk8s.io/kubernetes v1.34.4\n\
             \thelm.sh/helm/v3 v3.19.5\n\tgithub.com/rancher/local-path-provisioner v0.0.30\n)\n\nreplace (\n\
             \tk8s.io/api => k8s.io/api v0.34.4\n\tk8s.io/cri-api => k8s.io/cri-api v0.34.4\n)\n"
        );
        let variables = &module.builds[0].variables;
        assert!(variables.contains(&("k8s.io/component-base/version.gitMinor".to_owned(), "34".to_owned())));
    }

    #[test]
    fn the_tools_are_built_from_the_same_list_of_packages_as_their_kubernetes() {
        let tools = Module::tools(&pins(), KUBERNETES).unwrap();
        assert_eq!(tools.file, Module::kubernetes(&pins(), KUBERNETES, Path::new("go")).unwrap().file);
        assert_eq!(tools.builds[0].packages, ["helm.sh/helm/v3/cmd/helm"]);
        assert_eq!(
            tools.builds[0].variables,
            [("helm.sh/helm/v3/internal/version.version".to_owned(), "v3.19.5".to_owned())]
        );
        assert_eq!(tools.builds[1].packages, ["github.com/rancher/local-path-provisioner"]);
    }

    #[test]
    fn another_kubernetes_is_built_without_the_tools() {
        let module =
            Module::kubernetes(&KubernetesPins { tools: None, ..pins() }, KUBERNETES, Path::new("go")).unwrap();
        assert!(!module.file.contains("helm") && !module.file.contains("local-path"), "{}", module.file);
    }

    #[test]
    fn a_kubernetes_of_another_form_is_an_error() {
        let error = Module::kubernetes(&pins(), "module k8s.io/kubernetes\n", Path::new("go")).unwrap_err();
        assert!(matches!(error, GoError::NoStaging(version) if version == "v1.34.4"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.9.2") < numbers("1.24"));
        assert!(numbers("1.24.2") < numbers("1.26.8"));
        assert!(numbers("1.27rc1") > numbers("1.26.8"));
    }

    #[tokio::test]
    async fn a_go_that_is_too_old_is_named_with_what_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let error = Go::find(&Paths::at(dir.path()), "99.1").await.unwrap_err();
        assert!(error.to_string().contains("the packages need 99.1 or later"), "{error}");
    }
}
