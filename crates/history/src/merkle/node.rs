/// The largest tree size: the maximum of a database's signed 64-bit column.
pub const MAX_SIZE: u64 = i64::MAX.unsigned_abs();

/// A whole subtree: `level` 0 is a leaf; at level l, number i spans the entries from `i << l` to before `(i + 1) << l`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    pub level: u8,
    pub index: u64,
}

impl Node {
    /// The first entry below the node. `None` where no tree is that large.
    pub fn begin(self) -> Option<u64> {
        shift(self.index, self.level)
    }

    /// One past the last entry below the node.
    pub fn end(self) -> Option<u64> {
        shift(self.index.checked_add(1)?, self.level)
    }

    #[must_use]
    pub fn parent(self) -> Self {
        Self { level: self.level.saturating_add(1), index: self.index >> 1 }
    }

    pub fn is_right(self) -> bool {
        self.index & 1 == 1
    }

    /// The fewest whole subtrees that together span the entries from `begin` to before `end`, from left to right: at most two
    /// of each level. Empty when there are no such entries.
    pub fn cover(begin: u64, end: u64) -> Vec<Self> {
        let mut nodes = Vec::new();
        let mut begin = begin;
        while let Some(length) = end.checked_sub(begin).filter(|length| *length > 0) {
            let level = begin.trailing_zeros().min(length.ilog2());
            nodes.push(Self { level: u8::try_from(level).unwrap_or(u8::MAX), index: begin >> level });
            begin = begin.saturating_add(1 << level);
        }
        nodes
    }
}

/// `value << by`; `None` if bits would be lost or the result is larger than [`MAX_SIZE`].
fn shift(value: u64, by: u8) -> Option<u64> {
    let shifted = value.checked_shl(by.into())?;
    (shifted >> by == value && shifted <= MAX_SIZE).then_some(shifted)
}
