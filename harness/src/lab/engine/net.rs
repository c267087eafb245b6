//! The private engine's network: a bridge of its own, address pool of its own, and four firewall rules of its own.
//!
//! The engine runs with `iptables` off. An engine that manages the firewall empties the chains `DOCKER` and
//! `DOCKER-ISOLATION-*` when it starts, and with them the rules of any other engine on the machine.

use std::{
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use super::EngineError;
use crate::{
    cmd::Cmd,
    run::{
        events::Step,
        poll::{Look, WaitError, poll},
    },
};

/// Keeps other engines of this machine from choosing a pool for as long as it lives. There is nothing of ours outside the cache
/// folder, so what is locked is the list of network devices.
pub async fn lock(step: &Step) -> Result<File, EngineError> {
    let path = Path::new("/sys/class/net");
    let failed = |source| EngineError::Io { doing: "lock".into(), path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    poll(step, "another engine's choice of a network", LOCK_LIMIT, Duration::from_millis(20), || {
        let locked = file.try_lock();
        async move {
            match locked {
                Ok(()) => Ok(Look::Ready(())),
                Err(TryLockError::WouldBlock) => Ok(Look::NotYet("it is held".to_owned())),
                Err(TryLockError::Error(source)) => Err(failed(source)),
            }
        }
    })
    .await
    .map_err(|error| match error {
        WaitError::Failed(error) => error,
        timed_out => failed(std::io::Error::other(timed_out.to_string())),
    })?;
    Ok(file)
}

/// Making a bridge and four rules takes a fraction of a second.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// A network's address and its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subnet {
    address: u32,
    prefix: u32,
}

impl Subnet {
    fn mask(prefix: u32) -> u32 {
        u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.address & mask == other.address & mask
    }
}

/// The names and addresses of one private engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// The bridge that containers without a network of their own attach to.
    pub bridge: String,
    /// The second byte of the pool `10.N.0.0/16`.
    second: u8,
}

impl Net {
    /// The network of an engine that has run before, with the pool that it had.
    pub fn known(tag: &str, pool: &str) -> Option<Self> {
        second_byte(pool).map(|second| Self { bridge: format!("dd-{tag}"), second })
    }

    /// A pool that overlaps no route of this machine but our own, tried from one that `tag` (hex digits) leads to. `before` is
    /// the pool of an earlier start, kept unless somebody else has it by now, since networks on the engine's disk have
    /// addresses of it. Until [`Net::up`] nobody else sees that it is taken: see [`lock`].
    pub fn choose(tag: &str, before: Option<&str>) -> Result<Self, EngineError> {
        let routes = std::fs::read_to_string("/proc/net/route").map_err(|source| EngineError::Io {
            doing: "read".into(),
            path: "/proc/net/route".into(),
            source,
        })?;
        Self::choose_beside(tag, before, &routes)
    }

    fn choose_beside(tag: &str, before: Option<&str>, routes: &str) -> Result<Self, EngineError> {
        let bridge = format!("dd-{tag}");
        let taken = taken(routes, &bridge);
        let free = |second: &u8| {
            let pool = Subnet { address: 10 << 24 | u32::from(*second) << 16, prefix: 16 };
            !taken.iter().any(|route| route.overlaps(pool))
        };
        let seed = u32::from_str_radix(tag, 16).unwrap_or(0);
        match before.and_then(second_byte).filter(free).or_else(|| pick(seed, &taken)) {
            Some(second) => Ok(Self { bridge, second }),
            None => Err(EngineError::NoSubnet),
        }
    }

    /// The networks of a pool, without the bridge's, each with the name of its own bridge.
    pub fn subnets(tag: &str, pool: &str) -> Option<Vec<(String, String)>> {
        let second = second_byte(pool)?;
        Some((1..=254).map(|third| (format!("dd-{tag}-{third}"), format!("10.{second}.{third}.0/24"))).collect())
    }

    /// The pool that networks are taken from.
    pub fn pool(&self) -> String {
        format!("10.{}.0.0/16", self.second)
    }

    fn bridge_address(&self) -> String {
        format!("10.{}.0.1/24", self.second)
    }

    /// Makes bridge and rules. Those that are there already, say after a kill, are taken over.
    pub async fn up(&self) -> Result<(), EngineError> {
        if !Path::new("/sys/class/net").join(&self.bridge).exists() {
            ip(&["link", "add", &self.bridge, "type", "bridge"]).await?;
        }
        ip(&["addr", "replace", &self.bridge_address(), "dev", &self.bridge]).await?;
        ip(&["link", "set", &self.bridge, "up"]).await?;
        for (table, rule) in self.rules() {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            if iptables(table, "-C", &rule).run().await.is_err() {
                iptables(table, "-I", &rule).run().await?;
            }
        }
        Ok(())
    }

    /// Removes bridge and rules; what is gone already is no error.
    pub async fn down(&self) -> Result<(), EngineError> {
        for (table, rule) in self.rules() {
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            while iptables(table, "-C", &rule).run().await.is_ok() {
                iptables(table, "-D", &rule).run().await?;
            }
        }
        if Path::new("/sys/class/net").join(&self.bridge).exists() {
            ip(&["link", "delete", &self.bridge]).await?;
        }
        Ok(())
    }

