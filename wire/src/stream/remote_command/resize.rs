//! Sizes of a terminal: JSON values one after another.

use bytes::Bytes;
use orlop_core::runtime::TerminalSize;
use serde::{Deserialize, Serialize};

/// The most that is kept of a value that is not whole yet.
const MAX_VALUE: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

pub(super) fn encode(size: TerminalSize) -> Bytes {
    let TerminalSize { width, height } = size;
    format!("{{\"Width\":{width},\"Height\":{height}}}\n").into()
}

/// Reads sizes out of bytes, however they are cut.
#[derive(Default)]
pub(super) struct Sizes(Vec<u8>);

impl Sizes {
    /// Takes some bytes and returns the sizes that are whole with them.
    ///
    /// # Errors
    /// They are no sizes: nothing can be understood from here on.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<TerminalSize>, serde_json::Error> {
        self.0.extend_from_slice(bytes);
        let mut sizes = Vec::new();
        let mut values = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let mut taken = 0;
        loop {
            match values.next() {
                None => {
                    taken = self.0.len();
                    break;
                }
                Some(Ok(Size { width, height })) => {
                    taken = values.byte_offset();
                    sizes.push(TerminalSize { width, height });
                }
                Some(Err(error)) if error.is_eof() && self.0.len() - taken <= MAX_VALUE => break,
                Some(Err(error)) => return Err(error),
            }
        }
        self.0.drain(..taken);
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_however_they_are_cut() {
        let size = |width, height| TerminalSize { width, height };
        let mut text = Vec::new();
        for n in 1..20 {
            text.extend_from_slice(&encode(size(n * 10, n)));
        }
        for cut in 1..40 {
            let mut sizes = Sizes::default();
            let all: Vec<TerminalSize> = text
                .chunks(cut)
                .flat_map(|piece| sizes.feed(piece).unwrap())
                .collect();
            assert_eq!(all.len(), 19);
            assert_eq!(all[18], size(190, 19));
        }
        assert!(Sizes::default().feed(b"nonsense").is_err());
        assert!(Sizes::default().feed(&vec![b'['; 10_000]).is_err());
    }
}
