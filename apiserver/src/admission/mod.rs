//! Admission: a say in what is written, before it is.
//!
//! A [`Chain`] runs its plug-ins in upstream's order: all of them change the object first, then all of them judge what came out.

mod always_pull_images;
mod certificates;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod owner_references;
mod persistent_volume_claim_resize;
mod pod_topology_labels;
mod priority;
mod runtime_class;
mod service_account;
mod storage_object_in_use;
mod taint_nodes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use orlop_core::admission::{AdmissionPlugin, AdmissionRequest, ObjectReader};
use orlop_core::auth::Authorizer;
use orlop_core::env::Env;
use orlop_core::resource::Resource;
use orlop_core::status::Status;
use serde_json::{Map, Value};

pub use self::always_pull_images::AlwaysPullImages;
pub use self::certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction,
};
pub use self::default_ingress_class::DefaultIngressClass;
pub use self::default_storage_class::DefaultStorageClass;
pub use self::default_toleration_seconds::DefaultTolerationSeconds;
pub use self::deny_service_external_ips::DenyServiceExternalIps;
pub use self::limit_ranger::LimitRanger;
pub use self::namespace_lifecycle::NamespaceLifecycle;
pub use self::node_restriction::NodeRestriction;
pub use self::owner_references::OwnerReferencesPermissionEnforcement;
pub use self::persistent_volume_claim_resize::PersistentVolumeClaimResize;
pub use self::pod_topology_labels::PodTopologyLabels;
pub use self::priority::Priority;
pub use self::runtime_class::RuntimeClass;
pub use self::service_account::ServiceAccount;
pub use self::storage_object_in_use::StorageObjectInUseProtection;
pub use self::taint_nodes::TaintNodesByCondition;
use crate::authorization::EscalationCheck;

/// What a kind is called in the API: from `apiVersion` and kind to its resource, for those that are served.
pub type Kinds = Arc<dyn Fn(&str, &str) -> Option<Resource> + Send + Sync>;

/// What plug-ins look things up with.
#[derive(Clone)]
pub struct Context {
    /// Objects as the cache has them.
    pub reader: Arc<dyn ObjectReader>,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// Time and randomness.
    pub env: Env,
    /// The resources of kinds.
    pub kinds: Kinds,
}

/// Why a chain cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No plug-in has this name.
    #[error("admission plugin {0:?} is unknown")]
    Unknown(String),
    /// A plug-in was both switched on and off.
    #[error("admission plugin {0:?} is both enabled and disabled")]
    Contradiction(String),
    /// Two plug-ins have the same name.
    #[error("admission plugin {0:?} is there twice")]
    Duplicate(&'static str),
}

