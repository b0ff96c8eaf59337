//! What the machine itself tells.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::summary::{FsStats, InterfaceStats, NetworkStats, RlimitStats};

/// When the machine was started.
pub(super) fn boot_time() -> Option<Timestamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// The file system that a path lies on. A path that is not there yet lies where its parent does.
pub(super) fn filesystem(path: &Path, at: Timestamp) -> Option<FsStats> {
    let of = path
        .ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(of.f_frsize);
    Some(FsStats {
        time: Some(at),
        available_bytes: Some(bytes(of.f_bavail)),
        capacity_bytes: Some(bytes(of.f_blocks)),
        used_bytes: Some(bytes(of.f_blocks.saturating_sub(of.f_bfree))),
        inodes_free: Some(of.f_ffree),
        inodes: Some(of.f_files),
        inodes_used: Some(of.f_files.saturating_sub(of.f_ffree)),
    })
}

/// How many processes there may be and are.
pub(super) fn processes(at: Timestamp) -> Option<RlimitStats> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let most = number("/proc/sys/kernel/pid_max")?;
    let threads = number("/proc/sys/kernel/threads-max").unwrap_or(most);
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    // Running and all, as `2/345`.
    let all = load.split_whitespace().nth(3)?.split_once('/')?.1;
    Some(RlimitStats {
        time: Some(at),
        max_pid: Some(most.min(threads)),
        processes: all.parse().ok(),
    })
}

/// The traffic of the machine.
pub(super) fn network(at: Timestamp) -> Option<NetworkStats> {
    let interfaces = interfaces(&fs::read_to_string("/proc/net/dev").ok()?);
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (name, to) = (fields.next()?, fields.next()?);
        (to == "00000000").then(|| name.to_owned())
    });
    let main = interfaces
        .iter()
        .find(|interface| default.as_ref() == Some(&interface.name))
        .or(interfaces.first())?;
    Some(NetworkStats {
        time: at,
        main: main.clone(),
        interfaces,
    })
}

/// Reads `/proc/net/dev`. The loopback, and what belongs to pods, is left out.
fn interfaces(text: &str) -> Vec<InterfaceStats> {
    let lines = text.lines().skip(2);
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let name = name.trim();
            if name == "lo" || name.starts_with("veth") {
                return None;
            }
            let fields: Vec<u64> = rest
                .split_whitespace()
                .filter_map(|field| field.parse().ok())
                .collect();
            Some(InterfaceStats {
                name: name.to_owned(),
                rx_bytes: *fields.first()?,
                rx_errors: *fields.get(2)?,
                tx_bytes: *fields.get(8)?,
                tx_errors: *fields.get(10)?,
            })
        })
        .collect()
}

/// How much the files of a directory take, without what lies deeper.
pub(super) fn files(directory: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        // The kernel counts in blocks of 512 bytes, whatever the file system does.
        .map(|metadata| metadata.blocks() * 512);
    sizes.fold((0, 0), |(bytes, count), size| (bytes + size, count + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:12345678     100    7    0    0     0          0         0     4321      50    3    0    0     0       0          0
vethab:       1       1    0    0    0     0          0         0        1       1    0    0    0     0       0          0
";
        assert_eq!(
            interfaces(text),
            [InterfaceStats {
                name: "eth0".to_owned(),
                rx_bytes: 12_345_678,
                rx_errors: 7,
                tx_bytes: 4321,
                tx_errors: 3,
            }]
        );
    }

    #[test]
    fn this_machine_tells() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(boot_time().unwrap() > now);
        let disk = filesystem(Path::new("/no/such/path"), now).unwrap();
        assert!(disk.capacity_bytes.unwrap() >= disk.available_bytes.unwrap());
        let processes = processes(now).unwrap();
        assert!(processes.processes.unwrap() > 0 && processes.max_pid.unwrap() > 0);
    }
}
