//! The state of the services written here, and the file it survives in.
//!
//! A snapshot is the whole state, written after each request that changed it: simple, and fast enough for a local
//! system's few thousand messages. It is never used for tests in memory.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Millis;
use crate::eventbridge::Bus;
use crate::ids::Ids;
use crate::kms::Key;
use crate::scheduler::Schedule;
use crate::secrets::Secret;
use crate::sqs::Queue;

/// Everything but the database and the event log.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Services {
    pub(crate) ids: Ids,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) buses: BTreeMap<String, Bus>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) keys: BTreeMap<Uuid, Key>,
    pub(crate) key_aliases: BTreeMap<String, Uuid>,
    pub(crate) schedules: BTreeMap<String, Schedule>,
}

/// A value that knows whether it was borrowed for writing, so that no operation can forget to be saved.
#[derive(Debug)]
pub(crate) struct Tracked<T> {
    value: T,
    touched: bool,
}

impl<T> Tracked<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, touched: false }
    }

    /// Whether the value was borrowed for writing since the last time this was asked.
    pub(crate) fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.touched = true;
        &mut self.value
    }
}

/// What an operation works on.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) services: &'a mut Tracked<Services>,
    pub(crate) now: Millis,
    /// The host the request was sent to; queue URLs name it.
    pub(crate) host: &'a str,
}

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path} cannot be read or written: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a snapshot of the services: {source}")]
    Content { path: PathBuf, source: serde_json::Error },
}

/// The file the state survives in.
#[derive(Debug)]
pub(crate) struct SnapshotFile(PathBuf);

impl SnapshotFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The saved state, or an empty one if nothing was saved yet.
    pub(crate) fn load(&self) -> Result<Services, SnapshotError> {
        match fs::read(&self.0) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| SnapshotError::Content { path: self.0.clone(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Services::default()),
            Err(source) => Err(io_error(&self.0, source)),
        }
    }

    /// Replaces the file in one step: a crash leaves the former snapshot or the new one, never half of one.
    pub(crate) fn save(&self, services: &Services) -> Result<(), SnapshotError> {
        let bytes =
            serde_json::to_vec(services).map_err(|source| SnapshotError::Content { path: self.0.clone(), source })?;
        let unfinished = self.0.with_extension("json.new");
        fs::write(&unfinished, bytes).map_err(|source| io_error(&unfinished, source))?;
        fs::rename(&unfinished, &self.0).map_err(|source| io_error(&self.0, source))
    }
}

fn io_error(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.to_owned(), source }
}
