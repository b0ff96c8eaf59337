//! Ending what is left in a cgroup, and removing it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::{CgroupError, files};

/// The processes in a cgroup and in those below it. None for a cgroup that is not there.
pub(super) fn processes(directory: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for path in tree(directory) {
        let text = files::read(&path.join("cgroup.procs")).unwrap_or_default();
        found.extend(
            text.lines()
                .filter_map(|line| line.trim().parse::<i32>().ok()),
        );
    }
    // Processes of another PID namespace show as 0, and can only be killed from there or by the cgroup as a whole.
    found.remove(&0);
    found
}

/// Sends SIGKILL to all processes of a cgroup, given by its directories in all hierarchies. Returns how many there were. Those that
/// are made meanwhile are found the next time.
pub(super) fn kill(directories: &[PathBuf]) -> usize {
    let found: BTreeSet<i32> = directories
        .iter()
        .flat_map(|path| processes(path))
        .collect();
    if found.is_empty() {
        return 0;
    }
    for directory in directories {
        // Since Linux 5.14 version 2 kills a tree at once; a missing file leaves it to the signals below.
        let _ = files::write(&directory.join("cgroup.kill"), "1");
    }
    // What cannot run cannot fork. A frozen process of version 1 dies when it is thawed.
    let freeze = |on: bool| {
        for directory in directories {
            let _ = files::write(
                &directory.join("freezer.state"),
                if on { "FROZEN" } else { "THAWED" },
            );
            let _ = files::write(&directory.join("cgroup.freeze"), if on { "1" } else { "0" });
        }
    };
    freeze(true);
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for &process in &found {
        // Whoever moved init or this very process into a pod's cgroup did not mean it to be killed.
        if process == 1 || process == own {
            continue;
        }
        if let Some(pid) = Pid::from_raw(process) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    freeze(false);
    found.len()
}

/// Removes the directories of a cgroup, the lowest first. Succeeds for what is not there.
///
/// # Errors
/// When one is in use.
pub(super) fn remove(directories: &[PathBuf]) -> Result<(), CgroupError> {
    for directory in directories {
        for path in tree(directory).into_iter().rev() {
            match fs::remove_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CgroupError::io("remove", path)(error)),
            }
        }
    }
    Ok(())
}

/// A directory and all below it, parents before their children; nothing if it is not there.
fn tree(directory: &Path) -> Vec<PathBuf> {
    if !directory.is_dir() {
        return Vec::new();
    }
    let mut all = vec![directory.to_owned()];
    let mut at = 0;
    while let Some(path) = all.get(at).cloned() {
        all.extend(children(&path));
        at += 1;
    }
    all
}

/// The directories in a directory, in order of their names.
pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
    found.sort();
    found
}
