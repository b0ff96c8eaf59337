//! Server-side tables: what `kubectl get` prints.
//!
//! A kind has [`columns`], and an object a [`row`] of cells for them. Kinds without columns of their own, custom ones
//! among them, have their name and the time of their creation. [`document`] puts a whole `Table` together.

mod cells;
mod cluster;
mod columns;
mod duration;
mod network;
mod pod;
mod storage;
mod workloads;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use jiff::Timestamp;
use orlop_core::resource::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::doc;
pub use columns::columns;
pub use duration::human_duration;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: Cow<'static, str>,
    /// The type of its cells, as OpenAPI names types.
    pub ty: Cow<'static, str>,
    /// The format of its cells: `name` for the column that identifies a row, else mostly empty.
    pub format: Cow<'static, str>,
    /// What it is about.
    pub description: Cow<'static, str>,
    /// Columns above 0 are shown in wide output only.
    pub priority: i32,
}

impl Column {
    /// The column in a `Table`'s `columnDefinitions`.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.ty,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

/// An object's row: its cells, and what clients may want to know to show it differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<Value>,
    /// Conditions of the row, such as `Completed`; mostly none.
    pub conditions: Vec<Value>,
}

/// How much of the object goes along with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata. The default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// The value of the query parameter `includeObject`; an empty one is the default. `None` for unknown words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The row of an object at a moment: ages count to `now`.
#[must_use]
pub fn row(kind: &GroupVersionKind, object: &Value, now: Timestamp) -> Row {
    let cx = cells::Context { object, now };
    if !columns::is_known(kind) {
        return Row {
            cells: vec![cx.name(), cx.created_at()],
            conditions: Vec::new(),
        };
    }
    let cells = match &*kind.kind {
        "Pod" => return pod::row(&cx),
        "PodTemplate" => workloads::pod_template(&cx),
        "PodDisruptionBudget" => workloads::pod_disruption_budget(&cx),
        "ReplicationController" => workloads::replication_controller(&cx),
        "ReplicaSet" => workloads::replica_set(&cx),
        "DaemonSet" => workloads::daemon_set(&cx),
        "StatefulSet" => workloads::stateful_set(&cx),
        "Deployment" => workloads::deployment(&cx),
        "ControllerRevision" => workloads::controller_revision(&cx),
        "Job" => workloads::job(&cx),
        "CronJob" => workloads::cron_job(&cx),
        "HorizontalPodAutoscaler" => workloads::autoscaler(&cx),
        "Scale" => workloads::scale(&cx),
        "PriorityClass" => workloads::priority_class(&cx),
        "Service" => network::service(&cx),
        "Endpoints" => network::endpoints(&cx),
        "EndpointSlice" => network::endpoint_slice(&cx),
        "Ingress" => network::ingress(&cx),
        "IngressClass" => network::ingress_class(&cx),
        "NetworkPolicy" => network::network_policy(&cx),
        "ServiceCIDR" => network::service_cidr(&cx),
        "IPAddress" => network::ip_address(&cx),
        "Node" => cluster::node(&cx),
        "Event" => cluster::event(&cx),
        "Namespace" => cluster::namespace(&cx),
        "ComponentStatus" => cluster::component_status(&cx),
        "ConfigMap" => cluster::config_map(&cx),
        "Secret" => cluster::secret(&cx),
        "ResourceQuota" => cluster::resource_quota(&cx),
        "Lease" => vec![
            cx.name(),
            cx.text(&["spec", "holderIdentity"]).into(),
            cx.age(),
        ],
        "RuntimeClass" => vec![cx.name(), cx.text(&["handler"]).into(), cx.age()],
        "RoleBinding" | "ClusterRoleBinding" => cluster::role_binding(&cx),
        "CertificateSigningRequest" => cluster::certificate_signing_request(&cx),
        "FlowSchema" => cluster::flow_schema(&cx),
        "PriorityLevelConfiguration" => cluster::priority_level(&cx),
        "PersistentVolume" => storage::volume(&cx),
        "PersistentVolumeClaim" => storage::claim(&cx),
        "StorageClass" => storage::class(&cx),
        "VolumeAttributesClass" => storage::attributes_class(&cx),
        "VolumeAttachment" => storage::attachment(&cx),
        "CSINode" => storage::csi_node(&cx),
        "CSIDriver" => storage::csi_driver(&cx),
        "CSIStorageCapacity" => storage::csi_capacity(&cx),
        "ResourceClaim" => storage::resource_claim(&cx),
        "ResourceSlice" => storage::resource_slice(&cx),
        "Status" => vec![
            cx.text(&["status"]).into(),
            cx.text(&["reason"]).into(),
            cx.text(&["message"]).into(),
        ],
        // ServiceAccount, DeviceClass, ResourceClaimTemplate.
        _ => vec![cx.name(), cx.age()],
    };
    Row {
        cells,
        conditions: Vec::new(),
    }
}

/// One row of a `Table`, with as much of the object as asked for. `version` is that of `meta.k8s.io` in which the
/// table is written, `v1` or `v1beta1`.
#[must_use]
pub fn row_value(row: Row, object: &Value, include: IncludeObject, version: &str) -> Value {
    let mut out = Map::new();
    out.insert("cells".into(), row.cells.into());
    if !row.conditions.is_empty() {
        out.insert("conditions".into(), row.conditions.into());
    }
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Object => object.clone(),
        IncludeObject::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": doc::get(object, "metadata"),
        }),
    };
    out.insert("object".into(), object);
    Value::Object(out)
}

/// A `Table`. `metadata` is that of the list, or `{"resourceVersion": …}` of a single object. A watch sends the columns
/// with its first event only.
#[must_use]
pub fn document(
    columns: Option<&[Column]>,
    rows: Vec<Value>,
    metadata: Value,
    version: &str,
) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": columns.unwrap_or_default().iter().map(Column::to_value).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// Brings a list into the order in which its table shows it: flow schemas by precedence, all others as they come.
pub fn sort(kind: &GroupVersionKind, objects: &mut [&Value]) {
    if &*kind.kind == "FlowSchema" && columns::is_known(kind) {
        objects.sort_by_key(|object| {
            let precedence =
                doc::int(doc::get(object, "spec"), "matchingPrecedence").unwrap_or_default();
            (
                precedence,
                doc::text(doc::get(object, "metadata"), "name").to_owned(),
            )
        });
    }
}
