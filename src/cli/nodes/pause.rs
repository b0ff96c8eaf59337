//! The image of sandboxes: one program that does nothing, so that a pod has a process to keep its namespaces.
//!
//! An engine needs such an image before it can run the first pod. The usual one comes from a registry; this one is made here, of a
//! program so small that it is written out below, and of nothing else. So the first pod needs no network.

use std::path::Path;

use serde_json::json;

use crate::cli::Failure;

/// What it is called in an engine's store.
pub(super) const NAME: &str = "orlop.local/pause:1";

/// The architecture's name in images, the machine's number in ELF, and the program.
///
/// The program leaves its children to the kernel (`SIGCHLD` is ignored, so none becomes a zombie where a pod shares its process ids)
/// and then waits for ever.
#[cfg(target_arch = "x86_64")]
const PROGRAM: (&str, u16, &[u8]) = (
    "amd64",
    62,
    &[
        0x6a, 0x00, // push 0         sa_mask
        0x6a, 0x00, // push 0         sa_restorer
        0x6a, 0x00, // push 0         sa_flags
        0x6a, 0x01, // push 1         sa_handler: SIG_IGN
        0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, 17   SIGCHLD
        0x48, 0x89, 0xe6, // mov rsi, rsp
        0x31, 0xd2, // xor edx, edx
        0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
        0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 13   rt_sigaction
        0x0f, 0x05, // syscall
        0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34   pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp back to the mov
    ],
);
#[cfg(target_arch = "aarch64")]
const PROGRAM: (&str, u16, &[u8]) = (
    "arm64",
    183,
    &[
        0xff, 0x83, 0x00, 0xd1, // sub sp, sp, 32
        0x29, 0x00, 0x80, 0xd2, // mov x9, 1          SIG_IGN
        0xe9, 0x7f, 0x00, 0xa9, // stp x9, xzr, [sp]
        0xff, 0x7f, 0x01, 0xa9, // stp xzr, xzr, [sp, 16]
        0x20, 0x02, 0x80, 0xd2, // mov x0, 17         SIGCHLD
        0xe1, 0x03, 0x00, 0x91, // mov x1, sp
        0x02, 0x00, 0x80, 0xd2, // mov x2, 0
        0x03, 0x01, 0x80, 0xd2, // mov x3, 8
        0xc8, 0x10, 0x80, 0xd2, // mov x8, 134        rt_sigaction
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0x00, 0x00, 0x80, 0xd2, // mov x0, 0
        0x01, 0x00, 0x80, 0xd2, // mov x1, 0
        0x02, 0x00, 0x80, 0xd2, // mov x2, 0
        0x03, 0x00, 0x80, 0xd2, // mov x3, 0
        0x28, 0x09, 0x80, 0xd2, // mov x8, 73         ppoll
        0x01, 0x00, 0x00, 0xd4, // svc 0
        0xfa, 0xff, 0xff, 0x17, // b back to the first mov x0, 0
    ],
);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the pause program is not written for this architecture");

/// A program as an ELF executable: a header, one segment, the code.
fn executable(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = Vec::with_capacity(HEADERS as usize + code.len());
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(2u16.to_le_bytes()); // executable
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // where it begins
    elf.extend(64u64.to_le_bytes()); // the segment's header is behind this one
    elf.extend(0u64.to_le_bytes());
    elf.extend(0u32.to_le_bytes());
    for size in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(size.to_le_bytes());
    }
    let size = HEADERS + code.len() as u64;
    elf.extend(1u32.to_le_bytes()); // to be loaded,
    elf.extend(5u32.to_le_bytes()); // read and executed
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// The SHA-256 of bytes, in hexadecimal.
fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        use std::fmt::Write;
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A tar archive of files: path, mode, contents.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive = Vec::new();
    for (path, mode, contents) in files {
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
        field(156, "0");
        field(257, "ustar");
        field(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*contents);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

/// The image as an archive that an engine imports.
fn archive() -> Vec<u8> {
    let (architecture, machine, code) = PROGRAM;
    let layer = tar(&[("pause", 0o755, &executable(machine, code))]);
    let digest = |bytes: &[u8]| format!("sha256:{}", sha256_hex(bytes));
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config.as_bytes()),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(&layer),
            "size": layer.len(),
        }],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest.as_bytes()),
            "size": manifest.len(),
            "annotations": {"io.containerd.image.name": NAME},
        }],
    })
    .to_string();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256_hex(bytes));
    tar(&[
        ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", 0o644, index.as_bytes()),
        (&blob(config.as_bytes()), 0o644, config.as_bytes()),
        (&blob(manifest.as_bytes()), 0o644, manifest.as_bytes()),
        (&blob(&layer), 0o644, &layer),
    ])
}

/// Writes the archive to a file.
pub(super) fn write(path: &Path) -> Result<(), Failure> {
    std::fs::write(path, archive())
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs_and_waits_until_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pause");
        std::fs::write(&path, executable(PROGRAM.1, PROGRAM.2)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        // Still there; and gone by the signal, not by a fault of its own.
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }

    #[test]
    fn an_archive_is_whole_blocks() {
        let archive = archive();
        assert_eq!(archive.len() % 512, 0);
        assert!(archive.starts_with(b"oci-layout"));
    }
}
