//! Which names and addresses the nodes of one cluster have on this machine.
//!
//! Several clusters may be on one machine, and a cluster finds its nodes again after a restart: so the names come from the cluster's
//! directory, the addresses are looked for once, where nobody else's are, and both are written down.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use orlop::core::network::Cidr;
use serde::{Deserialize, Serialize};

use super::namespace::{Namespace, run};
use crate::cli::Failure;

/// The file in the cluster's directory.
const FILE: &str = "nodes/network.json";

/// Where clusters have what is gone after a restart of the machine, each in a directory of its name.
const RUN: &str = "/run/orlop";
/// The file in such a directory that tells the other clusters which addresses are taken.
const CLAIM: &str = "network.json";

/// The names and addresses of a cluster's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    /// Six letters by which this cluster's interfaces, namespaces and directories are told from another's.
    pub(super) id: String,
    /// The third number of the nodes' network, `172.31.N.0/24`.
    network: u8,
    /// The second number of the pods' network, `10.N.0.0/16`.
    pods: u8,
}

impl Layout {
    /// What was written down for a cluster, or what is free now, which is written down.
    pub(super) fn load_or_choose(directory: &Path) -> Result<Self, Failure> {
        // Between looking and taking nobody else may look.
        let _turn = turn()?;
        if let Some(known) = Self::load(directory)? {
            known.claim()?;
            return Ok(known);
        }
        let mut taken = taken(&run("ip", &["-4", "-o", "route", "show", "table", "all"])?);
        for other in claimed() {
            // There are no routes to its pods before its nodes have their ranges.
            taken.extend([other.nodes(), other.pods()]);
        }
        let id = id(directory);
        // Where to begin looking differs, so that two clusters that start at once rarely take the same.
        let begin = u8::from_str_radix(&id[..2], 16).unwrap_or_default();
        let free = |network: &dyn Fn(u8) -> Cidr, first: u8| {
            let mut candidates = (0..=255u8).map(|step| first.wrapping_add(step));
            candidates.find(|number| {
                let candidate = network(*number);
                !taken.iter().any(|other| {
                    other.contains(candidate.address()) || candidate.contains(other.address())
                })
            })
        };
        let none = || Failure::new("no network is free for nodes and pods on this machine");
        let layout = Self {
            network: free(&|number| nodes_network(number), begin).ok_or_else(none)?,
            pods: free(
                &|number| pods_network(number),
                if taken.is_empty() {
                    244
                } else {
                    244u8.wrapping_add(begin % 8)
                },
            )
            .ok_or_else(none)?,
            id,
        };
        let path = directory.join(FILE);
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&path, serde_json::to_vec_pretty(&layout)?));
        written
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        layout.claim()?;
        Ok(layout)
    }

    /// Tells the other clusters on this machine.
    fn claim(&self) -> Result<(), Failure> {
        let path = self.run().join(CLAIM);
        std::fs::create_dir_all(self.run())
            .and_then(|()| std::fs::write(&path, serde_json::to_vec(self)?))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// What was written down for a cluster.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>, Failure> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        }
    }

    /// Forgets what was written down.
    pub(super) fn forget(directory: &Path) {
        let _ = std::fs::remove_file(directory.join(FILE));
    }

    /// The bridge that the nodes are connected by.
    pub(super) fn bridge(&self) -> String {
        format!("orl-{}", self.id)
    }

    /// The address of this machine on the bridge.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, self.network, 254)
    }

    /// The network of the nodes.
    pub(super) fn nodes(&self) -> Cidr {
        nodes_network(self.network)
    }

    /// The network of all pods.
    pub(super) fn pods(&self) -> Cidr {
        pods_network(self.pods)
    }

    /// An address behind all pods.
    pub(super) fn beyond_pods(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.pods.wrapping_add(1), 0, 0)
    }

    /// One of the nodes, by its number, from one.
    pub(super) fn node(&self, number: u8) -> NodeLayout {
        NodeLayout {
            name: format!("node-{number}"),
            namespace: Namespace::new(format!("orlop-{}-{number}", self.id)),
            address: Ipv4Addr::new(172, 31, self.network, number),
            outside: format!("orl{}n{number}", self.id),
            run: self.run().join(format!("node-{number}")),
            cgroup: format!("/orlop-{}/node-{number}", self.id),
        }
    }

    /// The directory of what is gone after a restart of the machine.
    pub(super) fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.id)
    }

    /// The cgroup of all nodes.
    pub(super) fn cgroup(&self) -> String {
        cgroup(&self.id)
    }
}

