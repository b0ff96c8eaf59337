//! Images made here, of programs that are on this machine: no registry is asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest::{SHA256, digest};
use serde_json::json;

/// A statically linked busybox, if the machine has one.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| {
            let dynamic = Command::new("ldd").arg(path).output();
            path.is_file() && dynamic.is_ok_and(|output| !output.status.success())
        })
}

/// What stands in a layer.
enum Entry<'a> {
    Directory,
    Program(&'a [u8]),
    File(&'a [u8]),
    Link(&'a str),
}

/// Writes an image of busybox under a name, with every applet, users and a page for its web server. The page is the image's name, so that
/// versions can be told apart.
pub(crate) fn write_busybox(busybox: &Path, name: &str, archive: &Path) {
    write_busybox_with(busybox, name, &["sh"], archive);
}

/// The same, with a command that is run when nothing else is said.
pub(crate) fn write_busybox_with(busybox: &Path, name: &str, command: &[&str], archive: &Path) {
    let program = std::fs::read(busybox).unwrap();
    let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
    let applets = String::from_utf8(applets).unwrap();
    let links: Vec<String> = applets
        .lines()
        .filter(|applet| *applet != "busybox")
        .map(|applet| format!("bin/{applet}"))
        .collect();
    let users = b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
    let groups = b"root:x:0:\nnogroup:x:65534:\n";
    let mut entries = vec![
        ("bin", 0o755, Entry::Directory),
        ("bin/busybox", 0o755, Entry::Program(&program)),
        ("etc", 0o755, Entry::Directory),
        ("etc/passwd", 0o644, Entry::File(users)),
        ("etc/group", 0o644, Entry::File(groups)),
        ("root", 0o700, Entry::Directory),
        ("tmp", 0o1777, Entry::Directory),
        ("www", 0o755, Entry::Directory),
        ("www/index.html", 0o644, Entry::File(name.as_bytes())),
    ];
    entries.extend(
        links
            .iter()
            .map(|link| (link.as_str(), 0o777, Entry::Link("busybox"))),
    );
    let layer = tar(&entries);

    let sha = |bytes: &[u8]| {
        let hex = digest(&SHA256, bytes);
        hex.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha(&layer))]},
    })
    .to_string();
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", sha(bytes)),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()),
        "layers": [descriptor("layer.v1.tar", &layer)],
    })
    .to_string();
    let mut described = descriptor("manifest.v1+json", manifest.as_bytes());
    described["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [described]}).to_string();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha(bytes));
    let (of_config, of_manifest, of_layer) = (
        blob(config.as_bytes()),
        blob(manifest.as_bytes()),
        blob(&layer),
    );
    let image = tar(&[
        (
            "oci-layout",
            0o644,
            Entry::File(br#"{"imageLayoutVersion":"1.0.0"}"#),
        ),
        ("index.json", 0o644, Entry::File(index.as_bytes())),
        (&of_config, 0o644, Entry::File(config.as_bytes())),
        (&of_manifest, 0o644, Entry::File(manifest.as_bytes())),
        (&of_layer, 0o644, Entry::File(&layer)),
    ]);
    std::fs::write(archive, image).unwrap();
}

fn tar(entries: &[(&str, u32, Entry<'_>)]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (path, mode, entry) in entries {
        let (kind, contents, target): (&str, &[u8], &str) = match entry {
            Entry::Directory => ("5", b"", ""),
            Entry::Program(contents) | Entry::File(contents) => ("0", contents, ""),
            Entry::Link(target) => ("2", b"", target),
        };
        let mut header = [0u8; BLOCK];
        let mut field = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        field(0, path);
        field(100, &format!("{mode:07o}"));
        field(108, "0000000");
        field(116, "0000000");
        field(124, &format!("{:011o}", contents.len()));
        field(136, "00000000000");
        field(148, "        ");
        field(156, kind);
        field(157, target);
        field(257, "ustar");
        field(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(contents);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}
