//! The conformance suite of [`PolicyEnforcer`].

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::super::check::{Checked, Failure, ensure, refused, same};
use crate::network::{
    Cidr, EndpointPolicy, NetworkError, Peer, PolicyEnforcer, PortRange, Protocol, Rule, Traffic,
};
use crate::runtime::SandboxId;

/// Tries connections between sandboxes, for the suite. Whoever runs it against a real network listens at the ports in the sandboxes and
/// connects from within them.
#[async_trait]
pub trait Connects: Send + Sync {
    /// A sandbox of this node, with its address, that was not given out before.
    async fn sandbox(&self) -> (SandboxId, IpAddr);

    /// Whether a connection from a sandbox to a port of another one comes about. Something listens there.
    async fn connects(&self, from: &SandboxId, to: IpAddr, protocol: Protocol, port: u16) -> bool;
}

type Check = for<'a> fn(&'a Lab) -> BoxFuture<'a, Checked>;

/// Runs the whole suite of [`PolicyEnforcer`]. `make` gives, for every check, an enforcer with no policies in force and a way to try
/// connections over its network.
///
/// # Panics
/// When a check fails, with its name and what was wrong.
pub async fn policy<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = (Arc<dyn PolicyEnforcer>, Arc<dyn Connects>)>,
{
    let checks: [(&str, Check); 7] = [
        ("open_without_policies", |lab| Box::pin(open(lab))),
        ("closed_by_no_rules", |lab| Box::pin(closed(lab))),
        ("peers_and_exceptions", |lab| Box::pin(peers(lab))),
        ("ports_and_protocols", |lab| Box::pin(ports(lab))),
        ("both_sides_must_agree", |lab| Box::pin(both_sides(lab))),
        ("the_whole_is_replaced", |lab| Box::pin(replaced(lab))),
        ("a_sandbox_named_twice", |lab| Box::pin(twice(lab))),
    ];
    for (name, check) in checks {
        let (enforcer, net) = make().await;
        let (a, b) = (net.sandbox().await, net.sandbox().await);
        let c = net.sandbox().await;
        let lab = Lab {
            enforcer,
            net,
            a,
            b,
            c,
        };
        let checked = check(&lab).await;
        let cleared = lab.enforcer.apply(&[]).await.map_err(Failure::from);
        if let Err(Failure(why)) = checked.and(cleared) {
            panic!("conformance check `policy::{name}` failed: {why}");
        }
    }
}

type End = (SandboxId, IpAddr);

/// Three sandboxes.
struct Lab {
    enforcer: Arc<dyn PolicyEnforcer>,
    net: Arc<dyn Connects>,
    a: End,
    b: End,
    c: End,
}

impl Lab {
    async fn tcp(&self, from: &End, to: &End) -> bool {
        self.net.connects(&from.0, to.1, Protocol::Tcp, 8080).await
    }

    async fn apply(&self, policies: &[EndpointPolicy]) -> Checked {
        Ok(self.enforcer.apply(policies).await?)
    }
}

/// The policy of a sandbox.
fn only(end: &End, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> EndpointPolicy {
    EndpointPolicy {
        sandbox: end.0.clone(),
        addresses: vec![end.1],
        ingress: ingress.map_or(Traffic::Open, Traffic::Only),
        egress: egress.map_or(Traffic::Open, Traffic::Only),
    }
}

fn with(peers: Vec<Peer>) -> Rule {
    Rule {
        peers: Some(peers),
        ports: None,
    }
}

async fn open(lab: &Lab) -> Checked {
    lab.enforcer.status().await?;
    for policies in [vec![], vec![only(&lab.a, None, None)]] {
        lab.apply(&policies).await?;
        for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a), (&lab.c, &lab.a)] {
            ensure(lab.tcp(from, to).await, "what no policy forbids is closed")?;
        }
    }
    Ok(())
}

async fn closed(lab: &Lab) -> Checked {
    lab.apply(&[only(&lab.b, Some(vec![]), None)]).await?;
    ensure(!lab.tcp(&lab.a, &lab.b).await, "ingress is open")?;
    ensure(lab.tcp(&lab.b, &lab.a).await, "egress is closed, too")?;
    ensure(lab.tcp(&lab.b, &lab.b).await, "it does not reach itself")?;
    lab.apply(&[only(&lab.b, None, Some(vec![]))]).await?;
    ensure(lab.tcp(&lab.a, &lab.b).await, "ingress is closed, too")?;
    ensure(!lab.tcp(&lab.b, &lab.a).await, "egress is open")?;
    ensure(lab.tcp(&lab.b, &lab.b).await, "it does not reach itself")
}

