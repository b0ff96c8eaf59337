//! Whether this machine lets anybody run containers: having the programs is not enough in a sandbox that forbids what they do.
//!
//! Everything here is done by the tools themselves, and nothing of Orlop has a part in it: what fails here is the machine's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why containers with networks cannot be run here; nothing if they can. Leaves nothing behind.
pub(crate) fn refusal(busybox: &[u8]) -> Option<String> {
    network().or_else(|| files(busybox)).err_text()
}

/// A step that fails with a text.
struct Step(Result<(), String>);

impl Step {
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        match self.0 {
            Ok(()) => next(),
            Err(_) => self,
        }
    }

    fn err_text(self) -> Option<String> {
        self.0.err()
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    use std::io::Write;
    let what = || format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", what()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{}: {error}", what()))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{}: {error}", what()))
}

/// Namespaces, bridges, cables and rules.
fn network() -> Step {
    let name = format!("preflight-{}", std::process::id());
    let script = "table ip t {\n  chain c {\n    type nat hook postrouting priority srcnat; policy accept;\n    masquerade\n  }\n}\n";
    let tried = run("ip", &["netns", "add", &name], "").and_then(|()| {
        run(
            "ip",
            &[
                "-n", &name, "link", "add", "one", "type", "veth", "peer", "name", "two",
            ],
            "",
        )?;
        run(
            "ip",
            &["-n", &name, "link", "add", "three", "type", "bridge"],
            "",
        )?;
        run("ip", &["netns", "exec", &name, "nft", "-f", "-"], script)
    });
    let _ = run("ip", &["netns", "del", &name], "");
    Step(tried)
}

/// Layers of files, and a container made of one.
fn files(busybox: &[u8]) -> Step {
    let directory = std::env::temp_dir().join(format!("preflight-{}", std::process::id()));
    let tried = container(&directory, busybox);
    let _ = run(
        "umount",
        &[&directory.join("rootfs").display().to_string()],
        "",
    );
    let _ = std::fs::remove_dir_all(&directory);
    Step(tried)
}

fn container(directory: &Path, busybox: &[u8]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    for part in ["lower/bin", "upper", "work", "rootfs", "runc"] {
        std::fs::create_dir_all(directory.join(part)).map_err(failed)?;
    }
    let program = directory.join("lower/bin/busybox");
    std::fs::write(&program, busybox).map_err(failed)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let path = |part: &str| directory.join(part).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower"),
        path("upper"),
        path("work")
    );
    run(
        "mount",
        &["-t", "overlay", "overlay", "-o", &options, &path("rootfs")],
        "",
    )?;
    let bundle = directory.display().to_string();
    run("runc", &["spec", "--bundle", &bundle], "")?;
    let spec = directory.join("config.json");
    let text = std::fs::read_to_string(&spec).map_err(failed)?;
    let text = text
        .replace("\"terminal\": true", "\"terminal\": false")
        .replace("\"sh\"", "\"/bin/busybox\", \"true\"");
    std::fs::write(&spec, text).map_err(failed)?;
    let id = format!("preflight-{}", std::process::id());
    run(
        "runc",
        &["--root", &path("runc"), "run", "--bundle", &bundle, &id],
        "",
    )
}
