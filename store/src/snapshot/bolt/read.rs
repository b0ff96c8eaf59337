//! Reading a database that may be damaged: everything is checked before it is used, and nothing is followed twice.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use orlop_core::store::StoreError;

use super::{
    BRANCH_PAGE, BUCKET, ELEMENT, HEADER, IS_BUCKET, LEAF_PAGE, MAGIC, META, META_PAGE, VERSION,
    fnv,
};

/// The sizes of pages that there are.
const PAGES: std::ops::RangeInclusive<u32> = 10..=16;

/// The longest page with what belongs to it: a few of the longest values that a request can carry.
const LONGEST: u64 = 1 << 30;

/// How high a tree can be. With two pages below each it would fill any disk.
const HIGHEST: u32 = 48;

/// A database, as the newest whole transaction left it.
pub(in crate::snapshot) struct Database<'a> {
    file: &'a File,
    page_size: u64,
    /// How many pages there are.
    pages: u64,
    root: u64,
    /// Which pages were visited, a bit each.
    seen: Vec<u64>,
}

/// An element of a leaf.
pub(in crate::snapshot) struct Element<'a> {
    is_bucket: bool,
    pub(in crate::snapshot) key: &'a [u8],
    pub(in crate::snapshot) value: &'a [u8],
    /// Where in the file the page is on which it stands.
    pub(in crate::snapshot) offset: u64,
}

pub(in crate::snapshot) fn damaged(offset: u64, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("the snapshot at offset {offset}: {why}"))
}

