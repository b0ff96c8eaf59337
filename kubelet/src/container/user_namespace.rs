//! Which users of the host stand for those of a pod with a user namespace of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use orlop_core::runtime::{IdMapping, UserNamespace};
use serde::{Deserialize, Serialize};

/// How many ids a pod has; ranges begin at multiples of it, and the first one is the host's own.
const LENGTH: u32 = 65_536;
/// Where a pod's range is written down, in the pod's directory: it must not change while the pod lives.
const FILE: &str = "userns";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    uid_mappings: Vec<Range>,
    gid_mappings: Vec<Range>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl From<Range> for IdMapping {
    fn from(range: Range) -> Self {
        Self {
            host: range.host_id,
            container: range.container_id,
            length: range.length,
        }
    }
}

/// The range of a pod: the one that was written down for it, or the first one that no other pod has. Calls must not run at the same
/// time. A pod's range is free again with the pod's directory.
///
/// # Errors
/// When it cannot be read or written, or all ranges are taken.
pub(super) fn of_pod(pods: &Path, uid: &str, most: u32) -> Result<UserNamespace, String> {
    let own = pods.join(uid);
    if let Some(range) =
        read(&own).map_err(|error| format!("read user namespace of pod {uid}: {error}"))?
    {
        return Ok(mapping(range));
    }
    let mut taken = BTreeSet::new();
    for entry in fs::read_dir(pods).into_iter().flatten().flatten() {
        if let Ok(Some(range)) = read(&entry.path()) {
            taken.insert(range.host_id / LENGTH);
        }
    }
    let free = (1..=most).find(|place| !taken.contains(place));
    let free = free.ok_or_else(|| format!("all {most} ranges of user ids are taken"))?;
    let range = Range {
        host_id: free * LENGTH,
        container_id: 0,
        length: LENGTH,
    };
    write(&own, range).map_err(|error| format!("write user namespace of pod {uid}: {error}"))?;
    Ok(mapping(range))
}

fn mapping(range: Range) -> UserNamespace {
    UserNamespace::Pod {
        uids: vec![range.into()],
        gids: vec![range.into()],
    }
}

fn read(pod: &Path) -> io::Result<Option<Range>> {
    let bytes = match fs::read(pod.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let written: Written = serde_json::from_slice(&bytes)?;
    Ok(written.uid_mappings.first().copied())
}

fn write(pod: &Path, range: Range) -> io::Result<()> {
    fs::create_dir_all(pod)?;
    let written = Written {
        uid_mappings: vec![range],
        gid_mappings: vec![range],
    };
    // Whole or not at all: half a file would be an error for ever.
    let (path, draft) = (pod.join(FILE), pod.join(".userns.tmp"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&draft)?;
    io::Write::write_all(&mut file, &serde_json::to_vec(&written)?)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_a_range_of_its_own_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let host = |uid: &str, most: u32| match of_pod(dir.path(), uid, most) {
            Ok(UserNamespace::Pod { uids, .. }) => Ok(uids[0].host / LENGTH),
            Ok(UserNamespace::Host) => panic!("no namespace"),
            Err(error) => Err(error),
        };
        assert_eq!(host("a", 2), Ok(1));
        assert_eq!(host("b", 2), Ok(2));
        assert_eq!(host("a", 2), Ok(1), "it stays");
        assert!(host("c", 2).unwrap_err().contains("taken"));
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(host("c", 2), Ok(1));
    }
}
