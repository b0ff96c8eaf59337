use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    let file = |data: &str| Projection {
        data: Bytes::copy_from_slice(data.as_bytes()),
        mode: 0o644,
        user: None,
    };
    let files = files
        .iter()
        .map(|(path, data)| ((*path).to_owned(), file(data)));
    files.collect()
}

/// What somebody sees who reads the volume by the names without dots: paths, contents and permissions.
fn seen(dir: &Path) -> BTreeMap<String, (Vec<u8>, u32)> {
    let mut out = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if name.starts_with("..") {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else {
                let mode = path.metadata().unwrap().mode() & 0o7777;
                out.insert(name, (std::fs::read(path).unwrap(), mode));
            }
        }
    }
    out
}

fn expected(payload: &Payload) -> BTreeMap<String, (Vec<u8>, u32)> {
    let files = payload
        .iter()
        .map(|(path, file)| (path.clone(), (file.data.to_vec(), file.mode)));
    files.collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_volume_looks_as_programs_expect() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let files = payload(&[("a", "1"), ("d/b", "2"), ("d/e/c", "3")]);
    assert!(write(dir, &files, None, "2026_01_02_03_04_05.1").unwrap());
    assert_eq!(names(dir), ["..2026_01_02_03_04_05.1", "..data", "a", "d"]);
    let link = |name| std::fs::read_link(dir.join(name)).unwrap();
    assert_eq!(link("..data"), Path::new("..2026_01_02_03_04_05.1"));
    assert_eq!(link("a"), Path::new("..data/a"));
    assert_eq!(link("d"), Path::new("..data/d"));
    assert_eq!(seen(dir), expected(&files));
}

#[test]
fn nothing_is_written_when_nothing_changed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let mut files = payload(&[("a", "1"), ("d/b", "2")]);
    assert!(write(dir, &files, None, "2026_1").unwrap());
    assert!(!write(dir, &files, None, "2026_2").unwrap());
    assert!(dir.join("..2026_1").exists());
    files.get_mut("a").unwrap().mode = 0o600;
    assert!(write(dir, &files, None, "2026_3").unwrap());
    assert_eq!(names(dir), ["..2026_3", "..data", "a", "d"]);
    assert_eq!(seen(dir), expected(&files));
    // Somebody tampered with it.
    std::fs::write(dir.join("a"), "x").unwrap();
    assert!(write(dir, &files, None, "2026_4").unwrap());
    assert_eq!(seen(dir), expected(&files));
    // A link went.
    std::fs::remove_file(dir.join("a")).unwrap();
    assert!(!write(dir, &files, None, "2026_5").unwrap());
    assert_eq!(seen(dir), expected(&files));
}

#[test]
fn an_empty_payload_is_one_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    assert!(write(dir, &Payload::new(), None, "2026_1").unwrap());
    assert!(!write(dir, &Payload::new(), None, "2026_2").unwrap());
    write(dir, &payload(&[("a", "1")]), None, "2026_3").unwrap();
    write(dir, &Payload::new(), None, "2026_4").unwrap();
    assert_eq!(names(dir), ["..2026_4", "..data"]);
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let long = "x".repeat(256);
    for path in [
        "",
        "/etc/x",
        "../x",
        "a/../x",
        "..x",
        "a/../../x",
        "..data",
        "./x",
        "a\0b",
        &long,
    ] {
        let error = write(temp.path(), &payload(&[(path, "1")]), None, "2026_1").unwrap_err();
        assert!(
            error.to_string().starts_with("invalid path"),
            "{path:?}: {error}"
        );
    }
    assert_eq!(names(temp.path()), Vec::<String>::new());
    assert!(write(temp.path(), &payload(&[("a..b/c..", "1")]), None, "2026_1").unwrap());
}

#[test]
fn a_payload_that_cannot_be_written_leaves_what_was_there() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let good = payload(&[("a", "1")]);
    write(dir, &good, None, "2026_1").unwrap();
    // A file and a directory of one name.
    let bad = payload(&[("a", "2"), ("b", "1"), ("b/c", "1")]);
    let error = write(dir, &bad, None, "2026_2").unwrap_err();
    assert!(error.to_string().contains("file exists"), "{error}");
    assert_eq!(names(dir), ["..2026_1", "..data", "a"]);
    assert_eq!(seen(dir), expected(&good));
}

#[test]
fn what_a_killed_writer_left_is_swept() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    write(dir, &payload(&[("a", "1"), ("b", "1")]), None, "2026_1").unwrap();
    std::fs::create_dir(dir.join("..2026_2")).unwrap();
    std::fs::write(dir.join("..2026_2/half"), "x").unwrap();
    symlink("..2026_2", dir.join(NEW_DATA)).unwrap();
    symlink("..data/gone", dir.join("gone")).unwrap();
    symlink("/elsewhere", dir.join("a.link")).unwrap();
    let files = payload(&[("a", "2")]);
    write(dir, &files, None, "2026_3").unwrap();
    // A link that is not ours stays.
    assert_eq!(names(dir), ["..2026_3", "..data", "a", "a.link"]);
}

fn payloads() -> impl Strategy<Value = Payload> {
    let path = prop_oneof!["[a-c]", "[d-e]/[a-b]", "[d-e]/f/[a-b]"];
    let file = (proptest::collection::vec(any::<u8>(), 0..4), 0..3usize);
    proptest::collection::btree_map(path, file, 0..6).prop_map(|files| {
        let file = |(data, mode): (Vec<u8>, usize)| Projection {
            data: data.into(),
            mode: [0o644, 0o600, 0o444][mode],
            user: None,
        };
        files
            .into_iter()
            .map(|(path, of)| (path, file(of)))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// After each write all of the last payload is seen and nothing else, and who still reads the data of before sees all of that.
    #[test]
    fn what_is_seen_is_the_last_payload(sequence in proptest::collection::vec(payloads(), 1..6)) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let mut before = None;
        for (n, files) in sequence.iter().enumerate() {
            let written = write(dir, files, None, &format!("2026_{n}")).unwrap();
            prop_assert_eq!(written, before != Some(files));
            prop_assert_eq!(seen(dir), expected(files));
            let data = std::fs::canonicalize(dir.join(DATA)).unwrap();
            prop_assert_eq!(seen(&data), expected(files));
            let stamps = names(dir).into_iter().filter(|name| is_stamp(name)).count();
            prop_assert_eq!(stamps, 1);
            before = Some(files);
        }
    }
}

/// Readers that hold `..data` see one payload, however often it is swapped.
#[test]
fn no_reader_sees_a_mixture() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    write(dir, &payload(&[("a", "0"), ("b", "0")]), None, "2026_0").unwrap();
    let stop = AtomicBool::new(false);
    let whole = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // What the link named when it was read may be gone when it is opened.
                let Ok(held) = File::open(dir.join(DATA)) else {
                    continue;
                };
                let read = |name: &str| {
                    std::fs::read(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))
                };
                // The directory may be gone by now; then there is nothing to compare.
                if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                    assert_eq!(a, b);
                    whole.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Until both had their turns.
        let mut n = 0;
        while n < 200 || (whole.load(Ordering::Relaxed) < 10 && n < 10_000) {
            n += 1;
            let value = n.to_string();
            let files = payload(&[("a", &value), ("b", &value)]);
            write(dir, &files, None, &format!("2026_{n}")).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(whole.into_inner() >= 10);
}
