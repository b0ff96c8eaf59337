//! Tracked connections whose endpoint is gone.
//!
//! A connection that the kernel tracks keeps its endpoint. TCP notices when that is gone; a UDP client that sends again and again from
//! the same port never does. So flows to a Service that do not lead to one of its endpoints are deleted: those of endpoints that went, and
//! those that began while the Service had none, or no rules yet, and lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::Error;
use crate::config::Family;
use crate::exec::Exec;

const LIMIT: Duration = Duration::from_secs(30);
/// How many kinds of flows are deleted at one time. More are found the next time.
const MOST: usize = 1000;

/// Where flows may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// By a Service's address and port, the endpoints that serve. None at all: the Service is gone.
    pub(crate) addresses: BTreeMap<(IpAddr, u16), BTreeSet<IpAddr>>,
    /// By a port of the node.
    pub(crate) node_ports: BTreeMap<u16, BTreeSet<IpAddr>>,
    /// The node's addresses, to know traffic to its ports by; any if empty.
    pub(crate) node_ips: Vec<IpAddr>,
}

impl Allowed {
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether a flow leads where it must not.
    fn forbids(&self, flow: &Flow) -> bool {
        let at = (flow.destination, flow.port);
        if let Some(endpoints) = self.addresses.get(&at) {
            return !endpoints.contains(&flow.answers);
        }
        let to_node = self.node_ips.is_empty() || self.node_ips.contains(&flow.destination);
        let endpoints = self.node_ports.get(&flow.port).filter(|_| to_node);
        endpoints.is_some_and(|endpoints| !endpoints.contains(&flow.answers))
    }
}

/// Where a flow was sent to, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    destination: IpAddr,
    port: u16,
    answers: IpAddr,
}

/// Looks after tracked connections.
#[derive(Debug)]
pub(crate) struct Conntrack {
    exec: Exec,
    program: String,
    missing: bool,
}

impl Conntrack {
    pub(crate) fn new(exec: Exec, program: String) -> Self {
        Self {
            exec,
            program,
            missing: false,
        }
    }

    /// Deletes UDP flows to these Services that lead elsewhere. Returns how many kinds of them there were.
    pub(crate) async fn reconcile(&mut self, family: Family, allowed: &Allowed) -> u64 {
        if self.missing || allowed.is_empty() {
            return 0;
        }
        let stale = match self.stale(family, allowed).await {
            Ok(stale) => stale,
            Err(error) => {
                let absent = match &error {
                    Error::Program { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
                    // What stands before the command could not run it.
                    Error::Refused { message, .. } => message.contains("exec of"),
                    _ => false,
                };
                if absent {
                    // Said once.
                    self.missing = true;
                    tracing::warn!(program = %self.program, "not there: UDP clients may keep sending to endpoints that are gone");
                } else {
                    tracing::warn!(%error, "cannot list tracked connections");
                }
                return 0;
            }
        };
        let mut deleted = 0;
        for flow in stale {
            let (destination, answers) = (flow.destination.to_string(), flow.answers.to_string());
            let port = flow.port.to_string();
            #[rustfmt::skip]
            let arguments = [
                "-D", "-f", word(family), "-p", "udp", "--orig-dst", &destination, "--orig-port-dst", &port,
                "--reply-src", &answers,
            ];
            match self
                .exec
                .run(&self.program, &arguments, "", 16 << 20, LIMIT)
                .await
            {
                Ok(_) => deleted += 1,
                // It has ended by itself.
                Err(Error::Refused { message, .. }) if message.contains("0 flow entries") => {}
                Err(error) => tracing::warn!(%error, ?flow, "cannot delete tracked connections"),
            }
        }
        deleted
    }

    async fn stale(&self, family: Family, allowed: &Allowed) -> Result<BTreeSet<Flow>, Error> {
        let mut stale = BTreeSet::new();
        let arguments = ["-L", "-f", word(family), "-p", "udp"];
        let mut each = |line: &str| {
            let flow = parse(line).filter(|flow| allowed.forbids(flow));
            if stale.len() < MOST {
                stale.extend(flow);
            }
        };
        self.exec
            .lines(&self.program, &arguments, LIMIT, &mut each)
            .await?;
        Ok(stale)
    }
}

const fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Reads a line such as `udp 17 29 src=10.0.0.1 dst=10.96.0.10 sport=1 dport=53 src=10.244.0.5 dst=10.0.0.1 sport=53 dport=1 use=1`: the
/// way there, then the way back.
fn parse(line: &str) -> Option<Flow> {
    let mut words = line.split_whitespace();
    if words.next() != Some("udp") {
        return None;
    }
    let mut value = |name: &str| words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Some(Flow {
        destination: value("dst")?.parse().ok()?,
        port: value("dport")?.parse().ok()?,
        answers: value("src")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn lines_are_read() {
        let line = "udp      17 29 src=10.0.0.1 dst=10.96.0.10 sport=4000 dport=53 [UNREPLIED] src=10.244.0.5 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1";
        let flow = Flow {
            destination: ip("10.96.0.10"),
            port: 53,
            answers: ip("10.244.0.5"),
        };
        assert_eq!(parse(line), Some(flow));
        assert_eq!(
            parse("tcp 6 29 src=1.1.1.1 dst=1.1.1.2 sport=1 dport=2 src=1.1.1.2 dst=1.1.1.1"),
            None
        );
        assert_eq!(parse("udp 17 29 src=10.0.0.1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn flows_to_services_must_lead_to_their_endpoints() {
        let endpoints = BTreeSet::from([ip("10.244.0.5")]);
        let allowed = Allowed {
            addresses: BTreeMap::from([
                ((ip("10.96.0.10"), 53), endpoints.clone()),
                ((ip("10.96.0.11"), 53), BTreeSet::new()),
            ]),
            node_ports: BTreeMap::from([(30053, endpoints)]),
            node_ips: vec![ip("192.0.2.1")],
        };
        for (destination, port, answers, forbidden) in [
            ("10.96.0.10", 53, "10.244.0.5", false),
            ("10.96.0.10", 53, "10.244.0.6", true),
            // It began when there were no endpoints.
            ("10.96.0.10", 53, "10.96.0.10", true),
            ("10.96.0.10", 54, "10.244.0.6", false),
            ("10.96.0.11", 53, "10.244.0.5", true),
            ("192.0.2.1", 30053, "10.244.0.5", false),
            ("192.0.2.1", 30053, "192.0.2.1", true),
            // Somebody else's port of that number.
            ("198.51.100.1", 30053, "198.51.100.1", false),
        ] {
            let flow = Flow {
                destination: ip(destination),
                port,
                answers: ip(answers),
            };
            assert_eq!(allowed.forbids(&flow), forbidden, "{flow:?}");
        }
    }
}
