//! Where the last lines of a file begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at a time, from the end.
const BLOCK: u64 = 64 * 1024;

/// The offset at which the last `lines` lines of a file begin. A last line without its end counts.
pub(super) fn start_of_tail(file: &File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if lines == 0 || size == 0 {
        return Ok(size);
    }
    let mut block = vec![0; BLOCK as usize];
    let mut wanted = lines;
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let block = &mut block[..(end - begin) as usize];
        file.read_exact_at(block, begin)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let offset = begin + at as u64;
            // The end of the last line begins no other.
            if *byte == b'\n' && offset + 1 != size {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(offset + 1);
                }
            }
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_begin_where_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let check = |text: &str, lines, want: &str| {
            std::fs::write(&path, text).unwrap();
            let start = start_of_tail(&File::open(&path).unwrap(), lines).unwrap();
            assert_eq!(&text[start as usize..], want, "{lines}");
        };
        check("", 3, "");
        check("a\nb\nc\n", 0, "");
        check("a\nb\nc\n", 1, "c\n");
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc\n", 3, "a\nb\nc\n");
        check("a\nb\nc\n", 9, "a\nb\nc\n");
        check("a\nb\nc", 1, "c");
        check("a\nb\nc", 2, "b\nc");
        check("\n\n\n", 2, "\n\n");
        let long: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        check(&long, 1, "line 49999\n");
        let at = long.find("line 30000\n").unwrap();
        check(&long, 20_000, &long[at..]);
    }
}