/// The names and the address of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeLayout {
    /// The Node's name.
    pub(super) name: String,
    /// Its network.
    pub(super) namespace: Namespace,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// The end of its cable that is on the bridge.
    pub(super) outside: String,
    /// The directory of what is gone after a restart of the machine. Short, because the path of a socket must be.
    pub(super) run: PathBuf,
    /// The cgroup of its pods.
    pub(super) cgroup: String,
}

impl NodeLayout {
    /// The engine's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// Where it keeps what stays.
    pub(super) fn directory(&self, cluster: &Path) -> PathBuf {
        cluster.join("nodes").join(&self.name)
    }
}

/// Waits until no other process chooses addresses. It is this one's turn for as long as the file is open.
fn turn() -> Result<File, Failure> {
    let path = Path::new(RUN).join("lock");
    let show =
        |error: std::io::Error| Failure::new(format!("cannot lock {}: {error}", path.display()));
    std::fs::create_dir_all(RUN).map_err(show)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(show)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| show(error.into()))?;
    Ok(file)
}

/// The layouts of the clusters on this machine.
fn claimed() -> Vec<Layout> {
    let directories = std::fs::read_dir(RUN).into_iter().flatten().flatten();
    directories
        .filter_map(|entry| {
            let bytes = std::fs::read(entry.path().join(CLAIM)).ok()?;
            serde_json::from_slice(&bytes).ok()
        })
        .collect()
}

fn network(a: u8, b: u8, c: u8, prefix: u8) -> Cidr {
    let text = format!("{a}.{b}.{c}.0/{prefix}");
    match text.parse() {
        Ok(cidr) => cidr,
        Err(_) => unreachable!("{text} is a network"),
    }
}

fn nodes_network(number: u8) -> Cidr {
    network(172, 31, number, 24)
}

fn pods_network(number: u8) -> Cidr {
    network(10, number, 0, 16)
}

/// The networks that this machine has routes to, as `ip -o route` shows them, and the range of Services.
fn taken(routes: &str) -> Vec<Cidr> {
    let destination = |line: &str| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let kinds = [
            "local",
            "broadcast",
            "unreachable",
            "blackhole",
            "unicast",
            "prohibit",
        ];
        let word = if kinds.contains(&first) {
            words.next()?
        } else {
            first
        };
        let text = if word.contains('/') {
            word.to_owned()
        } else {
            format!("{word}/32")
        };
        text.parse().ok()
    };
    let services = network(10, 96, 0, 12);
    routes
        .lines()
        .filter_map(destination)
        .chain([services])
        .collect()
}

/// The cgroup of all nodes of a cluster.
pub(super) fn cgroup(id: &str) -> String {
    format!("/orlop-{id}")
}

/// Six letters that stand for a directory.
pub(super) fn id(directory: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let digest = ring::digest::digest(&ring::digest::SHA256, directory.as_os_str().as_bytes());
    let bytes = &digest.as_ref()[..3];
    format!("{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let taken = taken(
            "default via 172.20.0.1 dev eth0\n10.244.0.0/24 dev cni0 scope link\nlocal 172.31.7.254 dev x table local\nbroadcast 10.9.0.255 dev y\n",
        );
        let texts: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "10.244.0.0/24",
                "172.31.7.254/32",
                "10.9.0.255/32",
                "10.96.0.0/12"
            ]
        );
    }

    #[test]
    fn names_fit_into_an_interface() {
        let layout = Layout {
            id: "abcdef".to_owned(),
            network: 3,
            pods: 244,
        };
        assert!(layout.bridge().len() <= 15);
        let node = layout.node(250);
        assert!(node.outside.len() <= 15, "{}", node.outside);
        assert_eq!(node.address.to_string(), "172.31.3.250");
        assert!(layout.nodes().contains(node.address.into()));
        assert_eq!(layout.pods().to_string(), "10.244.0.0/16");
        assert!(node.socket().as_os_str().len() < 100);
    }

    #[test]
    fn directories_have_different_names() {
        assert_ne!(id(Path::new("/a")), id(Path::new("/b")));
        assert_eq!(id(Path::new("/a")).len(), 6);
    }
}
