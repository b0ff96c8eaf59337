//! What a container said at its end.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// How much of the termination message's file is read: its end.
const FILE_BYTES: u64 = 4096;
/// How much of the log stands for it: so many lines at most, and so many bytes of them.
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// Where those are: a line of the log has its time and stream before it, and is cut into parts of 16 KiB.
const LOG_WINDOW: u64 = 64 << 10;

/// The end of a container's message. `None` if there is no such file.
pub(super) fn of_file(path: &Path) -> Option<String> {
    match tail(path, FILE_BYTES) {
        Ok((bytes, _)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!(
            "Error on reading termination log {}: {error}",
            path.display()
        )),
    }
}

/// The end of a container's log.
pub(super) fn of_log(path: &Path) -> String {
    match tail(path, LOG_WINDOW) {
        Ok((bytes, whole)) => last_lines(&bytes, whole),
        Err(error) => format!("Error on reading termination message from logs: {error}"),
    }
}

/// The end of a file, and whether that is all of it. The container may have put anything in the file's place: a link is not followed, and
/// what is no file is not read.
fn tail(path: &Path, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let start = about.len().saturating_sub(most);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, start == 0))
}

/// The text of the last lines of a log in CRI's form: `TIME STREAM TAGS TEXT`, where the tag `P` says that the line goes on.
fn last_lines(bytes: &[u8], whole: bool) -> String {
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    // Behind the last line break there is nothing, and before the first one may be half a line.
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    if !whole && !lines.is_empty() {
        lines.remove(0);
    }
    let mut out: Vec<u8> = Vec::new();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (Some(_), Some(_), Some(tags)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        out.extend_from_slice(parts.next().unwrap_or_default());
        if tags.split(|b| *b == b':').next() != Some(b"P") {
            out.push(b'\n');
        }
    }
    let end = &out[out.len().saturating_sub(LOG_BYTES)..];
    String::from_utf8_lossy(end).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        assert_eq!(of_file(&path), None);
        fs::write(&path, "done").unwrap();
        assert_eq!(of_file(&path).unwrap(), "done");
        fs::write(&path, format!("{}{}", "x".repeat(10), "y".repeat(4096))).unwrap();
        assert_eq!(of_file(&path).unwrap(), "y".repeat(4096));
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link) = (dir.path().join("secret"), dir.path().join("link"));
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        assert!(
            of_file(&link)
                .unwrap()
                .starts_with("Error on reading termination log ")
        );
        assert!(of_file(dir.path()).unwrap().ends_with("not a regular file"));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(of_file(&fifo).unwrap().ends_with("not a regular file"));
    }

    #[test]
    fn the_last_lines_of_a_log_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let log = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:00.2Z stderr P tw\n\
                   2026-01-01T00:00:00.3Z stderr F o\n2026-01-01T00:00:00.4Z stdout F \nbroken\n";
        fs::write(&path, log).unwrap();
        assert_eq!(of_log(&path), "one\ntwo\n\n");
        let many: String = (0..100).map(|n| format!("t stdout F {n}\n")).collect();
        fs::write(&path, many).unwrap();
        let expected: String = (20..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(of_log(&path), expected);
        let long = format!("t stdout F {}\n", "z".repeat(9000)).repeat(20);
        fs::write(&path, long).unwrap();
        assert_eq!(of_log(&path), format!("{}\n", "z".repeat(LOG_BYTES - 1)));
        assert!(
            of_log(&dir.path().join("1.log"))
                .starts_with("Error on reading termination message from logs: ")
        );
    }
}