pub(in crate::snapshot) fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("the snapshot cannot be read: {error}"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

struct Meta {
    page_size: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// What a meta page says, if it is whole.
fn meta(bytes: &[u8]) -> Option<Meta> {
    let own = bytes.get(HEADER..HEADER + META + 8)?;
    let whole = u16_at(bytes, 8) & META_PAGE != 0
        && u32_at(own, 0) == MAGIC
        && u32_at(own, 4) == VERSION
        && u64_at(own, META) == fnv(&own[..META]);
    whole.then(|| Meta {
        page_size: u32_at(own, 8).into(),
        root: u64_at(own, 16),
        pages: u64_at(own, 40),
        transaction: u64_at(own, 48),
    })
}

impl<'a> Database<'a> {
    /// Opens the database that the first `length` bytes of a file are.
    pub(in crate::snapshot) fn open(file: &'a File, length: u64) -> Result<Self, StoreError> {
        let read = |offset: u64| -> Result<Option<Meta>, StoreError> {
            let mut bytes = [0; HEADER + META + 8];
            if offset + bytes.len() as u64 > length {
                return Ok(None);
            }
            file.read_exact_at(&mut bytes, offset)
                .map_err(|error| unreadable(&error))?;
            Ok(meta(&bytes))
        };
        let first = read(0)?;
        // Where the second one is tells the size of a page, of which the first may tell no more.
        let mut second = None;
        for bits in PAGES {
            let size = 1 << bits;
            second = read(size)?.filter(|meta| meta.page_size == size);
            if second.is_some() {
                break;
            }
        }
        let newest = [first, second]
            .into_iter()
            .flatten()
            .max_by_key(|meta| meta.transaction)
            .ok_or_else(|| damaged(0, "neither of the two meta pages is whole"))?;
        let size = newest.page_size;
        if !PAGES.map(|bits| 1 << bits).any(|possible| possible == size) {
            return Err(damaged(0, format!("pages of {size} bytes")));
        }
        if newest
            .pages
            .checked_mul(size)
            .is_none_or(|end| end > length)
        {
            let pages = newest.pages;
            return Err(damaged(
                length,
                format!("the file ends here, and is to have {pages} pages of {size} bytes"),
            ));
        }
        let words = usize::try_from(newest.pages / 64 + 1)
            .map_err(|_| damaged(0, "it is too large for this machine"))?;
        Ok(Self {
            file,
            page_size: size,
            pages: newest.pages,
            root: newest.root,
            seen: vec![0; words],
        })
    }

    /// Reads a page with all that belongs to it.
    fn page(&mut self, number: u64, from: u64) -> Result<Vec<u8>, StoreError> {
        if number < 2 || number >= self.pages {
            return Err(damaged(from, format!("there is no page {number}")));
        }
        let offset = number * self.page_size;
        let mut bytes = vec![0; self.page_size as usize];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| unreadable(&error))?;
        if u64_at(&bytes, 0) != number {
            return Err(damaged(offset, "the page says that it is another one"));
        }
        let more = u64::from(u32_at(&bytes, 12));
        if more >= self.pages - number || (more + 1) * self.page_size > LONGEST {
            return Err(damaged(offset, "the page is longer than it can be"));
        }
        for page in number..=number + more {
            let word = &mut self.seen[(page / 64) as usize];
            if *word & 1 << (page % 64) != 0 {
                return Err(damaged(from, format!("page {page} is used twice")));
            }
            *word |= 1 << (page % 64);
        }
        if more > 0 {
            let own = bytes.len();
            bytes.resize(own + (more * self.page_size) as usize, 0);
            self.file
                .read_exact_at(&mut bytes[own..], offset + self.page_size)
                .map_err(|error| unreadable(&error))?;
        }
        Ok(bytes)
    }

    /// Visits the elements below a page in order.
    fn walk(
        &mut self,
        number: u64,
        from: u64,
        height: u32,
        last: &mut Option<Vec<u8>>,
        visit: &mut dyn FnMut(Element<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let bytes = self.page(number, from)?;
        let offset = number * self.page_size;
        match u16_at(&bytes, 8) {
            LEAF_PAGE => leaf(&bytes, offset, last, visit),
            BRANCH_PAGE if height == HIGHEST => Err(damaged(offset, "the tree is too high")),
            BRANCH_PAGE => {
                let count = usize::from(u16_at(&bytes, 10));
                if HEADER + count * ELEMENT > bytes.len() || count == 0 {
                    return Err(damaged(offset, "the branch has more elements than room"));
                }
                let below: Vec<_> = (0..count)
                    .map(|n| u64_at(&bytes, HEADER + n * ELEMENT + 8))
                    .collect();
                drop(bytes);
                for page in below {
                    self.walk(page, offset, height + 1, last, visit)?;
                }
                Ok(())
            }
            other => Err(damaged(
                offset,
                format!("a page of the kind {other:#x} in a tree"),
            )),
        }
    }

    /// The names and contents of the buckets of the first level.
    pub(in crate::snapshot) fn buckets(&mut self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        self.walk(self.root, 0, 0, &mut None, &mut |element| {
            if !element.is_bucket || element.value.len() < BUCKET {
                return Err(damaged(
                    element.offset,
                    "a value stands where a bucket should",
                ));
            }
            let root = u64_at(element.value, 0);
            let inline = (root == 0).then(|| element.value[BUCKET..].to_vec());
            found.push(Found {
                name: element.key.to_vec(),
                root,
                inline,
                offset: element.offset,
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// Visits what a bucket holds, in order. Every bucket can be visited once.
    pub(in crate::snapshot) fn visit(
        &mut self,
        bucket: &Found,
        visit: &mut dyn FnMut(Element<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut plain = |element: Element<'_>| {
            if element.is_bucket {
                return Err(damaged(
                    element.offset,
                    "a bucket stands where a value should",
                ));
            }
            visit(element)
        };
        match &bucket.inline {
            None => self.walk(bucket.root, bucket.offset, 0, &mut None, &mut plain),
            Some(page) if page.len() >= HEADER && u16_at(page, 8) == LEAF_PAGE => {
                leaf(page, bucket.offset, &mut None, &mut plain)
            }
            Some(_) => Err(damaged(bucket.offset, "a bucket has no page")),
        }
    }
}

/// A bucket.
pub(in crate::snapshot) struct Found {
    pub(in crate::snapshot) name: Vec<u8>,
    root: u64,
    inline: Option<Vec<u8>>,
    offset: u64,
}

/// Visits the elements of a leaf, whose keys must come after the last one.
fn leaf(
    bytes: &[u8],
    offset: u64,
    last: &mut Option<Vec<u8>>,
    visit: &mut dyn FnMut(Element<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let count = usize::from(u16_at(bytes, 10));
    if HEADER + count * ELEMENT > bytes.len() {
        return Err(damaged(offset, "the leaf has more elements than room"));
    }
    for number in 0..count {
        let at = HEADER + number * ELEMENT;
        let [flags, place, key, value] =
            [0, 4, 8, 12].map(|within| u32_at(bytes, at + within) as usize);
        let element = bytes
            .get(at + place..)
            .and_then(|rest| rest.split_at_checked(key))
            .and_then(|(key, rest)| Some((key, rest.get(..value)?)));
        let Some((key, value)) = element else {
            return Err(damaged(
                offset,
                format!("element {number} lies outside its page"),
            ));
        };
        if last.as_deref().is_some_and(|last| last >= key) {
            return Err(damaged(offset, format!("element {number} is out of order")));
        }
        match last {
            Some(last) => {
                last.clear();
                last.extend_from_slice(key);
            }
            None => *last = Some(key.to_vec()),
        }
        visit(Element {
            is_bucket: flags & IS_BUCKET as usize != 0,
            key,
            value,
            offset,
        })?;
    }
    Ok(())
}
