//! A disk in memory that does what disks do: it runs full, it fails, it dies in the middle of a write, and what was not synced before
//! a crash is there in part, in any order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// What a disk writes as one.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_ops: Vec<NameOp>,
    random: u64,
    /// All bytes that there are.
    capacity: u64,
    /// How many operations there are left to live.
    lives: u64,
    /// How many operations there are until one fails that does nothing, and those after it do as before.
    until_error: Option<u64>,
    fail_syncs: u32,
    fail_writes: u32,
    syncs: u64,
}

/// What was done to a name, and the file that it meant then.
#[derive(Clone, Debug)]
enum NameOp {
    Link(String, u64),
    Rename(String, String, u64),
    Remove(String, u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn write_into(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

fn apply(names: &mut BTreeMap<String, u64>, op: &NameOp) {
    match op {
        NameOp::Link(name, file) => {
            names.insert(name.clone(), *file);
        }
        NameOp::Rename(from, to, file) => {
            names.retain(|name, named| name != from || named != file);
            names.insert(to.clone(), *file);
        }
        NameOp::Remove(name, file) => names.retain(|own, named| own != name || named != file),
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Counts an operation. The last one is done in part.
    fn step(&mut self) -> io::Result<bool> {
        if self.lives == 0 {
            return Err(io::Error::other("the disk is dead"));
        }
        if let Some(left) = &mut self.until_error {
            if *left == 0 {
                self.until_error = None;
                return Err(io::Error::other("an error of input or output"));
            }
            *left -= 1;
        }
        self.lives -= 1;
        Ok(self.lives == 0)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|file| file.seen.len() as u64)
            .sum()
    }

    fn name_op(&mut self, op: NameOp) -> io::Result<()> {
        if self.step()? && self.random() & 1 == 0 {
            return Err(io::Error::other("the disk died"));
        }
        apply(&mut self.names, &op);
        self.name_ops.push(op);
        Ok(())
    }
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_ops: Vec::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            capacity: u64::MAX,
            lives: u64::MAX,
            until_error: None,
            fail_syncs: 0,
            fail_writes: 0,
            syncs: 0,
        })))
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Dies after some more operations, in the middle of the last.
    pub(super) fn die_after(&self, operations: u64) {
        self.0.lock().lives = operations;
    }

    /// Fails one operation of any kind, after some more: it does nothing, and later ones do as before.
    pub(super) fn fail_after(&self, operations: u64) {
        self.0.lock().until_error = Some(operations);
    }

    pub(super) fn fail_next_sync(&self) {
        self.0.lock().fail_syncs += 1;
    }

    pub(super) fn fail_next_write(&self) {
        self.0.lock().fail_writes += 1;
    }

    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The process is killed and the machine is not: everything that was written can be read, synced or not.
    pub(super) fn kill(&self) {
        let mut state = self.0.lock();
        state.lives = u64::MAX;
        state.until_error = None;
        state.fail_syncs = 0;
        state.fail_writes = 0;
    }

    /// The power goes, and comes back: of what was not synced, some is there.
    pub(super) fn crash(&self) {
        let mut state = self.0.lock();
        state.lives = u64::MAX;
        state.until_error = None;
        state.fail_syncs = 0;
        state.fail_writes = 0;
        let ops = std::mem::take(&mut state.name_ops);
        let mut names = state.durable_names.clone();
        if state.random() & 1 == 0 {
            // Most file systems journal names: they go in order.
            let kept = state.random() as usize % (ops.len() + 1);
            for op in &ops[..kept] {
                apply(&mut names, op);
            }
        } else {
            // Nobody promises that.
            for op in &ops {
                if state.random() & 1 == 0 {
                    apply(&mut names, op);
                }
            }
        }
        let mode = state.random() % 4;
        let mut files = std::mem::take(&mut state.files);
        files.retain(|id, _| names.values().any(|named| named == id));
        for file in files.values_mut() {
            let mut image = std::mem::take(&mut file.durable);
            for pending in file.pending.drain(..) {
                match pending {
                    Pending::Length(length) => {
                        if mode == 0 || (mode != 1 && state.random() & 1 == 0) {
                            image.resize(length, 0);
                        }
                    }
                    Pending::Write(offset, bytes) => {
                        let mut at = 0;
                        while at < bytes.len() {
                            let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
                            if mode == 0 || (mode != 1 && state.random() & 1 == 0) {
                                write_into(&mut image, offset + at, &bytes[at..end]);
                            }
                            at = end;
                        }
                    }
                }
            }
            file.seen.clone_from(&image);
            file.durable = image;
        }
        state.files = files;
        state.names.clone_from(&names);
        state.durable_names = names;
    }

    /// Changes bytes behind the store's back.
    pub(super) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let id = state.names[name];
        let file = state.files.get_mut(&id).expect("a name has a file");
        assert!(file.pending.is_empty(), "damage what is at rest");
        change(&mut file.seen);
        file.durable.clone_from(&file.seen);
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.step()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            id,
        }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        let id = state.next_file;
        state.next_file += 1;
        state.name_op(NameOp::Link(name.to_owned(), id))?;
        state.files.insert(id, Inode::default());
        Ok(Box::new(SimFile {
            disk: self.clone(),
            id,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.name_op(NameOp::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.name_op(NameOp::Remove(name.to_owned(), file))
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.step()? {
            return Err(io::Error::other("the disk died"));
        }
        state.durable_names = state.names.clone();
        state.name_ops.clear();
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Inode) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        // A file that has no name any more can still be written to.
        let mut file = state.files.remove(&self.id).unwrap_or_default();
        let done = act(&mut state, &mut file);
        state.files.insert(self.id, file);
        done
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| {
            state.step()?;
            Ok(file.seen.len() as u64)
        })
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(|state, file| {
            state.step()?;
            let start = file.seen.len().min(offset as usize);
            let end = file.seen.len().min(start + length);
            Ok(file.seen[start..end].to_vec())
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, file| {
            let dies = state.step()?;
            let grows = (offset as usize + bytes.len()).saturating_sub(file.seen.len()) as u64;
            // The file itself is out of the table while it is worked on.
            let full = state.used() + file.seen.len() as u64 + grows > state.capacity;
            let fails = state.fail_writes > 0;
            // The worst failure is one that wrote everything all the same; as often it wrote some.
            let written = if dies || full || (fails && state.random() & 1 == 0) {
                state.random() as usize % (bytes.len() + 1)
            } else {
                bytes.len()
            };
            write_into(&mut file.seen, offset as usize, &bytes[..written]);
            file.pending
                .push(Pending::Write(offset as usize, bytes[..written].to_vec()));
            if fails {
                state.fail_writes -= 1;
                return Err(io::Error::other("the write failed"));
            }
            if full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if dies {
                Err(io::Error::other("the disk died"))
            } else {
                Ok(())
            }
        })
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            let dies = state.step()?;
            let length = file.seen.len().max(length as usize);
            if state.used() + length as u64 > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if dies {
                return Err(io::Error::other("the disk died"));
            }
            file.seen.resize(length, 0);
            file.pending.push(Pending::Length(length));
            Ok(())
        })
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            if state.step()? {
                return Err(io::Error::other("the disk died"));
            }
            file.seen.resize(length as usize, 0);
            file.pending.push(Pending::Length(length as usize));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state, file| {
            state.syncs += 1;
            if state.step()? {
                return Err(io::Error::other("the disk died"));
            }
            if state.fail_syncs > 0 {
                state.fail_syncs -= 1;
                // As Linux has it: what could not be written is marked clean all the same.
                file.pending.clear();
                return Err(io::Error::other("the sync failed"));
            }
            file.durable.clone_from(&file.seen);
            file.pending.clear();
            Ok(())
        })
    }
}
