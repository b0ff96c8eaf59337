//! A slab that grows by blocks, so that growing never copies what is there.

const BLOCK: usize = 1 << 12;

/// Values under small numbers, which are used again after a removal.
#[derive(Debug)]
pub(super) struct Slab<T> {
    blocks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// # Panics
    /// When nothing is at the number: the index hands out only numbers that it keeps in step.
    pub(super) fn get(&self, slot: u32) -> &T {
        let slot = slot as usize;
        self.blocks[slot / BLOCK][slot % BLOCK]
            .as_ref()
            .expect("the index names only slots in use")
    }

    /// # Panics
    /// As [`get`](Self::get).
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut T {
        let slot = slot as usize;
        self.blocks[slot / BLOCK][slot % BLOCK]
            .as_mut()
            .expect("the index names only slots in use")
    }

    /// What there is, in order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let blocks = self.blocks.iter().enumerate();
        blocks.flat_map(|(at, block)| {
            let first = at * BLOCK;
            let values = block.iter().enumerate();
            values.filter_map(move |(at, value)| Some(((first + at) as u32, value.as_ref()?)))
        })
    }

    /// What is at a number, if anything is.
    pub(super) fn find_mut(&mut self, slot: u32) -> Option<&mut T> {
        let slot = slot as usize;
        self.blocks
            .get_mut(slot / BLOCK)?
            .get_mut(slot % BLOCK)?
            .as_mut()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.blocks[slot as usize / BLOCK][slot as usize % BLOCK] = Some(value);
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let last = self.blocks.len() - 1;
        let block = &mut self.blocks[last];
        block.push(Some(value));
        u32::try_from(last * BLOCK + block.len() - 1).expect("fewer than 2³² keys fit in memory")
    }

    /// # Panics
    /// As [`get`](Self::get).
    pub(super) fn remove(&mut self, slot: u32) -> T {
        let place = slot as usize;
        let value = self.blocks[place / BLOCK][place % BLOCK]
            .take()
            .expect("the index names only slots in use");
        self.free.push(slot);
        value
    }
}
