//! The state of the services written here, and the file it survives in.
//!
//! The file is a line for each request that changed something: of messages, of which there may be very many, what changed; of all else,
//! which is little, all. So a request costs the same however many messages wait. It is never used for tests in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::{fs, io, mem};

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::clock::Millis;
use crate::eventbridge::Bus;
use crate::ids::Ids;
use crate::kms::Key;
use crate::scheduler::Schedule;
use crate::secrets::Secret;
use crate::sqs::{Changes, Queue};

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

    /// The value, if it was borrowed for writing since the last time this was asked.
    pub(crate) fn take_touched(&mut self) -> Option<&mut T> {
        mem::take(&mut self.touched).then_some(&mut self.value)
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

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path} cannot be read or written: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not hold the services: {source}")]
    Content { path: PathBuf, source: serde_json::Error },
}

/// How much the file may grow beyond twice what it was when it was written as one line.
const GROWTH: u64 = 16 << 20;

/// A line of the file, written without a copy of the messages.
#[derive(Serialize)]
struct Line<'a> {
    services: &'a Services,
    messages: Messages<'a>,
}

struct Messages<'a> {
    queues: &'a BTreeMap<String, Queue>,
    all: bool,
}

struct MessagesOf<'a>(&'a Queue, bool);

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.queues.iter().map(|(name, queue)| (name, MessagesOf(queue, self.all))))
    }
}

impl Serialize for MessagesOf<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write_messages(to, self.1)
    }
}

/// The same as it is read.
#[derive(Deserialize)]
struct ReadLine {
    services: Services,
    messages: BTreeMap<String, Changes>,
}

/// The file the state survives in.
#[derive(Debug)]
pub(crate) struct ServicesFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// Length of the line that held everything.
    whole: u64,
}

impl ServicesFile {
    /// The saved state, or an empty one if nothing was saved yet.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Services), FileError> {
        let saved = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(FileError::Io { path, source }),
        };
        let mut services = Services::default();
        // What follows the last line break was never answered for.
        for line in saved.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let line: ReadLine =
                serde_json::from_slice(line).map_err(|source| FileError::Content { path: path.clone(), source })?;
            let mut before = mem::replace(&mut services, line.services).queues;
            for (name, queue) in &mut services.queues {
                if let Some(before) = before.remove(name) {
                    queue.take_messages_of(before);
                }
            }
            for (name, changes) in line.messages {
                if let Some(queue) = services.queues.get_mut(&name) {
                    queue.apply(changes);
                }
            }
        }
        let (file, whole) = replace(&path, &mut services)?;
        Ok((Self { path, file, length: whole, whole }, services))
    }

    /// Adds what changed. After a failure the file is as before, and what changed is written with the next.
    pub(crate) fn save(&mut self, services: &mut Services) -> Result<(), FileError> {
        if self.length > 2 * self.whole + GROWTH {
            (self.file, self.whole) = replace(&self.path, services)?;
            self.length = self.whole;
            return Ok(());
        }
        let mut line = Vec::new();
        if let Err(source) = write_line(&mut line, services, false).and_then(|()| self.file.write_all(&line)) {
            // A line that follows half of one could not be read.
            let _ = self.file.set_len(self.length);
            return Err(io_error(&self.path, source));
        }
        self.length += line.len() as u64;
        forget_changes(services);
        Ok(())
    }
}

/// Everything in one line in place of the file, in one step: a crash leaves the former file or the new one, never half of one.
fn replace(path: &Path, services: &mut Services) -> Result<(File, u64), FileError> {
    let unfinished = path.with_extension("new");
    let written = || {
        let mut line = BufWriter::new(File::create(&unfinished)?);
        write_line(&mut line, services, true)?;
        line.flush()?;
        fs::rename(&unfinished, path)?;
        let file = File::options().append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    let written = written().map_err(|source| io_error(path, source))?;
    forget_changes(services);
    Ok(written)
}

fn write_line(to: &mut impl Write, services: &Services, all: bool) -> io::Result<()> {
    serde_json::to_writer(&mut *to, &Line { services, messages: Messages { queues: &services.queues, all } })?;
    to.write_all(b"\n")
}

pub(crate) fn forget_changes(services: &mut Services) {
    services.queues.values_mut().for_each(Queue::forget_changes);
}

fn io_error(path: &Path, source: io::Error) -> FileError {
    FileError::Io { path: path.to_owned(), source }
}
