//! What cgroups are called, by either driver.

/// A cgroup by the parts of its name, from the root down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupName(Vec<String>);

impl CgroupName {
    /// The cgroup at a path of directories.
    pub(super) fn new(path: &str) -> Self {
        Self(
            path.split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// The one of this name below it.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// As directories: `/kubepods/burstable/pod1f0e`.
    pub(super) fn to_path(&self) -> String {
        format!("/{}", self.0.join("/"))
    }

    /// As slices of systemd, whose names tell the way from the root: `/kubepods.slice/kubepods-burstable.slice/…`. A dash would be a
    /// step on that way, so those of a part become underscores.
    pub(super) fn to_slices(&self) -> String {
        let mut path = String::new();
        let mut name = String::new();
        for part in &self.0 {
            if !name.is_empty() {
                name.push('-');
            }
            name.push_str(&part.replace('-', "_"));
            path.push('/');
            path.push_str(&name);
            path.push_str(".slice");
        }
        if path.is_empty() {
            "/".to_owned()
        } else {
            path
        }
    }
}

/// The uid in the last part of a pod's cgroup, as either driver names it.
pub(super) fn uid_of(directory: &str) -> Option<String> {
    let uid = match directory.strip_suffix(".slice") {
        Some(slice) => slice
            .rsplit_once('-')?
            .1
            .strip_prefix("pod")?
            .replace('_', "-"),
        None => directory.strip_prefix("pod")?.to_owned(),
    };
    (!uid.is_empty()).then_some(uid)
}

/// Whether a uid can be part of a path.
pub(super) fn is_uid(uid: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !uid.is_empty() && uid.len() <= 128 && uid.bytes().all(fits) && !uid.starts_with('.')
}
