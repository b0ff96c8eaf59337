//! What the machine is and has: read once, when the node agent starts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What a machine is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineInfo {
    /// Logical CPUs.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Swap, in bytes.
    pub swap: u64,
    /// How many huge pages there are, by their size in bytes.
    pub hugepages: BTreeMap<u64, u64>,
    /// The size of the file system that pods' volumes are on, in bytes.
    pub ephemeral_storage: u64,
    /// What `/etc/machine-id` says.
    pub machine_id: String,
    /// What the firmware says, else the machine's id.
    pub system_uuid: String,
    /// Another one with every start of the kernel.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The name of the distribution.
    pub os_image: String,
    /// The architecture, as Go names it.
    pub architecture: String,
}

impl MachineInfo {
    /// Reads what this machine is. `root_dir` is where pods' volumes are. Reads files, so call it where that may wait.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or the file system of `root_dir`. What else is missing is left empty.
    pub fn read(root_dir: &Path) -> io::Result<Self> {
        let text = |path: &str| std::fs::read_to_string(path);
        let line = |path: &str| text(path).unwrap_or_default().trim().to_owned();
        let memory = MemInfo::parse(&text("/proc/meminfo")?);
        let machine_id = Some(line("/etc/machine-id"))
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| line("/var/lib/dbus/machine-id"));
        let system_uuid = Some(line("/sys/class/dmi/id/product_uuid"))
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| machine_id.clone());
        let os_release = text("/etc/os-release").or_else(|_| text("/usr/lib/os-release"));
        let disk = rustix::fs::statvfs(root_dir)?;
        Ok(Self {
            cpus: processors(&text("/proc/cpuinfo")?),
            memory: memory.total,
            swap: memory.swap,
            hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
            ephemeral_storage: disk.f_blocks.saturating_mul(disk.f_frsize),
            machine_id,
            system_uuid,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel_version: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            os_image: pretty_name(&os_release.unwrap_or_default()),
            architecture: architecture(std::env::consts::ARCH).to_owned(),
        })
    }

    /// A machine that is not there, for nodes that run nothing.
    #[must_use]
    pub fn simulated(cpus: u64, memory: u64, ephemeral_storage: u64) -> Self {
        Self {
            cpus,
            memory,
            ephemeral_storage,
            os_image: "simulated".to_owned(),
            architecture: architecture(std::env::consts::ARCH).to_owned(),
            ..Self::default()
        }
    }
}

/// What of `/proc/meminfo` is wanted, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemInfo {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) swap: u64,
    pub(crate) inactive_file: u64,
}

impl MemInfo {
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once(':') else {
                continue;
            };
            let field = match name {
                "MemTotal" => &mut found.total,
                "MemFree" => &mut found.free,
                "SwapTotal" => &mut found.swap,
                "Inactive(file)" => &mut found.inactive_file,
                _ => continue,
            };
            let number = rest
                .split_whitespace()
                .next()
                .and_then(|number| number.parse().ok());
            // The unit is always kB, and means 1024.
            *field = number.unwrap_or(0u64).saturating_mul(1024);
        }
        found
    }
}

/// How many processors `/proc/cpuinfo` lists; at least one.
fn processors(text: &str) -> u64 {
    let lines = text.lines().filter(|line| {
        line.split(':')
            .next()
            .is_some_and(|name| name.trim() == "processor")
    });
    (lines.count() as u64).max(1)
}

/// The kernel's directories, such as `hugepages-2048kB/nr_hugepages`.
fn hugepages(directory: &Path) -> BTreeMap<u64, u64> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| {
            let number = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
            number.parse::<u64>().ok()?.checked_mul(1024)
        });
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages"));
        let count = count.ok().and_then(|count| count.trim().parse().ok());
        if let (Some(size), Some(count)) = (size, count) {
            pages.insert(size, count);
        }
    }
    pages
}

/// `PRETTY_NAME` of an os-release file, else its `NAME`.
fn pretty_name(text: &str) -> String {
    let field = |wanted: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == wanted).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
        })
    };
    field("PRETTY_NAME")
        .or_else(|| field("NAME"))
        .unwrap_or_else(|| "Unknown".to_owned())
}

/// Go's name of an architecture.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        let meminfo = "MemTotal:       24684092 kB\nMemFree:        23888368 kB\nInactive(anon):   1 kB\n\
                       Inactive(file):   102400 kB\nSwapTotal:       0 kB\nHugePages_Total:       0\nodd\n";
        let want = MemInfo {
            total: 24_684_092 * 1024,
            free: 23_888_368 * 1024,
            swap: 0,
            inactive_file: 100 << 20,
        };
        assert_eq!(MemInfo::parse(meminfo), want);
        assert_eq!(MemInfo::parse("MemTotal: lots"), MemInfo::default());
        assert_eq!(
            processors("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"),
            2
        );
        assert_eq!(processors("CPU implementer : 0x41\n"), 1);
        let release = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(pretty_name(release), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(pretty_name("NAME=Alpine\n"), "Alpine");
        assert_eq!(pretty_name(""), "Unknown");
    }

    #[test]
    fn huge_pages_are_counted_by_their_size() {
        let dir = tempfile::tempdir().unwrap();
        for (name, count) in [
            ("hugepages-2048kB", "3\n"),
            ("hugepages-1048576kB", "0\n"),
            ("other", "1"),
        ] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(
            hugepages(dir.path()),
            BTreeMap::from([(2 << 20, 3), (1 << 30, 0)])
        );
        assert_eq!(hugepages(&dir.path().join("none")), BTreeMap::new());
    }

    #[test]
    fn this_machine_is_something() {
        let machine = MachineInfo::read(Path::new("/")).unwrap();
        assert!(
            machine.cpus > 0 && machine.memory > 1 << 20 && machine.ephemeral_storage > 1 << 20
        );
        assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
        assert!(MachineInfo::read(Path::new("/no such place")).is_err());
    }
}
