//! Tests in namespaces of their own.
//!
//! A test that runs containers changes what belongs to the whole machine: mounts, interfaces, packet filters, processes. One that runs in
//! [`isolated`] changes its own: it is started once more as the first process of new namespaces, and when that process ends, however it
//! ends, the kernel takes everything back.

// Each test that includes this file uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tells the inner process that it is one, and where its directory is.
const INSIDE: &str = "ORLOP_ISOLATED_TEST_DIR";

/// Runs a test, whose whole name this is (`module::name`), as root in its own mount, network and process namespaces, with a directory of its own. The
/// loopback interface is up, packets are forwarded, and `/run` is empty.
///
/// Where that cannot be done, or `missing` names something, the test is skipped by name.
///
/// # Panics
/// When the test fails.
pub fn isolated(test: &str, missing: impl FnOnce() -> Option<String>, body: impl FnOnce(&Path)) {
    let arguments = [test, "--exact", "--nocapture"].map(OsString::from);
    within(test, arguments.into(), missing, body);
}

/// As [`isolated`], for a whole program of this name, which is started once more with its own arguments.
///
/// # Panics
/// When the program fails.
pub fn isolated_program(
    name: &str,
    missing: impl FnOnce() -> Option<String>,
    body: impl FnOnce(&Path),
) {
    within(name, std::env::args_os().skip(1).collect(), missing, body);
}

fn within(
    name: &str,
    arguments: Vec<OsString>,
    missing: impl FnOnce() -> Option<String>,
    body: impl FnOnce(&Path),
) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        let _left = LeftBehind;
        prepare();
        body(&PathBuf::from(dir));
        return;
    }
    let cannot = missing_tool(&["unshare", "ip", "mount"]).or_else(|| {
        let root = rustix::process::geteuid().is_root();
        if root {
            missing()
        } else {
            Some("not root".to_owned())
        }
    });
    if let Some(why) = cannot {
        println!("skipped: {name}: {why}");
        return;
    }
    // The outer process keeps the directory, and removes it when nothing can be mounted in it any more.
    let dir = tempfile::tempdir().expect("a directory");
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().expect("the program's own path"))
        .args(arguments)
        .env(INSIDE, dir.path())
        .status()
        .expect("unshare");
    assert!(
        status.success(),
        "{name} failed in its namespaces: {status}"
    );
}

/// The first of these programs that is not there.
pub fn missing_tool(tools: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let missing = tools
        .iter()
        .find(|tool| !places.iter().any(|place| place.join(tool).is_file()));
    missing.map(|tool| format!("no {tool} on this machine"))
}

/// Runs a program that must succeed.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
}

fn prepare() {
    run("mount", &["-t", "tmpfs", "none", "/run"]);
    run("ip", &["link", "set", "lo", "up"]);
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
}

/// Kills all that is left in the process namespace at the end, and removes its cgroups, which no namespace takes back.
struct LeftBehind;

impl Drop for LeftBehind {
    fn drop(&mut self) {
        let own: BTreeSet<_> = cgroups_of("self").into_iter().collect();
        let mut cgroups = BTreeSet::new();
        // Until nobody is left who could make another.
        for _ in 0..100 {
            let others = processes();
            if others.is_empty() {
                break;
            }
            for pid in others {
                cgroups.extend(cgroups_of(&pid.to_string()));
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            // They become the children of the first process, which is this one.
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for cgroup in cgroups.difference(&own) {
            remove_cgroup(cgroup);
        }
    }
}

/// The processes of this namespace, but for this one and those that have ended.
fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let alive = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state.is_some_and(|state| state != 'Z' && state != 'X')
    };
    pids.filter(|pid| *pid != 1).filter(alive).collect()
}

/// The directories of a process's cgroups, of both versions.
fn cgroups_of(pid: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let dirs = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let mounted = match controllers {
            "" if Path::new("/sys/fs/cgroup/cgroup.procs").exists() => "".to_owned(),
            "" => "unified".to_owned(),
            named if named.starts_with("name=") => named["name=".len()..].to_owned(),
            controllers => controllers.to_owned(),
        };
        let path = path.trim_start_matches('/');
        (!path.is_empty()).then(|| Path::new("/sys/fs/cgroup").join(mounted).join(path))
    });
    dirs.collect()
}

/// Removes a cgroup with those below it, and those above it that are empty then.
fn remove_cgroup(cgroup: &Path) {
    fn below(dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below(&entry.path());
            }
        }
        let _ = fs::remove_dir(dir);
    }
    // A process that has just been killed is in its cgroup for a moment yet.
    for _ in 0..50 {
        below(cgroup);
        if !cgroup.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let above = cgroup.ancestors().skip(1);
    for parent in above.take_while(|parent| parent.components().count() > 5) {
        let _ = fs::remove_dir(parent);
    }
}
