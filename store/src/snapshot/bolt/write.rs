//! Writing a database in one go: pages one after the other, each tree from its leaves up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{
    BRANCH_PAGE, BUCKET, ELEMENT, FREELIST_PAGE, HEADER, IS_BUCKET, LEAF_PAGE, MAGIC, META,
    META_PAGE, PAGE, VERSION, fnv,
};

/// About how many bytes are written at once.
const WRITE: usize = 1 << 20;

/// The file, as far as pages were appended to it.
pub(in crate::snapshot) struct Pages {
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer belongs.
    offset: u64,
}

/// A bucket as the value of its name.
#[derive(Clone, Copy, Debug)]
pub(in crate::snapshot) enum Bucket {
    Empty,
    Root(u64),
}

impl Bucket {
    fn encode(self) -> Vec<u8> {
        let mut value = vec![0; BUCKET];
        match self {
            Self::Root(page) => value[..8].copy_from_slice(&page.to_le_bytes()),
            // Its only page, a leaf without elements, follows within the value.
            Self::Empty => value.extend(header(0, LEAF_PAGE, 0, 0)),
        }
        value
    }
}

fn header(page: u64, kind: u16, count: u16, overflow: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&page.to_le_bytes());
    header[8..10].copy_from_slice(&kind.to_le_bytes());
    header[10..12].copy_from_slice(&count.to_le_bytes());
    header[12..].copy_from_slice(&overflow.to_le_bytes());
    header
}

impl Pages {
    /// Begins a database in place of what the file holds. Its first pages are written last, so what was not finished is no database.
    pub(in crate::snapshot) fn new(file: File) -> io::Result<Self> {
        file.set_len(0)?;
        Ok(Self {
            file,
            buffer: Vec::with_capacity(WRITE + PAGE),
            offset: 2 * PAGE as u64,
        })
    }

    fn next(&self) -> u64 {
        (self.offset + self.buffer.len() as u64) / PAGE as u64
    }

    fn append(&mut self, kind: u16, count: usize, body: &[&[u8]]) -> io::Result<u64> {
        let page = self.next();
        let length = HEADER + body.iter().map(|part| part.len()).sum::<usize>();
        let pages = length.div_ceil(PAGE);
        let too_large = |_| io::Error::other("a page would be too large");
        let count = u16::try_from(count).map_err(too_large)?;
        let overflow = u32::try_from(pages - 1).map_err(too_large)?;
        self.buffer.extend(header(page, kind, count, overflow));
        for part in body {
            self.buffer.extend_from_slice(part);
        }
        let filled = self.buffer.len() + pages * PAGE - length;
        self.buffer.resize(filled, 0);
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        Ok(page)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(WRITE + PAGE);
        Ok(())
    }

    /// Writes the tree of buckets, whose names must be in order, and the first pages. Returns the length of the database.
    pub(in crate::snapshot) fn finish(
        mut self,
        buckets: &[(&[u8], Bucket)],
    ) -> io::Result<(File, u64)> {
        let mut tree = Tree::default();
        for (name, bucket) in buckets {
            tree.put(&mut self, IS_BUCKET, name, &bucket.encode())?;
        }
        let Bucket::Root(root) = tree.finish(&mut self)? else {
            return Err(io::Error::other("a database without a bucket"));
        };
        let freelist = self.append(FREELIST_PAGE, 0, &[])?;
        let end = self.next();
        self.flush()?;
        let mut first = Vec::with_capacity(2 * PAGE);
        for number in 0..2u64 {
            first.extend(header(number, META_PAGE, 0, 0));
            let at = first.len();
            for word in [MAGIC, VERSION, PAGE as u32, 0] {
                first.extend(word.to_le_bytes());
            }
            // The page on which a transaction is recorded follows from its number.
            for word in [root, 0, freelist, end, 2 + number] {
                first.extend(word.to_le_bytes());
            }
            debug_assert_eq!(first.len() - at, META);
            first.extend(fnv(&first[at..]).to_le_bytes());
            first.resize((number as usize + 1) * PAGE, 0);
        }
        self.file.write_all_at(&first, 0)?;
        Ok((self.file, end * PAGE as u64))
    }
}

/// A tree, to which keys come in order.
#[derive(Default)]
pub(in crate::snapshot) struct Tree {
    /// The leaf that is being filled: flags and lengths of its elements, and their keys and values.
    elements: Vec<(u32, usize, usize)>,
    data: Vec<u8>,
    /// The first key and the number of every page that was written.
    pages: Vec<(Box<[u8]>, u64)>,
}

impl Tree {
    /// Adds a key that comes after all others.
    pub(in crate::snapshot) fn add(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        self.put(pages, 0, key, value)
    }

    fn put(&mut self, pages: &mut Pages, flags: u32, key: &[u8], value: &[u8]) -> io::Result<()> {
        let length = HEADER
            + (self.elements.len() + 1) * ELEMENT
            + self.data.len()
            + key.len()
            + value.len();
        if length > PAGE {
            self.flush(pages)?;
        }
        self.elements.push((flags, key.len(), value.len()));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn flush(&mut self, pages: &mut Pages) -> io::Result<()> {
        let Some(&(_, first, _)) = self.elements.first() else {
            return Ok(());
        };
        let count = self.elements.len();
        let mut table = Vec::with_capacity(count * ELEMENT);
        let mut at = 0;
        for (number, &(flags, key, value)) in self.elements.iter().enumerate() {
            let words = [flags as usize, (count - number) * ELEMENT + at, key, value];
            for word in words {
                let word = u32::try_from(word)
                    .map_err(|_| io::Error::other("a value is too large for a page"))?;
                table.extend(word.to_le_bytes());
            }
            at += key + value;
        }
        let page = pages.append(LEAF_PAGE, count, &[&table, &self.data])?;
        self.pages.push((self.data[..first].into(), page));
        self.elements.clear();
        self.data.clear();
        self.data.shrink_to(PAGE);
        Ok(())
    }

    /// Writes what is above the leaves.
    pub(in crate::snapshot) fn finish(mut self, pages: &mut Pages) -> io::Result<Bucket> {
        self.flush(pages)?;
        let mut level = self.pages;
        while level.len() > 1 {
            let widest = level.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
            let most = ((PAGE - HEADER) / (ELEMENT + widest)).max(2);
            // Evenly, so that no branch is left with a single page below it.
            let branches = level.len().div_ceil(most);
            let mut above = Vec::with_capacity(branches);
            for number in 0..branches {
                let range = level.len() * number / branches..level.len() * (number + 1) / branches;
                let below = &level[range];
                let mut table = Vec::with_capacity(below.len() * ELEMENT);
                let mut data = Vec::new();
                for (number, (key, page)) in below.iter().enumerate() {
                    let at = (below.len() - number) * ELEMENT + data.len();
                    // Both are far below 4 GiB: a branch is about a page.
                    table.extend((at as u32).to_le_bytes());
                    table.extend((key.len() as u32).to_le_bytes());
                    table.extend(page.to_le_bytes());
                    data.extend_from_slice(key);
                }
                let page = pages.append(BRANCH_PAGE, below.len(), &[&table, &data])?;
                above.push((below[0].0.clone(), page));
            }
            level = above;
        }
        Ok(level
            .first()
            .map_or(Bucket::Empty, |(_, page)| Bucket::Root(*page)))
    }
}
