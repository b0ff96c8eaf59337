//! The built-in resources, as Kubernetes v1.36 describes them in discovery.

use orlop_core::resource::{GroupVersionKind, Resource};

use super::{ResourceInfo, Subresource, Verb};

const CREATE: &[Verb] = &[Verb::Create];
const READ: &[Verb] = &[Verb::Get];
const CHANGE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];
const PROXY: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::Get,
    Verb::Patch,
    Verb::Update,
];

const SCALE: GroupVersionKind = GroupVersionKind::new("autoscaling", "v1", "Scale");

/// Words to describe one resource; each adds to what [`ResourceInfo::new`] says.
impl ResourceInfo {
    fn short(mut self, name: &'static str) -> Self {
        self.short_names.push(name.into());
        self
    }

    fn category(mut self, name: &'static str) -> Self {
        self.categories.push(name.into());
        self
    }

    fn only(mut self, verbs: &[Verb]) -> Self {
        self.verbs = verbs.to_vec();
        if !verbs.contains(&Verb::List) {
            self.list_kind = "".into();
        }
        self
    }

    fn without(mut self, verb: Verb) -> Self {
        self.verbs.retain(|v| *v != verb);
        self
    }

    fn view_of(mut self, storage: Resource) -> Self {
        self.stored_as = Some(storage);
        self
    }

    /// A subresource whose body is of another kind.
    fn sub(mut self, name: &'static str, kind: GroupVersionKind, verbs: &[Verb]) -> Self {
        self.subresources.push(Subresource {
            name: name.into(),
            kind,
            verbs: verbs.to_vec(),
        });
        self
    }

    /// A subresource whose body is the object itself.
    fn part(self, name: &'static str, verbs: &[Verb]) -> Self {
        let kind = self.resource.gvk();
        self.sub(name, kind, verbs)
    }

    fn status(self) -> Self {
        self.part("status", CHANGE)
    }

    fn scale(self) -> Self {
        self.sub("scale", SCALE, CHANGE)
    }
}

const fn core(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("", "v1", kind)
}

pub(super) fn resources() -> Vec<ResourceInfo> {
    let mut all = core_group();
    all.extend(workloads());
    all.extend(security());
    all.extend(infrastructure());
    all
}

fn namespaced(group: &'static str, plural: &'static str, kind: &'static str) -> ResourceInfo {
    ResourceInfo::new(Resource::namespaced(group, "v1", plural, kind))
}

fn cluster(group: &'static str, plural: &'static str, kind: &'static str) -> ResourceInfo {
    ResourceInfo::new(Resource::cluster(group, "v1", plural, kind))
}

fn core_group() -> Vec<ResourceInfo> {
    vec![
        namespaced("", "bindings", "Binding").only(CREATE),
        cluster("", "componentstatuses", "ComponentStatus")
            .short("cs")
            .only(&[Verb::Get, Verb::List]),
        namespaced("", "configmaps", "ConfigMap").short("cm"),
        namespaced("", "endpoints", "Endpoints").short("ep"),
        namespaced("", "events", "Event").short("ev"),
        namespaced("", "limitranges", "LimitRange").short("limits"),
        cluster("", "namespaces", "Namespace")
            .short("ns")
            .without(Verb::DeleteCollection)
            .part("finalize", &[Verb::Update])
            .status(),
        cluster("", "nodes", "Node")
            .short("no")
            .sub("proxy", core("NodeProxyOptions"), PROXY)
            .status(),
        namespaced("", "persistentvolumeclaims", "PersistentVolumeClaim")
            .short("pvc")
            .status(),
        cluster("", "persistentvolumes", "PersistentVolume")
            .short("pv")
            .status(),
        namespaced("", "pods", "Pod")
            .short("po")
            .category("all")
            .sub("attach", core("PodAttachOptions"), STREAM)
            .sub("binding", core("Binding"), CREATE)
            .part("ephemeralcontainers", CHANGE)
            .sub(
                "eviction",
                GroupVersionKind::new("policy", "v1", "Eviction"),
                CREATE,
            )
            .sub("exec", core("PodExecOptions"), STREAM)
            .part("log", READ)
            .sub("portforward", core("PodPortForwardOptions"), STREAM)
            .sub("proxy", core("PodProxyOptions"), PROXY)
            .part("resize", CHANGE)
            .status(),
        namespaced("", "podtemplates", "PodTemplate"),
        namespaced("", "replicationcontrollers", "ReplicationController")
            .short("rc")
            .category("all")
            .scale()
            .status(),
        namespaced("", "resourcequotas", "ResourceQuota")
            .short("quota")
            .status(),
        namespaced("", "secrets", "Secret"),
        namespaced("", "serviceaccounts", "ServiceAccount")
            .short("sa")
            .sub(
                "token",
                GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest"),
                CREATE,
            ),
        namespaced("", "services", "Service")
            .short("svc")
            .category("all")
            .sub("proxy", core("ServiceProxyOptions"), PROXY)
            .status(),
    ]
}

