//! The volumes of a pod, each of one of many sources.

use std::collections::{BTreeMap, BTreeSet};

use orlop_core::field::Path;
use serde_json::Value;

use super::containers::pull_policy;
use super::env;
use super::mounts::{descending_path, local_path, no_backsteps};
use crate::doc;
use crate::validation::errors::Errors;
use crate::validation::{labels, names, resources};

/// The sources of a volume in the order in which they are looked at.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// What each source can't do without, where that is all there is to say.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("csi", &["driver"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &["registry", "volume"]),
    ("rbd", &["monitors", "image"]),
    ("cephfs", &["monitors"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// `volumes`: the good ones, by name.
pub(super) fn volumes<'a>(
    errors: &mut Errors,
    spec: &'a Value,
    pod_name: Option<&str>,
    is_pod: bool,
    path: &Path,
) -> BTreeMap<&'a str, &'a Value> {
    let path = path.child("volumes");
    let volumes = doc::list(spec, "volumes");
    let created: BTreeSet<String> = pod_name
        .map(|pod| {
            let ephemeral = volumes
                .iter()
                .filter(|volume| doc::has(volume, "ephemeral"));
            ephemeral
                .map(|volume| format!("{pod}-{}", doc::text(volume, "name")))
                .collect()
        })
        .unwrap_or_default();
    let mut good = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = doc::text(volume, "name");
        let before = errors.0.len();
        source(errors, volume, name, pod_name, is_pod, &path);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        if good.contains_key(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.0.len() == before {
            good.insert(name, volume);
        }
        let claim = doc::text(doc::get(volume, "persistentVolumeClaim"), "claimName");
        if !claim.is_empty() && created.contains(claim) {
            errors.invalid(
                &path.child("persistentVolumeClaim").child("claimName"),
                claim,
                "must not reference a PVC that gets created for an ephemeral volume",
            );
        }
    }
    good
}

fn source(
    errors: &mut Errors,
    volume: &Value,
    name: &str,
    pod_name: Option<&str>,
    is_pod: bool,
    path: &Path,
) {
    let mut found = false;
    for kind in SOURCES.iter().filter(|kind| doc::has(volume, kind)) {
        let source = doc::get(volume, kind);
        let own = path.child(kind);
        if found {
            errors.forbidden(&own, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        required_fields(errors, kind, source, &own);
        one_source(errors, kind, source, is_pod, &own);
        if let ("ephemeral", Some(pod)) = (*kind, pod_name.filter(|_| !name.is_empty())) {
            let claim = format!("{pod}-{name}");
            for complaint in names::dns_subdomain(&claim) {
                errors.invalid(
                    &path.child("name"),
                    name,
                    format!("PVC name \"{claim}\": {complaint}"),
                );
            }
        }
        if *kind == "iscsi"
            && doc::has(source, "initiatorName")
            && name.len() + 1 + doc::text(source, "targetPortal").len() > 64
        {
            errors.invalid(&path.child("name"), name, ISCSI_TOO_LONG);
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

/// The name of a volume and its portal make one identifier of an iSCSI initiator.
pub(crate) const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// What a source can't do without.
pub(crate) fn required_fields(errors: &mut Errors, kind: &str, source: &Value, path: &Path) {
    let Some((_, keys)) = REQUIRED.iter().find(|(of, _)| *of == kind) else {
        return;
    };
    for key in *keys {
        if doc::is_empty(doc::get(source, key)) {
            let detail = if kind == "quobyte" && *key == "registry" {
                "must be a host:port pair or multiple pairs separated by commas"
            } else {
                ""
            };
            errors.required(&path.child(key), detail);
        }
    }
}

fn one_source(errors: &mut Errors, kind: &str, source: &Value, is_pod: bool, path: &Path) {
    match kind {
        "emptyDir" => {
            if resources::quantity(doc::get(source, "sizeLimit"))
                .is_some_and(|limit| limit.is_negative())
            {
                errors.forbidden(
                    &path.child("sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                );
            }
        }
        "hostPath" => host_path(errors, source, path),
        "gitRepo" => descending_path(
            errors,
            doc::text(source, "directory"),
            &path.child("directory"),
        ),
        "secret" => keyed(errors, source, path),
        "configMap" => {
            errors.need_text(source, "name", path);
            keyed(errors, source, path);
        }
        "downwardAPI" => {
            mode(errors, source, "defaultMode", path);
            for file in doc::list(source, "items") {
                downward_file(errors, file, path);
            }
        }
        "projected" => projected(errors, source, path),
        "image" => {
            if is_pod {
                errors.need_text(source, "reference", path);
            }
            pull_policy(errors, source, "pullPolicy", path);
        }
        "ephemeral" => ephemeral(errors, source, path),
        "csi" => csi_inline(errors, source, path),
        other => storage_source(errors, other, source, path),
    }
}

/// What the sources that PersistentVolumes share with pods have beyond their required fields.
pub(crate) fn storage_source(errors: &mut Errors, kind: &str, source: &Value, path: &Path) {
    match kind {
        "nfs" => {
            let remote = doc::text(source, "path");
            if !remote.starts_with('/') {
                errors.invalid(&path.child("path"), remote, "must be an absolute path");
            }
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let partition = doc::int(source, "partition").unwrap_or_default();
            if !(0..=255).contains(&partition) {
                errors.invalid(
                    &path.child("partition"),
                    partition,
                    names::out_of_range(1, 255),
                );
            }
        }
        "iscsi" => iscsi(errors, source, path),
        "fc" => fibre_channel(errors, source, path),
        "flocker" => flocker(errors, source, path),
        "cinder" => {
            let secret = doc::get(source, "secretRef");
            if !secret.is_null() {
                errors.need_text(secret, "name", &path.child("secretRef"));
            }
        }
        "flexVolume" => {
            for (key, _) in doc::entries(source, "options") {
                let domain = format!(
                    ".{}",
                    key.split_once('/')
                        .map_or(key, |(domain, _)| domain)
                        .to_lowercase()
                );
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    errors.invalid(
                        &path.child("options").key(key),
                        key,
                        "kubernetes.io and k8s.io namespaces are reserved",
                    );
                }
            }
        }
        "azureDisk" => {
            errors.if_set_one_of(
                source,
                "cachingMode",
                path,
                &["None", "ReadOnly", "ReadWrite"],
            );
            errors.if_set_one_of(source, "kind", path, &["Dedicated", "Managed", "Shared"]);
        }
        "quobyte" if doc::text(source, "tenant").len() >= 65 => {
            errors.required(
                &path.child("tenant"),
                "must be a UUID and may not exceed a length of 64 characters",
            );
        }
        _ => {}
    }
}

/// A path of the node.
pub(crate) fn host_path(errors: &mut Errors, source: &Value, path: &Path) {
    let of = doc::text(source, "path");
    if of.is_empty() {
        errors.required(&path.child("path"), "");
        return;
    }
    no_backsteps(errors, of, &path.child("path"));
    errors.if_set_one_of(
        source,
        "type",
        path,
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    );
}

/// The bits of a file's mode.
fn mode(errors: &mut Errors, of: &Value, key: &str, path: &Path) {
    if let Some(mode) = doc::int(of, key).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(
            &path.child(key),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

/// Keys of a ConfigMap or Secret, each to a path.
fn keyed(errors: &mut Errors, source: &Value, path: &Path) {
    mode(errors, source, "defaultMode", path);
    for (i, item) in doc::list(source, "items").iter().enumerate() {
        key_to_path(errors, item, &path.child("items").index(i));
    }
}

fn key_to_path(errors: &mut Errors, item: &Value, path: &Path) {
    errors.need_text(item, "key", path);
    errors.need_text(item, "path", path);
    local_path(errors, doc::text(item, "path"), &path.child("path"));
    mode(errors, item, "mode", path);
}

fn downward_file(errors: &mut Errors, file: &Value, path: &Path) {
    errors.need_text(file, "path", path);
    local_path(errors, doc::text(file, "path"), &path.child("path"));
    let (field, resource) = (
        doc::get(file, "fieldRef"),
        doc::get(file, "resourceFieldRef"),
    );
    if !field.is_null() {
        env::field_ref(errors, field, env::VOLUME_FIELDS, &path.child("fieldRef"));
        if !resource.is_null() {
            errors.invalid(
                path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if resource.is_null() {
        errors.required(path, "one of fieldRef and resourceFieldRef is required");
    } else {
        env::resource_ref(errors, resource, true, &path.child("resourceFieldRef"));
    }
    mode(errors, file, "mode", path);
}

fn projected(errors: &mut Errors, projection: &Value, path: &Path) {
    mode(errors, projection, "defaultMode", path);
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for (i, source) in doc::list(projection, "sources").iter().enumerate() {
        let source_path = path.child("sources").index(i);
        let mut sources = 0;
        for key in ["secret", "configMap"] {
            let from = doc::get(source, key);
            if from.is_null() {
                continue;
            }
            sources += 1;
            let own = source_path.child(key);
            errors.need_text(from, "name", &own);
            for (i, item) in doc::list(from, "items").iter().enumerate() {
                key_to_path(errors, item, &own.child("items").index(i));
                let item = doc::text(item, "path");
                if !item.is_empty() && !paths.insert(item) {
                    errors.invalid(path, doc::text(from, "name"), "conflicting duplicate paths");
                }
            }
        }
        let downward = doc::get(source, "downwardAPI");
        if !downward.is_null() {
            sources += 1;
            for file in doc::list(downward, "items") {
                downward_file(errors, file, &source_path.child("downwardAPI"));
                let file = doc::text(file, "path");
                if !file.is_empty() && !paths.insert(file) {
                    errors.invalid(path, file, "conflicting duplicate paths");
                }
            }
        }
        let token = doc::get(source, "serviceAccountToken");
        if !token.is_null() {
            sources += 1;
            token_projection(
                errors,
                token,
                &source_path.child("serviceAccountToken"),
                path,
            );
        }
        let bundle = doc::get(source, "clusterTrustBundle");
        if !bundle.is_null() {
            sources += 1;
            trust_bundle(errors, bundle, &source_path.child("clusterTrustBundle"));
            let file = doc::text(bundle, "path");
            if !paths.insert(file) {
                errors.invalid(path, file, "conflicting duplicate paths");
            }
        }
        let certificate = doc::get(source, "podCertificate");
        if !certificate.is_null() {
            sources += 1;
            let own = source_path.child("podCertificate");
            errors.need_text(certificate, "signerName", &own);
            errors.need_text(certificate, "keyType", &own);
        }
        if sources > 1 {
            errors.forbidden(
                &source_path,
                "may not specify more than 1 volume type per source",
            );
        }
    }
}

fn token_projection(errors: &mut Errors, token: &Value, path: &Path, volume: &Path) {
    let seconds = doc::int(token, "expirationSeconds").unwrap_or_default();
    if seconds < 600 {
        errors.invalid(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > 1 << 32 {
        errors.invalid(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    let file = doc::text(token, "path");
    if file.is_empty() {
        errors.required(&volume.child("path"), "");
    } else {
        local_path(errors, file, &volume.child("path"));
    }
}

fn trust_bundle(errors: &mut Errors, bundle: &Value, path: &Path) {
    let (name, signer) = (
        doc::opt_text(bundle, "name"),
        doc::opt_text(bundle, "signerName"),
    );
    match (name, signer) {
        (Some(_), Some(_)) => errors.invalid(
            path,
            bundle.clone(),
            "only one of name and signerName may be used",
        ),
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            let last = name.rsplit_once(':').map_or(name, |(_, last)| last);
            for complaint in names::dns_subdomain(last) {
                errors.invalid(
                    &path.child("name"),
                    name,
                    format!("not a valid clustertrustbundlename: {complaint}"),
                );
            }
            let selector = doc::get(bundle, "labelSelector");
            if !selector.is_null() {
                errors.invalid(
                    &path.child("labelSelector"),
                    selector.clone(),
                    "labelSelector must be unset if name is specified",
                );
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            labels::selector(errors, bundle, "labelSelector", path);
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
    errors.need_text(bundle, "path", path);
    local_path(errors, doc::text(bundle, "path"), &path.child("path"));
}

fn ephemeral(errors: &mut Errors, source: &Value, path: &Path) {
    let template = doc::get(source, "volumeClaimTemplate");
    let path = path.child("volumeClaimTemplate");
    if template.is_null() {
        errors.required(&path, "");
        return;
    }
    let meta = doc::get(template, "metadata");
    crate::validation::meta::annotations(errors, meta, &path.child("metadata"));
    labels::labels(errors, meta, "labels", &path.child("metadata"));
    for (key, _) in meta.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "annotations" | "labels") {
            errors.forbidden(
                &path.child("metadata").child(key),
                "cannot be set for an ephemeral volume",
            );
        }
    }
    crate::validation::storage::claim_spec(errors, doc::get(template, "spec"), &path.child("spec"));
}

fn csi_inline(errors: &mut Errors, source: &Value, path: &Path) {
    csi_driver_name(errors, doc::text(source, "driver"), &path.child("driver"));
    let secret = doc::get(source, "nodePublishSecretRef");
    if !secret.is_null() {
        errors.need_text(secret, "name", &path.child("nodePublishSecretRef"));
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(errors: &mut Errors, name: &str, path: &Path) {
    if name.is_empty() {
        return;
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.all_invalid(path, name, names::dns_subdomain(&name.to_lowercase()));
}

fn iscsi(errors: &mut Errors, source: &Value, path: &Path) {
    const START: [&str; 3] = ["iqn", "eui", "naa"];
    let iqn = doc::text(source, "iqn");
    if !iqn.is_empty() && !START.iter().any(|start| iqn.starts_with(start)) {
        errors.invalid(
            &path.child("iqn"),
            iqn,
            "must be valid format starting with iqn, eui, or naa",
        );
    }
    let lun = doc::int(source, "lun").unwrap_or_default();
    if !(0..=255).contains(&lun) {
        errors.invalid(&path.child("lun"), lun, names::out_of_range(0, 255));
    }
    let authenticates =
        doc::flag(source, "chapAuthDiscovery") || doc::flag(source, "chapAuthSession");
    if authenticates && !doc::has(source, "secretRef") {
        errors.required(&path.child("secretRef"), "");
    }
    if let Some(initiator) = doc::opt_text(source, "initiatorName")
        && !START.iter().any(|start| initiator.starts_with(start))
    {
        errors.invalid(
            &path.child("initiatorname"),
            initiator,
            "must be valid format starting with iqn, eui, or naa",
        );
    }
}

fn fibre_channel(errors: &mut Errors, source: &Value, path: &Path) {
    let (targets, wwids) = (doc::list(source, "targetWWNs"), doc::list(source, "wwids"));
    let own = path.child("targetWWNs");
    if targets.is_empty() && wwids.is_empty() {
        errors.required(
            &own,
            "must specify either targetWWNs or wwids, but not both",
        );
    }
    if !targets.is_empty() && !wwids.is_empty() {
        errors.invalid(
            &own,
            doc::get(source, "targetWWNs").clone(),
            "targetWWNs and wwids can not be specified simultaneously",
        );
    }
    if !targets.is_empty() {
        match doc::int(source, "lun") {
            None => errors.required(
                &path.child("lun"),
                "lun is required if targetWWNs is specified",
            ),
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.invalid(&path.child("lun"), lun, names::out_of_range(0, 255));
            }
            Some(_) => {}
        }
    }
}

fn flocker(errors: &mut Errors, source: &Value, path: &Path) {
    let (name, uuid) = (
        doc::text(source, "datasetName"),
        doc::text(source, "datasetUUID"),
    );
    if name.is_empty() && uuid.is_empty() {
        errors.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        errors.invalid(
            path,
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        );
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}
