//! A registry of images in the test's own process: real pulls without a network.

// Each test that includes this file uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// The host that is in the names of its images. Engines are told to ask [`Registry::address`] for it.
pub const HOST: &str = "images.test";

/// The user and the password that [private](Registry::make_private) images want.
pub const LOGIN: (&str, &str) = ("reader", "open-sesame");

/// What images are made of.
#[derive(Default)]
struct Content {
    /// Blobs and manifests, by digest.
    blobs: BTreeMap<String, Vec<u8>>,
    /// Digests of manifests, by `name:tag`.
    tags: BTreeMap<String, String>,
    /// Names that want a login.
    private: Vec<String>,
    /// How often a manifest was asked for by its tag.
    asked: u64,
}

/// A registry that serves as long as the process lives.
#[derive(Clone)]
pub struct Registry {
    content: Arc<Mutex<Content>>,
    port: u16,
}

/// A file of an image.
pub enum Entry {
    /// A directory with a mode.
    Directory(u32),
    /// A file with a mode.
    File(u32, Vec<u8>),
    /// A symbolic link.
    Link(&'static str),
}

impl Registry {
    /// An empty registry on the loopback interface.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let content: Arc<Mutex<Content>> = Arc::default();
        let served = content.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = served.clone();
                thread::spawn(move || serve(&content, stream));
            }
        });
        Self { content, port }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Adds an image of one layer. `name` is with a tag and without [`HOST`]; `config` is the `config` of its configuration
    /// (`Entrypoint`, `Cmd`, `Env`, …).
    pub fn add(&self, name: &str, files: &[(&str, &Entry)], config: &Value) {
        let layer = tar(files);
        let configuration = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let configuration = configuration.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&configuration),
                "size": configuration.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(&layer),
                "size": layer.len(),
            }],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut content = self.content();
        content.tags.insert(name.to_owned(), digest(&manifest));
        for blob in [layer, configuration, manifest] {
            content.blobs.insert(digest(&blob), blob);
        }
    }

    /// Adds the first image of an archive in the layout of the OCI, by this name.
    pub fn add_archive(&self, name: &str, archive: &Path) {
        let archive = fs::read(archive).expect("an archive");
        let mut content = self.content();
        let mut index = None;
        let mut at = 0;
        while let Some(header) = archive.get(at..at + 512).filter(|header| header[0] != 0) {
            let text = |from: usize, to: usize| {
                let field = header[from..to]
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default();
                String::from_utf8_lossy(field).trim().to_owned()
            };
            let size = usize::from_str_radix(&text(124, 136), 8).expect("a size");
            let body = archive[at + 512..at + 512 + size].to_vec();
            match text(0, 100).as_str() {
                "index.json" => index = Some(body),
                path if path.starts_with("blobs/sha256/") && size > 0 => {
                    content.blobs.insert(digest(&body), body);
                }
                _ => {}
            }
            at += 512 + size.div_ceil(512) * 512;
        }
        let index: Value = serde_json::from_slice(&index.expect("an index")).expect("JSON");
        let manifest = index["manifests"][0]["digest"]
            .as_str()
            .expect("a digest")
            .to_owned();
        content.tags.insert(name.to_owned(), manifest);
    }

    /// Has an image given only to who [logs in](LOGIN). `name` is without a tag.
    pub fn make_private(&self, name: &str) {
        self.content().private.push(name.to_owned());
    }

    /// How often an image was asked for by its tag.
    pub fn asked(&self) -> u64 {
        self.content().asked
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers the requests of one connection.
fn serve(content: &Mutex<Content>, stream: TcpStream) {
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let mut login = None;
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                login = Some(value.to_owned());
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let path = path.split('?').next().unwrap_or("");
        let (status, headers, body) = answer(content, path, login.as_deref());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[][..] } else { &body };
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(body))
            .is_err()
        {
            return;
        }
    }
}

fn answer(
    content: &Mutex<Content>,
    path: &str,
    login: Option<&str>,
) -> (&'static str, String, Vec<u8>) {
    let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = ("404 Not Found", String::new(), Vec::new());
    let Some(path) = path.strip_prefix("/v2/") else {
        return missing;
    };
    if path.is_empty() {
        return ("200 OK", String::new(), Vec::new());
    }
    let (name, what, reference) = match (path.split_once("/manifests/"), path.split_once("/blobs/"))
    {
        (Some((name, reference)), _) => (name, "manifest", reference),
        (_, Some((name, reference))) => (name, "blob", reference),
        _ => return missing,
    };
    let basic = format!(
        "Basic {}",
        base64(format!("{}:{}", LOGIN.0, LOGIN.1).as_bytes())
    );
    if content.private.iter().any(|private| private == name) && login != Some(&basic) {
        let wanted = "WWW-Authenticate: Basic realm=\"images\"\r\n".to_owned();
        return ("401 Unauthorized", wanted, Vec::new());
    }
    let digest = if reference.starts_with("sha256:") {
        Some(reference.to_owned())
    } else {
        content.asked += 1;
        content.tags.get(&format!("{name}:{reference}")).cloned()
    };
    let Some((digest, body)) = digest.and_then(|digest| {
        let body = content.blobs.get(&digest)?.clone();
        Some((digest, body))
    }) else {
        return missing;
    };
    let kind = match what {
        "manifest" => "application/vnd.oci.image.manifest.v1+json",
        _ => "application/octet-stream",
    };
    let headers = format!("Content-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n");
    ("200 OK", headers, body)
}

/// A tape archive.
fn tar(files: &[(&str, &Entry)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, entry) in files {
        let (kind, mode, link, body): (u8, u32, &str, &[u8]) = match entry {
            Entry::Directory(mode) => (b'5', *mode, "", &[]),
            Entry::File(mode, body) => (b'0', *mode, "", body),
            Entry::Link(to) => (b'2', 0o777, to, &[]),
        };
        let mut header = [0_u8; 512];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        assert!(
            path.len() < 100 && link.len() < 100,
            "names in an archive are short"
        );
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", body.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(157, link);
        put(257, "ustar");
        put(263, "00");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(body);
        tar.resize(tar.len().div_ceil(512) * 512, 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
