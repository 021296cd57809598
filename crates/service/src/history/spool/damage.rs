//! Records and files that cannot be read any more: they are counted, copied aside, and reported.

use std::fs;
use std::path::Path;

/// How many damaged files are kept aside at most: each has a few MiB at most.
const ASIDE: usize = 8;
const SUFFIX: &str = "damaged";

/// Records that cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The number that the first of them had.
    pub first: u64,
    /// How many; 0: unknown.
    pub records: u64,
}

impl Loss {
    /// The missing records, when `expected` should come next and `comes` does.
    pub(super) fn between(expected: u64, comes: u64) -> Option<Self> {
        comes.checked_sub(expected).filter(|missing| *missing > 0).map(|records| Self { first: expected, records })
    }

    /// Adds it to `losses`. If it directly follows the last one, the two become one.
    pub(super) fn add_to(self, losses: &mut Vec<Self>) {
        match losses.last_mut() {
            Some(last) if last.first.saturating_add(last.records) == self.first => last.records += self.records,
            _ => losses.push(self),
        }
    }

    /// The part of the loss that has not arrived in the history.
    pub(super) fn behind(self, arrived: Option<u64>) -> Option<Self> {
        let Some(arrived) = arrived else { return Some(self) };
        if self.records == 0 {
            return Some(self);
        }
        Self::between(self.first.max(arrived + 1), self.first.saturating_add(self.records))
    }
}

/// Keeps a copy of a damaged file beside it, for inspection. The spool works without the copy.
pub(super) fn set_aside(path: &Path) {
    let aside = path.with_added_extension(SUFFIX);
    if aside.exists() {
        return;
    }
    tracing::error!(path = %path.display(), aside = %aside.display(), "a file of the history's spool is damaged");
    let there = path.parent().and_then(|dir| fs::read_dir(dir).ok()).map_or(0, |entries| {
        let is_aside = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == SUFFIX);
        entries.flatten().filter(is_aside).count()
    });
    if there >= ASIDE {
        tracing::error!(there, "a damaged file is not kept aside, since there are so many already; look at them, and remove them");
    } else if let Err(error) = fs::copy(path, &aside) {
        tracing::error!(%error, "a damaged file is not kept aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_not_lost() {
        let loss = Loss::between(5, 9).unwrap();
        assert_eq!(loss, Loss { first: 5, records: 4 });
        let behind = |arrived| loss.behind(arrived).map(|loss| (loss.first, loss.records));
        assert_eq!([behind(None), behind(Some(3)), behind(Some(4))], [Some((5, 4)); 3]);
        assert_eq!([behind(Some(6)), behind(Some(8)), behind(Some(9))], [Some((7, 2)), None, None]);
        assert_eq!((Loss::between(5, 5), Loss::between(6, 5)), (None, None));
    }

    #[test]
    fn losses_that_follow_each_other_are_one() {
        let mut losses = Vec::new();
        for (first, records) in [(3, 1), (4, 2), (7, 1), (8, 1)] {
            Loss { first, records }.add_to(&mut losses);
        }
        assert_eq!(losses, [Loss { first: 3, records: 3 }, Loss { first: 7, records: 2 }]);
    }

    #[test]
    fn so_many_damaged_files_are_kept_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..ASIDE + 3 {
            let path = dir.path().join(format!("{number}.spool"));
            fs::write(&path, "first").unwrap();
            set_aside(&path);
            fs::write(&path, "second").unwrap();
            set_aside(&path);
        }
        let aside: Vec<_> =
            fs::read_dir(dir.path()).unwrap().flatten().filter(|entry| entry.path().extension().unwrap() == SUFFIX).collect();
        assert_eq!(aside.len(), ASIDE);
        assert!(aside.iter().all(|entry| fs::read_to_string(entry.path()).unwrap() == "first"));
    }
}
