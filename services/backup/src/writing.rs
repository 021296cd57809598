//! Whether this service can store configs: in its database, and in the storage. docs/recovery.md says what becomes of a service that cannot.

mod noting;

use tsujiban_database::{Class, why_unwritable};
use tsujiban_proto::error::ServiceError;
use tsujiban_service::writing::Resource;

pub(crate) use self::noting::Noting;
use crate::catalogue::CatalogueError;
use crate::error::{DAMAGE_ADVICE, Error, Result};
use crate::service::Backup;

impl Backup {
    /// Tries to write to the database, and to the storage if the last put failed there. Fails with the reason why the database cannot be
    /// written.
    pub async fn try_write(&self) -> Result<(), String> {
        let written = self.catalogue.database().try_write(self.now().as_microsecond()).await;
        written.map_err(|error| why_unwritable(&error, DAMAGE_ADVICE))?;
        if !self.writing.storage_works() {
            // the store notes the result itself
            let _ = self.try_put().await;
        }
        Ok(())
    }

    /// Checks the integrity of the database by reading all of it, and puts the result into the state of writing.
    pub async fn check_database(&self) -> Result<()> {
        let found = match self.catalogue.database().damage().await {
            Err(error) if Class::of(&error) == Class::Damaged => vec![error.to_string()],
            found => found.map_err(CatalogueError::from)?,
        };
        match found.first() {
            None => self.writing.works(Resource::Integrity),
            Some(first) => {
                tracing::error!(found = found.len(), first, "the database is malformed");
                self.writing.fails(Resource::Integrity, format!("the database is malformed ({first}): {DAMAGE_ADVICE}"));
            }
        }
        Ok(())
    }

    /// Refuses a call while the service cannot write, before the call puts an object that would be in no catalogue.
    pub(crate) fn check_writing(&self) -> Result<(), ServiceError> {
        if let Err(error) = self.catalogue.database().check_files() {
            self.writing.fails(Resource::Database, why_unwritable(&error, DAMAGE_ADVICE));
        }
        self.writing.check()
    }

    /// Notes that a call could not write, so that the state is known before the next try.
    pub(crate) fn note_failure(&self, error: &Error) {
        if let Error::Catalogue(CatalogueError::Database(error)) = error
            && Class::of(error).is_of_the_database()
        {
            self.writing.fails(Resource::Database, why_unwritable(error, DAMAGE_ADVICE));
        }
    }
}