/// A plug-in of Kubernetes that Orlop has: its name, whether it is on by default, and how it is made.
type Known = (&'static str, bool, fn(&Context) -> Arc<dyn AdmissionPlugin>);

/// The plug-ins in upstream's order (`AllOrderedPlugins`).
const KNOWN: [Known; 19] = [
    ("NamespaceLifecycle", true, |c| {
        Arc::new(NamespaceLifecycle::new(c))
    }),
    ("LimitRanger", true, |c| Arc::new(LimitRanger::new(c))),
    ("ServiceAccount", true, |c| Arc::new(ServiceAccount::new(c))),
    // Upstream's binary has it off, every installer switches it on; it concerns nodes alone.
    ("NodeRestriction", true, |c| {
        Arc::new(NodeRestriction::new(c))
    }),
    ("TaintNodesByCondition", true, |_| {
        Arc::new(TaintNodesByCondition)
    }),
    ("AlwaysPullImages", false, |_| Arc::new(AlwaysPullImages)),
    ("Priority", true, |c| Arc::new(Priority::new(c))),
    ("DefaultTolerationSeconds", true, |_| {
        Arc::new(DefaultTolerationSeconds::default())
    }),
    ("DefaultStorageClass", true, |c| {
        Arc::new(DefaultStorageClass::new(c))
    }),
    ("StorageObjectInUseProtection", true, |_| {
        Arc::new(StorageObjectInUseProtection)
    }),
    ("OwnerReferencesPermissionEnforcement", false, |c| {
        Arc::new(OwnerReferencesPermissionEnforcement::new(c))
    }),
    ("PersistentVolumeClaimResize", true, |c| {
        Arc::new(PersistentVolumeClaimResize::new(c))
    }),
    ("RuntimeClass", true, |c| Arc::new(RuntimeClass::new(c))),
    ("CertificateApproval", true, |c| {
        Arc::new(CertificateApproval::new(c))
    }),
    ("CertificateSigning", true, |c| {
        Arc::new(CertificateSigning::new(c))
    }),
    ("CertificateSubjectRestriction", true, |_| {
        Arc::new(CertificateSubjectRestriction)
    }),
    ("DefaultIngressClass", true, |c| {
        Arc::new(DefaultIngressClass::new(c))
    }),
    ("DenyServiceExternalIPs", false, |_| {
        Arc::new(DenyServiceExternalIps)
    }),
    ("PodTopologyLabels", true, |c| {
        Arc::new(PodTopologyLabels::new(c))
    }),
];

/// The plug-ins that are on by default, in order, and after them what upstream checks in the storage of roles.
#[must_use]
pub fn default_plugins(
    reader: &Arc<dyn ObjectReader>,
    authorizer: &Arc<dyn Authorizer>,
    env: &Env,
) -> Vec<Arc<dyn AdmissionPlugin>> {
    let kinds: Kinds = Arc::new(|api_version, kind| {
        let known = orlop_api::resources::builtin()
            .iter()
            .map(|info| &info.resource);
        known
            .filter(|known| known.kind == kind)
            .find(|known| known.api_version() == api_version)
            .cloned()
    });
    let context = Context {
        reader: reader.clone(),
        authorizer: authorizer.clone(),
        env: env.clone(),
        kinds,
    };
    let mut plugins: Vec<Arc<dyn AdmissionPlugin>> = KNOWN
        .iter()
        .filter(|(_, by_default, _)| *by_default)
        .map(|(.., make)| make(&context))
        .collect();
    plugins.push(Arc::new(EscalationCheck::new(
        authorizer.clone(),
        reader.clone(),
    )));
    plugins
}

/// Plug-ins in order.
#[derive(Clone, Default)]
pub struct Chain(Vec<Arc<dyn AdmissionPlugin>>);

impl Chain {
    /// No plug-ins: everything is admitted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The plug-ins that are on by default, with some switched on or off by name (`--enable-admission-plugins`,
    /// `--disable-admission-plugins`).
    ///
    /// # Errors
    /// When a name is unknown or on both lists.
    pub fn with_defaults(
        context: &Context,
        enable: &[&str],
        disable: &[&str],
    ) -> Result<Self, ChainError> {
        for name in enable.iter().chain(disable) {
            if !KNOWN.iter().any(|(known, ..)| known == name) {
                return Err(ChainError::Unknown((*name).to_owned()));
            }
            if enable.contains(name) && disable.contains(name) {
                return Err(ChainError::Contradiction((*name).to_owned()));
            }
        }
        let on = KNOWN.iter().filter(|(name, by_default, _)| {
            enable.contains(name) || (*by_default && !disable.contains(name))
        });
        Ok(Self(on.map(|(.., make)| make(context)).collect()))
    }

    /// Adds a plug-in at the end.
    ///
    /// # Errors
    /// When one of its name is there already.
    pub fn with(mut self, plugin: Arc<dyn AdmissionPlugin>) -> Result<Self, ChainError> {
        if self.0.iter().any(|known| known.name() == plugin.name()) {
            return Err(ChainError::Duplicate(plugin.name()));
        }
        self.0.push(plugin);
        Ok(self)
    }

    /// The plug-ins, in order.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<dyn AdmissionPlugin>] {
        &self.0
    }

    /// The names of the plug-ins, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|plugin| plugin.name()).collect()
    }

    /// Whether any plug-in wants to see an operation.
    #[must_use]
    pub fn handles(&self, request: &AdmissionRequest) -> bool {
        self.0
            .iter()
            .any(|plugin| plugin.handles(request.operation))
    }

    /// Lets every plug-in change the object, in order.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let operation = request.operation;
        for plugin in self.0.iter().filter(|plugin| plugin.handles(operation)) {
            plugin.admit(request).await?;
        }
        Ok(())
    }

    /// Lets every plug-in judge the object, in order.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, request: &AdmissionRequest) -> Result<(), Status> {
        for plugin in self
            .0
            .iter()
            .filter(|plugin| plugin.handles(request.operation))
        {
            plugin.validate(request).await?;
        }
        Ok(())
    }
}

/// The map at a path of fields, made where it is missing; `None` where something else stands.
fn map_at<'a>(value: &'a mut Value, fields: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut at = value;
    for field in fields {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        at = at.as_object_mut()?.entry(*field).or_insert(Value::Null);
    }
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    at.as_object_mut()
}

/// The list at a path of fields, made where it is missing; `None` where something else stands.
fn list_mut<'a>(value: &'a mut Value, fields: &[&str]) -> Option<&'a mut Vec<Value>> {
    let (last, path) = fields.split_last()?;
    let entry = map_at(value, path)?.entry(*last).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Array(Vec::new());
    }
    entry.as_array_mut()
}

/// Those labels or annotations of which two maps differ.
fn changed_keys<'a>(new: Option<&'a Value>, old: Option<&'a Value>) -> BTreeSet<&'a str> {
    let map = |value: Option<&'a Value>| value.and_then(Value::as_object);
    let (new, old) = (map(new), map(old));
    let keys = new.into_iter().chain(old).flat_map(Map::keys);
    keys.filter(|key| new.and_then(|map| map.get(*key)) != old.and_then(|map| map.get(*key)))
        .map(String::as_str)
        .collect()
}
