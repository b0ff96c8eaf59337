//! Reading manifests.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use orlop_core::resource::GroupVersionKind;
use serde_json::Value;

use crate::pod::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE};

/// The largest manifest that is read, in bytes: a pod's most in the API.
const LARGEST: u64 = 3 << 20;

/// Why a file is no manifest of a pod.
#[derive(Debug, thiserror::Error)]
enum BadManifest {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Yaml(#[from] orlop_wire::yaml::YamlError),
    #[error("it is no pod: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Invalid(String),
}

/// The pods of a directory's files, or of a file. What is no pod's manifest is told and passed over.
///
/// # Errors
/// The directory or file cannot be read. One that is not there has no pods.
pub(super) fn read(path: &Path, node: &str, seen: Timestamp) -> io::Result<Vec<Pod>> {
    let mut files = Vec::new();
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            for file in std::fs::read_dir(path)? {
                let file = file?.path();
                let hidden = file
                    .file_name()
                    .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
                if !hidden && file.is_file() {
                    files.push(file);
                }
            }
        }
        Ok(_) => files.push(PathBuf::from(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    files.sort();
    let mut pods = Vec::new();
    for file in files {
        match read_file(&file, node, seen) {
            Ok(pod) => pods.push(pod),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "a manifest is passed over");
            }
        }
    }
    Ok(pods)
}

fn read_file(path: &Path, node: &str, seen: Timestamp) -> Result<Pod, BadManifest> {
    if std::fs::metadata(path)?.len() > LARGEST {
        return Err(BadManifest::Invalid("it is too large".to_owned()));
    }
    let bytes = std::fs::read(path)?;
    let mut document = orlop_wire::yaml::from_slice(&bytes)?;
    let invalid = |what: &str| Err(BadManifest::Invalid(what.to_owned()));
    if document["kind"] != "Pod" || document["apiVersion"] != "v1" {
        return invalid("it is no v1 Pod");
    }
    let name = document["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return invalid("it has no name");
    }
    let node = node.to_lowercase();
    let name = format!("{name}-{node}");
    // Where it lies is part of what it is: the same text in two files is two pods.
    let mut text = serde_json::to_vec(&document)?;
    text.extend_from_slice(b"\0host:");
    text.extend_from_slice(node.as_bytes());
    text.extend_from_slice(b"\0file:");
    text.extend_from_slice(path.as_os_str().as_encoded_bytes());
    let own = document["metadata"]["uid"].as_str().map(str::to_owned);
    let hash = own
        .filter(|uid| !uid.is_empty())
        .unwrap_or_else(|| hash(&text));

    let metadata = &mut document["metadata"];
    metadata["name"] = Value::from(name);
    metadata["uid"] = Value::from(hash.clone());
    if metadata["namespace"].as_str().is_none_or(str::is_empty) {
        metadata["namespace"] = Value::from("default");
    }
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = Value::Object(serde_json::Map::new());
    }
    let annotations = &mut metadata["annotations"];
    annotations[CONFIG_SOURCE] = Value::from("file");
    annotations[CONFIG_HASH] = Value::from(hash);
    annotations[CONFIG_SEEN] = Value::from(seen.to_string());
    document["spec"]["nodeName"] = Value::from(node);
    let kind = GroupVersionKind {
        group: "".into(),
        version: "v1".into(),
        kind: "Pod".into(),
    };
    orlop_api::defaults::apply(&kind, &mut document);
    let errors = orlop_api::validation::validate_create(&kind, &document);
    if let Some(first) = errors.first() {
        return Err(BadManifest::Invalid(first.to_string()));
    }
    let mut pod: Pod = serde_json::from_value(document)?;
    let own = pod.spec.get_or_insert_default();
    let refers = own
        .service_account_name
        .as_deref()
        .is_some_and(|name| !name.is_empty());
    if refers {
        return invalid("a static pod may not name a service account");
    }
    // What is wrong with the node does not drive a static pod out.
    own.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        ..PodStatus::default()
    });
    Ok(pod)
}

/// FNV-1a of 128 bits, as 32 hexadecimal digits.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(
        0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128,
        |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b),
    );
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    #[test]
    fn manifests_become_pods_of_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: nginx}\n";
        write("b.yaml", manifest);
        write("a.json", &serde_json::to_string(&serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "db", "namespace": "kube-system"}, "spec": {"containers": [{"name": "c", "image": "redis"}]}})).unwrap());
        write(".hidden", manifest);
        write("broken.yaml", "kind: [");
        write(
            "other.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n",
        );
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        let pods = read(directory.path(), "Node-1", now).unwrap();
        let names: Vec<_> = pods
            .iter()
            .map(|pod| (spec::namespace(pod), spec::name(pod)))
            .collect();
        assert_eq!(
            names,
            [("kube-system", "db-node-1"), ("default", "web-node-1")]
        );
        let web = &pods[1];
        assert_eq!(spec::uid(web).len(), 32);
        assert!(spec::is_static(web) && !spec::is_mirror(web));
        let own = web.spec.as_ref().unwrap();
        assert_eq!(own.node_name.as_deref(), Some("node-1"));
        assert_eq!(
            own.restart_policy.as_deref(),
            Some("Always"),
            "defaults are filled in"
        );
        assert_eq!(
            own.tolerations
                .as_ref()
                .unwrap()
                .last()
                .unwrap()
                .operator
                .as_deref(),
            Some("Exists")
        );
        let uid = spec::uid(web).to_owned();
        let again = read(&directory.path().join("b.yaml"), "node-1", now).unwrap();
        assert_eq!(spec::uid(&again[0]), uid, "the same file, the same pod");
        write("b.yaml", &manifest.replace("nginx", "nginx:2"));
        let changed = read(&directory.path().join("b.yaml"), "node-1", now).unwrap();
        assert_ne!(spec::uid(&changed[0]), uid);
        assert_eq!(
            read(&directory.path().join("none"), "node-1", now).unwrap(),
            []
        );
    }
}
