//! The conformance suites of [`NetworkPlugin`] and [`PolicyEnforcer`](crate::network::PolicyEnforcer).
//!
//! ```no_run
//! # #[derive(Clone)] struct MyNetwork;
//! # impl MyNetwork { fn plugin(&self) -> std::sync::Arc<dyn orlop_core::network::NetworkPlugin> { unreachable!("documentation") } }
//! # async fn namespace(name: String) -> std::path::PathBuf { unreachable!("{name}") }
//! use orlop_core::conformance::network::{Subject, network};
//!
//! # async fn test(mine: MyNetwork) {
//! // `namespace` makes a network namespace of that name and returns its path.
//! network(|| async { Subject::new(mine.plugin(), |name| Box::pin(namespace(name))) }).await;
//! # }
//! ```

mod policy;

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::policy::{Connects, policy};
use super::check::{Checked, Failure, checks, ensure, refused, same};
use crate::network::{Attachment, NetworkError, NetworkPlugin, SandboxNetwork};
use crate::runtime::SandboxId;

/// Makes a network namespace of a name, or finds it, and returns its path.
type MakeNamespace = Box<dyn Fn(String) -> BoxFuture<'static, PathBuf> + Send + Sync>;

/// A network to be tested.
pub struct Subject {
    plugin: Arc<dyn NetworkPlugin>,
    namespace: MakeNamespace,
    keep: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("keeps", &self.keep.is_some())
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// A network to which nothing is attached, and a way to make network namespaces.
    pub fn new(
        plugin: Arc<dyn NetworkPlugin>,
        namespace: impl Fn(String) -> BoxFuture<'static, PathBuf> + Send + Sync + 'static,
    ) -> Self {
        Self {
            plugin,
            namespace: Box::new(namespace),
            keep: None,
        }
    }

    /// Keeps something until the check has ended, such as the namespaces.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }
}

type Check = for<'a> fn(&'a Subject) -> BoxFuture<'a, Checked>;

/// Runs the whole suite of [`NetworkPlugin`]. `make` gives a network for every check, to which nothing is attached.
///
/// # Panics
/// When a check fails, with its name and what was wrong.
pub async fn network<F, Fut>(make: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    for (name, check) in attaching::CHECKS {
        let subject = make().await;
        if let Err(Failure(why)) = check(&subject).await {
            panic!("conformance check `network::{name}` failed: {why}");
        }
        if let Err(error) = subject.plugin.collect_garbage(&BTreeSet::new()).await {
            panic!("conformance check `network::{name}` left what cannot be collected: {error}");
        }
    }
}

impl Subject {
    /// A sandbox with a namespace of its own.
    async fn sandbox(&self, name: &str) -> SandboxNetwork {
        let id = format!("conformance-{name}");
        let mut sandbox = SandboxNetwork::new(
            SandboxId::new(id.clone()),
            (self.namespace)(id.clone()).await,
        );
        sandbox.namespace = "conformance".to_owned();
        sandbox.name = name.to_owned();
        sandbox.uid = id;
        sandbox
    }

    async fn attach(&self, sandbox: &SandboxNetwork) -> Checked<Attachment> {
        let attached = self.plugin.attach(sandbox).await?;
        ensure(
            !attached.addresses.is_empty(),
            "an attachment has no address",
        )?;
        Ok(attached)
    }
}

fn ips(attached: &Attachment) -> Vec<IpAddr> {
    attached.ips().collect()
}

mod attaching {
    use super::*;

    checks!(
        gives_an_interface_and_addresses,
        is_ready,
        gives_everyone_other_addresses,
        happens_once,
        is_taken_back,
        is_taken_back_though_the_namespace_is_gone,
        gives_what_is_requested,
        is_checked,
        leaves_no_garbage,
        many_at_once,
    );

    pub(super) async fn gives_an_interface_and_addresses(c: &Subject) -> Checked {
        let sandbox = c.sandbox("one").await;
        let attached = c.attach(&sandbox).await?;
        let mut inside = attached.interfaces.iter().filter(|i| i.inside);
        ensure(
            inside.any(|interface| interface.name == sandbox.interface),
            "there is no interface of the name that was asked for",
        )?;
        for address in &attached.addresses {
            let ip = address.address.address();
            ensure(
                !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast(),
                format_args!("{ip} was given"),
            )?;
            ensure(
                address.gateway != Some(ip),
                format_args!("{ip} is its own gateway"),
            )?;
        }
        Ok(c.plugin.detach(&sandbox).await?)
    }

    pub(super) async fn is_ready(c: &Subject) -> Checked {
        Ok(c.plugin.status().await?)
    }

    pub(super) async fn gives_everyone_other_addresses(c: &Subject) -> Checked {
        let mut seen = BTreeSet::new();
        let mut sandboxes = Vec::new();
        for n in 0..5 {
            let sandbox = c.sandbox(&format!("n{n}")).await;
            for ip in ips(&c.attach(&sandbox).await?) {
                ensure(seen.insert(ip), format_args!("{ip} was given twice"))?;
            }
            sandboxes.push(sandbox);
        }
        for sandbox in &sandboxes {
            c.plugin.detach(sandbox).await?;
        }
        Ok(())
    }

