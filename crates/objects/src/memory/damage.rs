//! Damage to a storage that its users do not notice at once, for tests.

use bytes::Bytes;

use super::{Memory, Stored};

impl Memory {
    /// Whether the storage keeps checksums and so detects damage, as it does by default.
    pub fn keep_checksums(&self, keeps: bool) {
        self.state().without_checksums = !keeps;
    }

    /// Changes the newest version of an object, whatever its lock says.
    pub fn damage(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let Ok(stored) = state.find(key, None) else { return };
        let mut body = stored.body.to_vec();
        change(&mut body);
        (stored.body, stored.damaged) = (Bytes::from(body), true);
    }

    /// Exchanges what the newest versions of two objects hold, checksums included.
    pub fn swap(&self, one: &str, other: &str) {
        let mut state = self.state();
        let (Ok(first), Ok(second)) = (state.find(one, None).cloned(), state.find(other, None).cloned()) else { return };
        for (key, from, version) in [(one, &second, &first.version), (other, &first, &second.version)] {
            if let Ok(stored) = state.find(key, None) {
                *stored = Stored { version: version.clone(), ..from.clone() };
            }
        }
    }

    /// Makes reads of this object fail from now on while others succeed, or ends that.
    pub fn set_broken(&self, key: &str, broken: bool) {
        let mut state = self.state();
        if broken {
            state.broken.insert(key.to_owned());
        } else {
            state.broken.remove(key);
        }
    }

    /// Removes all versions of an object, whatever their locks say.
    pub fn lose(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// Removes everything.
    pub fn lose_everything(&self) {
        self.state().objects.clear();
    }
}