    /// Out by the machine's own address, back in only what was asked for, and traffic between our own containers, also by
    /// addresses that are theirs alone: pods on two nodes talk by pod addresses.
    fn rules(&self) -> [(&'static str, Vec<String>); 4] {
        let pool = self.pool();
        let comment = format!("drydock private engine {}", self.bridge);
        let rule = |chain: &str, words: &[&str], then: &str| -> Vec<String> {
            let words = [&[chain], words, &["-m", "comment", "--comment", &comment, "-j", then]].concat();
            words.into_iter().map(str::to_owned).collect()
        };
        let bridges = format!("{}+", self.bridge);
        let answers = ["-d", &pool, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"];
        [
            ("nat", rule("POSTROUTING", &["-s", &pool, "!", "-d", &pool], "MASQUERADE")),
            ("filter", rule("FORWARD", &["-s", &pool], "ACCEPT")),
            ("filter", rule("FORWARD", &answers, "ACCEPT")),
            ("filter", rule("FORWARD", &["-i", &bridges, "-o", &bridges], "ACCEPT")),
        ]
    }
}

fn second_byte(pool: &str) -> Option<u8> {
    pool.trim().strip_prefix("10.")?.strip_suffix(".0.0/16")?.parse().ok()
}

async fn ip(args: &[&str]) -> Result<(), EngineError> {
    Cmd::new(program("ip")).args(args).run().await?;
    Ok(())
}

fn iptables(table: &str, action: &str, rule: &[&str]) -> Cmd {
    Cmd::new(program("iptables")).args(["-w", "30", "-t", table, action]).args(rule)
}

fn program(name: &str) -> std::path::PathBuf {
    super::programs::find(name).unwrap_or_else(|| name.into())
}

/// The networks of a `/proc/net/route`, without the default route and those of bridges whose names begin with `own`.
fn taken(routes: &str, own: &str) -> Vec<Subnet> {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::swap_bytes);
    routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.first()?.starts_with(own) {
                return None;
            }
            let (address, mask) = (hex(fields.get(1)?)?, hex(fields.get(7)?)?);
            (mask != 0).then_some(Subnet { address, prefix: mask.count_ones() })
        })
        .collect()
}

/// Between 10.200 and 10.239: neither where Docker (172.16/12, 192.168/16) takes its own from, nor the usual service
/// (10.96) and pod (10.244) networks.
fn pick(seed: u32, taken: &[Subnet]) -> Option<u8> {
    const FIRST: u32 = 200;
    const COUNT: u32 = 40;
    (0..COUNT).map(|step| FIRST + (seed % COUNT + step) % COUNT).find_map(|second| {
        let subnet = Subnet { address: 10 << 24 | second << 16, prefix: 16 };
        if taken.iter().any(|route| route.overlaps(subnet)) { None } else { u8::try_from(second).ok() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        tun0\t0001CA0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn routes_are_read_and_the_default_route_takes_nothing() {
        assert_eq!(
            taken(ROUTES, "dd-00"),
            [Subnet { address: 0xAC11_0000, prefix: 16 }, Subnet { address: 0x0ACA_0100, prefix: 24 }]
        );
    }

    #[test]
    fn a_pool_in_use_is_stepped_over() {
        assert_eq!(pick(1, &[]), Some(201));
        assert_eq!(pick(2, &taken(ROUTES, "dd-00")), Some(203));
        assert_eq!(pick(39, &[]), Some(239));
        let all = [Subnet { address: 10 << 24, prefix: 8 }];
        assert_eq!(pick(5, &all), None);
    }

    #[test]
    fn an_earlier_pool_is_given_up_only_for_another_s() {
        let choose = |before: &str, routes: &str| Net::choose_beside("00000011", Some(before), routes).unwrap().pool();
        // tun0 of the routes has 10.202.1.0/24.
        assert_eq!(choose("10.202.0.0/16", ROUTES), "10.217.0.0/16");
        let own = ROUTES.replace("tun0", "dd-00000011");
        assert_eq!(choose("10.202.0.0/16", &own), "10.202.0.0/16", "what a kill has left is our own");
    }

    #[test]
    fn an_earlier_pool_is_kept() {
        let net = Net::choose_beside("0000002a", Some("10.217.0.0/16"), ROUTES).unwrap();
        assert_eq!(Net::known("0000002a", "10.217.0.0/16"), Some(net.clone()));
        assert_eq!((net.bridge.as_str(), net.pool().as_str()), ("dd-0000002a", "10.217.0.0/16"));
        for (bridge, _) in Net::subnets("0000002a", "10.217.0.0/16").unwrap() {
            assert!(bridge.starts_with(&net.bridge), "the firewall knows {bridge} by its beginning");
            assert!(bridge.len() < 16, "interface names have at most 15 characters: {bridge}");
        }
    }
}