    pub(super) async fn happens_once(c: &Subject) -> Checked {
        let sandbox = c.sandbox("once").await;
        let attached = c.attach(&sandbox).await?;
        refused(
            c.plugin.attach(&sandbox).await,
            |error| matches!(error, NetworkError::AlreadyAttached(_)),
            "a second attachment of one interface",
        )?;
        // The first one is none the worse for it.
        c.plugin.check(&sandbox, &attached).await?;
        Ok(c.plugin.detach(&sandbox).await?)
    }

    pub(super) async fn is_taken_back(c: &Subject) -> Checked {
        let sandbox = c.sandbox("back").await;
        // What was never attached is taken back as well.
        c.plugin.detach(&sandbox).await?;
        for _ in 0..3 {
            c.attach(&sandbox).await?;
            c.plugin.detach(&sandbox).await?;
            c.plugin.detach(&sandbox).await?;
        }
        Ok(())
    }

    pub(super) async fn is_taken_back_though_the_namespace_is_gone(c: &Subject) -> Checked {
        let mut sandbox = c.sandbox("gone").await;
        let first = c.attach(&sandbox).await?;
        let netns = std::mem::replace(&mut sandbox.netns, PathBuf::from("/no/such/namespace"));
        c.plugin.detach(&sandbox).await?;
        // Its addresses can be given again.
        sandbox.netns = netns;
        sandbox.requested = ips(&first);
        match c.plugin.attach(&sandbox).await {
            Ok(again) => same(ips(&again), ips(&first), "the addresses")?,
            Err(NetworkError::Unsupported(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        Ok(c.plugin.detach(&sandbox).await?)
    }

    pub(super) async fn gives_what_is_requested(c: &Subject) -> Checked {
        let first = c.sandbox("first").await;
        let mut second = c.sandbox("second").await;
        second.requested = ips(&c.attach(&first).await?);
        let taken = c.plugin.attach(&second).await;
        if matches!(taken, Err(NetworkError::Unsupported(_))) {
            return Ok(c.plugin.detach(&first).await?);
        }
        refused(
            taken,
            |error| matches!(error, NetworkError::AddressNotAvailable(_)),
            "an address that is taken",
        )?;
        c.plugin.detach(&first).await?;
        let given = ips(&c.attach(&second).await?);
        same(
            given,
            second.requested.clone(),
            "the addresses that were requested",
        )?;
        c.plugin.detach(&second).await?;
        second.requested = vec![IpAddr::from([192, 0, 2, 77])];
        refused(
            c.plugin.attach(&second).await,
            |error| matches!(error, NetworkError::AddressNotAvailable(_)),
            "an address of another network",
        )?;
        // Nothing was left by the one that failed.
        second.requested.clear();
        c.attach(&second).await?;
        Ok(c.plugin.detach(&second).await?)
    }

    pub(super) async fn is_checked(c: &Subject) -> Checked {
        let sandbox = c.sandbox("checked").await;
        let attached = c.attach(&sandbox).await?;
        c.plugin.check(&sandbox, &attached).await?;
        c.plugin.detach(&sandbox).await?;
        // A plug-in that cannot look says yes. One that can must not say anything but this.
        match c.plugin.check(&sandbox, &attached).await {
            Ok(()) | Err(NetworkError::Broken { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn leaves_no_garbage(c: &Subject) -> Checked {
        let kept = c.sandbox("kept").await;
        let lost = c.sandbox("lost").await;
        let attached = c.attach(&kept).await?;
        c.attach(&lost).await?;
        let valid = BTreeSet::from([kept.key()]);
        let gone = c.plugin.collect_garbage(&valid).await?;
        ensure(!gone.contains(&kept.key()), "what is valid was collected")?;
        c.plugin.check(&kept, &attached).await?;
        // Where anything was collected, that was it: it can be attached anew.
        if !gone.is_empty() {
            same(gone, vec![lost.key()], "what was collected")?;
            c.attach(&lost).await?;
            same(
                c.plugin
                    .collect_garbage(&BTreeSet::from([kept.key(), lost.key()]))
                    .await?,
                Vec::new(),
                "what was collected when all was valid",
            )?;
        }
        c.plugin.detach(&lost).await?;
        Ok(c.plugin.detach(&kept).await?)
    }

    pub(super) async fn many_at_once(c: &Subject) -> Checked {
        let mut sandboxes = Vec::new();
        for n in 0..8 {
            sandboxes.push(c.sandbox(&format!("m{n}")).await);
        }
        let attached = futures::future::join_all(sandboxes.iter().map(|s| c.attach(s))).await;
        let mut seen = BTreeSet::new();
        for attached in attached {
            for ip in ips(&attached?) {
                ensure(seen.insert(ip), format_args!("{ip} was given twice"))?;
            }
        }
        let detached = futures::future::join_all(sandboxes.iter().map(|s| c.plugin.detach(s)));
        for detached in detached.await {
            detached?;
        }
        Ok(())
    }
}