async fn peers(lab: &Lab) -> Checked {
    let ingress = vec![with(vec![Peer::host(lab.a.1)])];
    lab.apply(&[only(&lab.b, Some(ingress), None)]).await?;
    ensure(lab.tcp(&lab.a, &lab.b).await, "a peer is kept out")?;
    ensure(!lab.tcp(&lab.c, &lab.b).await, "another one is let in")?;

    let all: Result<Cidr, _> = if lab.a.1.is_ipv4() {
        "0.0.0.0/0".parse()
    } else {
        "::/0".parse()
    };
    let but = Peer {
        network: all?,
        except: vec![Cidr::host(lab.a.1)],
    };
    lab.apply(&[only(&lab.b, Some(vec![with(vec![but])]), None)])
        .await?;
    ensure(!lab.tcp(&lab.a, &lab.b).await, "an exception is let in")?;
    ensure(lab.tcp(&lab.c, &lab.b).await, "another one is kept out")?;

    // One rule is enough.
    let rules = vec![
        with(vec![Peer::host(lab.a.1)]),
        with(vec![Peer::host(lab.c.1)]),
    ];
    lab.apply(&[only(&lab.b, Some(rules), None)]).await?;
    ensure(
        lab.tcp(&lab.a, &lab.b).await && lab.tcp(&lab.c, &lab.b).await,
        "of two rules only one is heeded",
    )
}

async fn ports(lab: &Lab) -> Checked {
    let rule = Rule {
        peers: None,
        ports: Some(vec![
            PortRange {
                protocol: Protocol::Tcp,
                first: 8000,
                last: 8080,
            },
            PortRange::port(Protocol::Udp, 53),
        ]),
    };
    lab.apply(&[only(&lab.b, Some(vec![rule]), None)]).await?;
    for (protocol, port, wanted) in [
        (Protocol::Tcp, 8000, true),
        (Protocol::Tcp, 8080, true),
        (Protocol::Tcp, 8081, false),
        (Protocol::Udp, 8080, false),
        (Protocol::Udp, 53, true),
        (Protocol::Tcp, 53, false),
    ] {
        let got = lab.net.connects(&lab.a.0, lab.b.1, protocol, port).await;
        same(got, wanted, &format!("{protocol:?} to port {port}"))?;
    }
    Ok(())
}

async fn both_sides(lab: &Lab) -> Checked {
    let to_b = only(&lab.a, None, Some(vec![with(vec![Peer::host(lab.b.1)])]));
    let from_a = only(&lab.b, Some(vec![with(vec![Peer::host(lab.a.1)])]), None);
    let from_nobody = only(&lab.b, Some(vec![]), None);
    let to_nobody = only(&lab.a, None, Some(vec![]));
    lab.apply(&[to_b.clone(), from_a.clone()]).await?;
    ensure(
        lab.tcp(&lab.a, &lab.b).await,
        "both agree, and yet it is closed",
    )?;
    lab.apply(&[to_b, from_nobody]).await?;
    ensure(!lab.tcp(&lab.a, &lab.b).await, "the receiver is not asked")?;
    lab.apply(&[to_nobody, from_a]).await?;
    ensure(!lab.tcp(&lab.a, &lab.b).await, "the sender is not asked")
}

async fn replaced(lab: &Lab) -> Checked {
    lab.apply(&[only(&lab.b, Some(vec![]), None)]).await?;
    lab.apply(&[only(&lab.c, Some(vec![]), None)]).await?;
    ensure(
        lab.tcp(&lab.a, &lab.b).await,
        "an old policy is still in force",
    )?;
    ensure(!lab.tcp(&lab.a, &lab.c).await, "the new one is not")?;
    lab.apply(&[]).await?;
    ensure(lab.tcp(&lab.a, &lab.c).await, "a policy survived them all")
}

async fn twice(lab: &Lab) -> Checked {
    lab.apply(&[only(&lab.b, Some(vec![]), None)]).await?;
    let policies = [only(&lab.a, None, None), only(&lab.a, Some(vec![]), None)];
    refused(
        lab.enforcer.apply(&policies).await,
        |error| matches!(error, NetworkError::InvalidRequest(_)),
        "a sandbox that is named twice",
    )?;
    ensure(
        !lab.tcp(&lab.a, &lab.b).await,
        "the old policies are gone although the new ones were refused",
    )
}
