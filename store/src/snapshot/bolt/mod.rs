//! The file format of bbolt, in which etcd keeps its data: written in one go, and read.
//!
//! A file is a row of pages. A page has a header of 16 bytes: its own number (8 bytes), what it is (2), how many elements it has (2), and how
//! many pages after it belong to it (4). The first two are meta pages, of which the one with the greater transaction and a right
//! checksum counts; it names the root of the tree of buckets. A *branch* has elements of 16 bytes: where the key is, counted from the
//! element (4), the length of the key (4), the page below (8). A *leaf* has elements of 16 bytes: whether the value is a bucket (4), where
//! the key is (4), the lengths of key and value (4 each); the value follows the key. A bucket is the number of its root page and a
//! counter (8 each); a small one has root zero, and its only page follows at once. Numbers are little-endian, as on all machines that
//! etcd supports but one.

mod read;
mod write;

pub(super) use self::read::{Database, damaged, unreadable};
pub(super) use self::write::{Bucket, Pages, Tree};

/// The size of the pages that are written.
const PAGE: usize = 4096;

/// The length of a page's header, of an element, and of a bucket.
const HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET: usize = 16;

const BRANCH_PAGE: u16 = 0x01;
const LEAF_PAGE: u16 = 0x02;
const META_PAGE: u16 = 0x04;
const FREELIST_PAGE: u16 = 0x10;

/// The flag of an element whose value is a bucket.
const IS_BUCKET: u32 = 1;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The length of what a meta page holds before its checksum.
const META: usize = 56;

/// FNV-1a of 64 bits: the checksum of a meta page.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_its_inventors() {
        assert_eq!(super::fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
