//! What a write of a Service gives it and takes back, and how that stands in the store.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use bytes::Bytes;
use orlop_api::{resources, strategy};
use orlop_core::revision::Revision;
use orlop_core::status::Status;
use orlop_core::store::{Compare, KeyRange, KeyValue, Op, Txn};
use serde_json::{Value, json};

use crate::cache::NODE_PORTS;
use crate::names::{IP_ADDRESSES, text_at};
use crate::registry::{Registry, keys, managed_fields, meta, storage_kind};
use crate::server::SERVER;

/// Who made the IPAddresses that are kept here, as Kubernetes labels them.
pub(super) const MANAGED_BY: &str = "ipallocator.k8s.io";

/// Something that one Service has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::registry) enum Lot {
    /// A cluster IP.
    Address(Ipv4Addr),
    /// A node port.
    Port(u16),
}

/// A Service by its namespace and name.
pub(super) type Holder = (String, String);

impl Lot {
    /// Where it stands in the store while somebody has it.
    pub(super) fn key(self) -> String {
        match self {
            Self::Address(ip) => keys::object(&IP_ADDRESSES, "", &ip.to_string()),
            Self::Port(port) => format!("{NODE_PORTS}{port}"),
        }
    }

    /// Whose it is by what stands there; `None` where it is no Service's.
    pub(super) fn holder(self, value: &[u8]) -> Option<Holder> {
        let document: Value = serde_json::from_slice(value).ok()?;
        let holder = match self {
            Self::Address(_) => document.pointer("/spec/parentRef")?,
            Self::Port(_) => &document,
        };
        (text_at(holder, "/resource") == "services").then(|| {
            let text = |field| text_at(holder, field).to_owned();
            (text("/namespace"), text("/name"))
        })
    }
}

/// A lot that a Service is given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) lot: Lot,
    /// What the client is told if somebody else has it: it asked for this one. Without, another one will do.
    pub(super) refusal: Option<Box<Status>>,
}

/// What a write of a Service gives it and takes back; nothing for any other kind.
#[derive(Debug, Default)]
#[must_use]
pub(in crate::registry) struct Claim {
    pub(super) service: Holder,
    pub(super) given: Vec<Given>,
    /// Each with the revision at which it stands.
    pub(super) released: Vec<(Lot, Revision)>,
}

impl Claim {
    /// An empty one.
    pub(super) fn of(service: &Value) -> Self {
        let text = |field| meta::text(service, field).to_owned();
        Self {
            service: (text("namespace"), text("name")),
            ..Self::default()
        }
    }

    pub(super) fn has(&self, lot: Lot) -> bool {
        self.given.iter().any(|given| given.lot == lot)
    }

    pub(super) fn give(&mut self, lot: Lot) {
        self.given.push(Given { lot, refusal: None });
    }

    pub(super) fn give_as_asked(&mut self, lot: Lot, refusal: Status) {
        self.given.push(Given {
            lot,
            refusal: Some(Box::new(refusal)),
        });
    }

    /// What stopped a transaction that the claim was added to, by what stands at the keys of its conditions: those of the claim come last. The
    /// refusal of a lot that was asked for; else the others' lots are taken note of.
    pub(in crate::registry) fn lost(
        &self,
        current: &[Option<KeyValue>],
        tried: &mut BTreeSet<Lot>,
    ) -> Result<(), Status> {
        let own = self.given.len() + self.released.len();
        let start = current.len().saturating_sub(own);
        for (given, stands) in self.given.iter().zip(&current[start..]) {
            if stands.is_none() {
                continue;
            }
            if let Some(refusal) = &given.refusal {
                return Err((**refusal).clone());
            }
            tried.insert(given.lot);
        }
        Ok(())
    }
}

impl Registry {
    /// Lets a transaction give and take back what a claim says.
    pub(in crate::registry) fn add_claim(
        &self,
        txn: &mut Txn,
        claim: &Claim,
    ) -> Result<(), Status> {
        for Given { lot, .. } in &claim.given {
            let put = self.reserve(*lot, &claim.service)?;
            txn.compare.push(not_there(*lot));
            txn.ops.push(put);
        }
        for (lot, revision) in &claim.released {
            let key = Bytes::from(lot.key());
            txn.compare
                .push(Compare::ModRevision(key.clone(), *revision));
            txn.ops.push(Op::Delete(KeyRange::Key(key)));
        }
        Ok(())
    }

    /// The write by which a Service comes to have a lot.
    pub(super) fn reserve(&self, lot: Lot, holder: &Holder) -> Result<Op, Status> {
        let (namespace, name) = holder;
        let value = match lot {
            Lot::Address(ip) => self.ip_address(ip, namespace, name)?,
            Lot::Port(_) => {
                json!({"resource": "services", "namespace": namespace, "name": name})
            }
        };
        let value = serde_json::to_vec(&value).map_err(Status::internal)?;
        Ok(Op::Put {
            key: lot.key().into(),
            value: value.into(),
            lease: None,
        })
    }

    /// The IPAddress of a Service's cluster IP.
    fn ip_address(&self, ip: Ipv4Addr, namespace: &str, name: &str) -> Result<Value, Status> {
        let resource = &IP_ADDRESSES;
        let info = resources::find(&resource.group, &resource.version, &resource.plural)
            .ok_or_else(|| Status::internal("IPAddresses are not served"))?;
        let kind = storage_kind(info);
        let now = meta::time(self.now());
        let mut document = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "metadata": {
                "name": ip.to_string(),
                "uid": self.env.uuid(),
                "creationTimestamp": now,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": "IPv4",
                    "ipaddress.kubernetes.io/managed-by": MANAGED_BY,
                },
            },
            "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
        });
        managed_fields::track(
            info,
            "",
            &Value::Null,
            &mut document,
            "kube-apiserver",
            &now,
        );
        let context = strategy::Context {
            now,
            user: Some(orlop_core::auth::UserInfo::new(SERVER, std::iter::empty())),
        };
        strategy::prepare_for_create(&kind, &mut document, &context);
        strategy::canonicalize(&kind, &mut document);
        Ok(document)
    }
}

/// That nobody has a lot.
pub(super) fn not_there(lot: Lot) -> Compare {
    Compare::ModRevision(lot.key().into(), Revision::ZERO)
}
