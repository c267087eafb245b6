//! Linux capabilities: which ones a process can ever have.

use std::{io, path::Path};

/// `CAP_SYS_RESOURCE`: without it no container can be privileged, and no process may lower its OOM score.
pub const SYS_RESOURCE: u32 = 24;

/// Names by number, from `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A capability bounding set: what a process and all that it starts can ever have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounding(u64);

impl Bounding {
    /// This process's own.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn own() -> io::Result<Self> {
        Self::read("/proc/self/status")
    }

    /// That of the process `pid`.
    ///
    /// # Errors
    /// `/proc` does not say: no such process, or one of another user.
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::read(format!("/proc/{pid}/status"))
    }

    fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let status = std::fs::read_to_string(path)?;
        Self::parse(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no CapBnd line"))
    }

    /// Reads the `CapBnd` line of a `/proc/<pid>/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether the capability with this number is in the set.
    pub fn has(self, number: u32) -> bool {
        self.0.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
    }

    /// Whether a process with this set can make no privileged container by an unaided runtime.
    pub fn is_restricted(self) -> bool {
        !self.has(SYS_RESOURCE)
    }

    /// Whether the capability named `name` may be asked for. A name that is not in the table is not judged: what the
    /// kernel knows of it, the runtime finds out.
    pub fn may_ask_for(self, name: &str) -> bool {
        match NAMES.iter().zip(0..).find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, number)) => self.has(number),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_is_not_restricted() {
        let full = Bounding::parse("Name:\tsh\nCapBnd:\t000001ffffffffff\n").unwrap();
        assert!(!full.is_restricted());
        assert!(NAMES.iter().all(|name| full.may_ask_for(name)));
    }

    #[test]
    fn a_set_without_sys_resource_is_restricted() {
        let set = Bounding::parse("CapEff:\t000001ffffffffff\nCapBnd:\t000001fffeffffff\n").unwrap();
        assert!(set.is_restricted());
        assert!(!set.may_ask_for("CAP_SYS_RESOURCE"));
        assert_eq!(NAMES.iter().filter(|name| !set.may_ask_for(name)).count(), 1);
    }

    #[test]
    fn names_have_the_kernels_numbers() {
        for (number, name) in [(0, "CAP_CHOWN"), (12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")] {
            assert!(Bounding(1 << number).may_ask_for(name), "{name} is {number}");
            assert!(!Bounding(!(1 << number)).may_ask_for(name), "{name} is {number}");
        }
    }

    #[test]
    fn an_unknown_name_is_left_alone() {
        assert!(Bounding(0).may_ask_for("CAP_OF_THE_FUTURE"));
    }

    #[test]
    fn a_status_without_the_line_is_no_answer() {
        assert_eq!(Bounding::parse("Name:\tsh\n"), None);
        assert!(!Bounding(u64::MAX).has(64));
    }
}
