//! `--offline`: the gate that lets nothing out of the machine, and says who asked for what.
//!
//! Programs of a run have the gate as their proxy and are refused. Nodes are seen by their pods' events, which name every image
//! that is pulled. What goes neither way, such as a program that knows no proxy, only a machine without a route stops.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Lab, LabError};
use crate::run::events::Events;

/// In a lab's folder: the address of the gate, where a run is offline.
const FILE: &str = "gate";
/// What is on this machine: loopback, and what engines and clusters give to their networks.
const INSIDE: &str = "localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,.svc,.cluster.local";

/// The gate. It is shut as long as this lives.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    attempts: Arc<Mutex<BTreeSet<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Gate {
    /// Shuts the gate. Every attempt to pass it is told at once.
    ///
    /// # Errors
    /// No port of 127.0.0.1 is free.
    pub async fn shut(events: &Events) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let attempts = Arc::new(Mutex::new(BTreeSet::new()));
        let (seen, events) = (attempts.clone(), events.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (seen, events) = (seen.clone(), events.clone());
                tokio::spawn(async move {
                    // Looked up first: the program may be gone when it was refused.
                    let who = tokio::task::spawn_blocking(move || owner(peer)).await.ok().flatten();
                    if let Ok(wanted) = refuse(stream).await {
                        let who = who.unwrap_or_else(|| "a program that has ended".to_owned());
                        let attempt = format!("{who} asked for {wanted}");
                        events.note(format!("offline, refused: {attempt}"));
                        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt);
                    }
                });
            }
        });
        Ok(Self { address, attempts, server })
    }

    /// Has the programs of the lab in `dir` come to this gate.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn stand_before(&self, dir: &Path) -> Result<(), LabError> {
        let path = dir.join(FILE);
        fs::write(&path, self.address.to_string()).map_err(|source| LabError::File { doing: "write", path, source })
    }

    /// Looks through a lab's events for images that were pulled from elsewhere than its Harbor.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn look_at_pulls(&self, lab: &Lab) -> Result<(), LabError> {
        let events = Api::<Event>::all(lab.client.clone());
        let pulling = ListParams::default().fields("reason=Pulling");
        let events = events.list(&pulling).await.map_err(LabError::kube("list the events of pulls"))?;
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.items {
            let image = event.message.as_deref().and_then(|message| message.split('"').nth(1)).unwrap_or_default();
            if !image.starts_with(&format!("{}/", lab.harbor.host)) {
                let pod = event.involved_object;
                let (namespace, name) = (pod.namespace.unwrap_or_default(), pod.name.unwrap_or_default());
                attempts.insert(format!("the pod {namespace}/{name} asked for the image {image}"));
            }
        }
        Ok(())
    }

    /// Who asked for what.
    pub fn attempts(&self) -> Vec<String> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The variables that lead the programs of the lab in `dir` to its gate, if it has one.
pub(super) fn env(dir: &Path) -> Vec<(String, String)> {
    let Ok(address) = fs::read_to_string(dir.join(FILE)) else { return Vec::new() };
    let proxy = format!("http://{address}");
    let both = |name: &str, value: &str| [name.to_owned(), name.to_lowercase()].map(|name| (name, value.to_owned()));
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        .iter()
        .flat_map(|name| both(name, &proxy))
        .chain(both("NO_PROXY", INSIDE))
        .collect()
}

/// Refuses a request, and says what it was for.
async fn refuse(stream: TcpStream) -> std::io::Result<String> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    // `CONNECT host:port HTTP/1.1`, or `GET http://host/path HTTP/1.1`.
    let wanted = line.split_whitespace().nth(1).unwrap_or("something that is no HTTP").to_owned();
    let body = format!("Drydock is offline: nothing leaves this machine, and {wanted} is elsewhere.\n");
    let answer = format!(
        "HTTP/1.1 403 Offline\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(wanted)
}

/// The command line of the process at the other end of a connection on this machine.
fn owner(peer: SocketAddr) -> Option<String> {
    let inode = inode(&fs::read_to_string("/proc/net/tcp").ok()?, peer)?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        if files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == socket)) {
            let line = fs::read(process.path().join("cmdline")).ok()?;
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            return Some(format!("`{}`", words.join(" ").trim()));
        }
    }
    None
}

/// The inode of a socket by its own address, from `/proc/net/tcp` (proc_pid_net(5)): addresses are in hexadecimal, of the IPv4
/// address in the machine's byte order.
fn inode(table: &str, own: SocketAddr) -> Option<String> {
    let SocketAddr::V4(own) = own else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_ne_bytes(own.ip().octets()), own.port());
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&wanted))?;
    line.split_whitespace().nth(9).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn who_asks_for_what_is_refused_and_named() {
        let gate = Gate::shut(&Events::discard()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(env(dir.path()).is_empty());
        gate.stand_before(dir.path()).unwrap();
        let env = env(dir.path());
        for address in ["https://registry.test/v2/", "http://packages.test/list"] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--show-error", "--fail", address]).env_clear().envs(env.clone());
            let output = tokio::task::spawn_blocking(move || curl.output()).await.unwrap().unwrap();
            assert!(!output.status.success());
        }
        assert_eq!(
            gate.attempts(),
            [
                "`curl --silent --show-error --fail http://packages.test/list` asked for http://packages.test/list",
                "`curl --silent --show-error --fail https://registry.test/v2/` asked for registry.test:443",
            ]
        );
    }

    #[tokio::test]
    async fn what_is_on_this_machine_passes_by() {
        let gate = Gate::shut(&Events::discard()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        gate.stand_before(dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--silent", &address]).env_clear().envs(env(dir.path()));
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
            // Until curl has read it.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        };
        let (output, ()) = tokio::join!(curl.output(), served);
        assert_eq!(output.unwrap().stdout, b"ok");
        assert!(gate.attempts().is_empty());
    }
}