fn workloads() -> Vec<ResourceInfo> {
    const HPA: Resource = Resource::namespaced(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
    );
    let autoscaler = |resource| {
        ResourceInfo::new(resource)
            .short("hpa")
            .category("all")
            .status()
    };
    vec![
        namespaced("apps", "controllerrevisions", "ControllerRevision"),
        namespaced("apps", "daemonsets", "DaemonSet")
            .short("ds")
            .category("all")
            .status(),
        namespaced("apps", "deployments", "Deployment")
            .short("deploy")
            .category("all")
            .scale()
            .status(),
        namespaced("apps", "replicasets", "ReplicaSet")
            .short("rs")
            .category("all")
            .scale()
            .status(),
        namespaced("apps", "statefulsets", "StatefulSet")
            .short("sts")
            .category("all")
            .scale()
            .status(),
        autoscaler(HPA),
        autoscaler(Resource {
            version: "v1".into(),
            ..HPA
        })
        .view_of(HPA),
        namespaced("batch", "cronjobs", "CronJob")
            .short("cj")
            .category("all")
            .status(),
        namespaced("batch", "jobs", "Job").category("all").status(),
        namespaced("events.k8s.io", "events", "Event")
            .short("ev")
            .view_of(Resource::namespaced("", "v1", "events", "Event")),
        namespaced("policy", "poddisruptionbudgets", "PodDisruptionBudget")
            .short("pdb")
            .status(),
        cluster("scheduling.k8s.io", "priorityclasses", "PriorityClass").short("pc"),
        namespaced("coordination.k8s.io", "leases", "Lease"),
    ]
}

fn security() -> Vec<ResourceInfo> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    const RBAC: &str = "rbac.authorization.k8s.io";
    vec![
        cluster(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview").only(CREATE),
        cluster(AUTHENTICATION, "tokenreviews", "TokenReview").only(CREATE),
        namespaced(
            AUTHORIZATION,
            "localsubjectaccessreviews",
            "LocalSubjectAccessReview",
        )
        .only(CREATE),
        cluster(
            AUTHORIZATION,
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
        )
        .only(CREATE),
        cluster(
            AUTHORIZATION,
            "selfsubjectrulesreviews",
            "SelfSubjectRulesReview",
        )
        .only(CREATE),
        cluster(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview").only(CREATE),
        cluster(
            "certificates.k8s.io",
            "certificatesigningrequests",
            "CertificateSigningRequest",
        )
        .short("csr")
        .part("approval", CHANGE)
        .status(),
        cluster(RBAC, "clusterrolebindings", "ClusterRoleBinding"),
        cluster(RBAC, "clusterroles", "ClusterRole"),
        namespaced(RBAC, "rolebindings", "RoleBinding"),
        namespaced(RBAC, "roles", "Role"),
    ]
}

fn infrastructure() -> Vec<ResourceInfo> {
    const NETWORKING: &str = "networking.k8s.io";
    const STORAGE: &str = "storage.k8s.io";
    const DEVICES: &str = "resource.k8s.io";
    const FLOW: &str = "flowcontrol.apiserver.k8s.io";
    vec![
        cluster(NETWORKING, "ingressclasses", "IngressClass"),
        namespaced(NETWORKING, "ingresses", "Ingress")
            .short("ing")
            .status(),
        cluster(NETWORKING, "ipaddresses", "IPAddress").short("ip"),
        namespaced(NETWORKING, "networkpolicies", "NetworkPolicy").short("netpol"),
        cluster(NETWORKING, "servicecidrs", "ServiceCIDR").status(),
        cluster(STORAGE, "csidrivers", "CSIDriver"),
        cluster(STORAGE, "csinodes", "CSINode"),
        namespaced(STORAGE, "csistoragecapacities", "CSIStorageCapacity"),
        cluster(STORAGE, "storageclasses", "StorageClass").short("sc"),
        cluster(STORAGE, "volumeattachments", "VolumeAttachment").status(),
        cluster(STORAGE, "volumeattributesclasses", "VolumeAttributesClass").short("vac"),
        cluster("node.k8s.io", "runtimeclasses", "RuntimeClass"),
        namespaced("discovery.k8s.io", "endpointslices", "EndpointSlice"),
        cluster(DEVICES, "deviceclasses", "DeviceClass"),
        namespaced(DEVICES, "resourceclaims", "ResourceClaim").status(),
        namespaced(DEVICES, "resourceclaimtemplates", "ResourceClaimTemplate"),
        cluster(DEVICES, "resourceslices", "ResourceSlice"),
        cluster(FLOW, "flowschemas", "FlowSchema").status(),
        cluster(
            FLOW,
            "prioritylevelconfigurations",
            "PriorityLevelConfiguration",
        )
        .status(),
    ]
}
