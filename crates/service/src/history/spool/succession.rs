//! Which spool was here before. A file beside the folder names it, and stays when the folder is removed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A new spool: the first one here, or one that replaced the known one.
#[derive(Debug)]
pub(crate) struct Succession {
    path: PathBuf,
    before: Option<String>,
    now: String,
}

impl Succession {
    /// `None`: `spool` is the known one.
    pub(super) fn look(dir: &Path, spool: &str) -> Option<Self> {
        let mut name = dir.file_name().map_or_else(OsString::new, OsString::from);
        name.push(".known");
        let path = dir.with_file_name(name);
        // a file that cannot be read counts as missing
        let before = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        (before.as_deref() != Some(spool)).then(|| Self { path, before, now: spool.to_owned() })
    }

    /// The id of the spool that was known before.
    pub(super) fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }

    /// Notes the new spool as the known one.
    pub(crate) fn note(&self) -> io::Result<()> {
        let new = self.path.with_added_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{}", self.now)?;
        file.sync_all()?;
        fs::rename(new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_that_took_the_place_of_another_one_is_noticed_until_it_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        for _ in 0..2 {
            assert_eq!(Succession::look(&spool, "k1").unwrap().before(), None);
        }
        Succession::look(&spool, "k1").unwrap().note().unwrap();
        assert!(Succession::look(&spool, "k1").is_none());
        let other = Succession::look(&spool, "k2").unwrap();
        assert_eq!(other.before(), Some("k1"));
        other.note().unwrap();
        assert!(Succession::look(&spool, "k2").is_none());
    }
}
