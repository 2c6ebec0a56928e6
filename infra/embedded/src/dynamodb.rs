//! `DynamoDB` and `DynamoDB` Streams: `dynoxide` behind its public operations, answered as its own server would.
//!
//! Two things are done on top of opening it:
//!
//! - An index on its table of stream records. Each stream write asks for the greatest sequence number of its table,
//!   which without the index is a scan: writes then slow down as the stream grows.
//! - The caller's clock, for databases in memory. `dynoxide` takes a clock only for those; in a file, the times it sets
//!   itself (a stream record's creation, the age TTL compares with) are the wall clock's.
//!
//! A memory database is given the index by restoring a prepared empty database into it: that keeps the clock, needs no
//! temporary file, and plain writes cost what they cost without.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use http::{Response, StatusCode};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aws_json::{self, JSON_1_0};
use crate::clock::Clock;

pub(crate) const TARGET: &str = "DynamoDB_20120810";
pub(crate) const STREAMS_TARGET: &str = "DynamoDBStreams_20120810";

const STREAM_INDEX: &str = "CREATE INDEX IF NOT EXISTS _stream_records_by_sequence \
                            ON _stream_records(table_name, CAST(sequence_number AS INTEGER))";

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database cannot be opened: {0}")]
    Open(#[from] DynoxideError),
    #[error("the database cannot be indexed: {0}")]
    Index(#[from] rusqlite::Error),
}

struct DatabaseClock(Clock);

impl dynoxide::storage_backend::Clock for DatabaseClock {
    fn now_unix_secs(&self) -> u64 {
        self.0().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

pub(crate) fn memory(clock: Clock) -> Result<Database, DatabaseError> {
    static PREPARED: AtomicU64 = AtomicU64::new(0);
    let number = PREPARED.fetch_add(1, Ordering::Relaxed);
    let uri = format!("file:embedded-{number}?mode=memory&cache=shared");
    let prepared = Database::new(&uri)?;
    Connection::open(&uri)?.execute_batch(STREAM_INDEX)?;
    let database = Database::memory_with_clock(Arc::new(DatabaseClock(clock)))?;
    database.restore_from(&uri)?;
    drop(prepared);
    Ok(database)
}

pub(crate) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let database = Database::new(&path.to_string_lossy())?;
    Connection::open(path)?.execute_batch(STREAM_INDEX)?;
    // The only public call that sets `synchronous = NORMAL`: with the write-ahead log it cannot corrupt the file, and
    // it spares a disk flush per write. A power cut may cost a local system its last writes; that is a fair trade.
    database.disable_bulk_loading()?;
    Ok(database)
}

pub(crate) fn handle(database: &Database, operation: &str, body: &[u8]) -> Response<Bytes> {
    match dispatch(database, operation, body) {
        Some(Ok(body)) => aws_json::response(StatusCode::OK, JSON_1_0, body),
        Some(Err(error)) => {
            let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::BAD_REQUEST);
            aws_json::response(status, JSON_1_0, error.to_json().into())
        }
        None => aws_json::unknown_operation(JSON_1_0),
    }
}

fn dispatch(db: &Database, operation: &str, body: &[u8]) -> Option<dynoxide::Result<Bytes>> {
    Some(match operation {
        "BatchExecuteStatement" => run(body, |r| db.batch_execute_statement(r)),
        "BatchGetItem" => run(body, |r| db.batch_get_item(r)),
        "BatchWriteItem" => run(body, |r| db.batch_write_item(r)),
        "CreateTable" => run(body, |r| db.create_table(r)),
        "DeleteItem" => run(body, |r| db.delete_item(r)),
        "DeleteTable" => run(body, |r| db.delete_table(r)),
        "DescribeStream" => run(body, |r| db.describe_stream(r)),
        "DescribeTable" => run(body, |r| db.describe_table(r)),
        "DescribeTimeToLive" => run(body, |r| db.describe_time_to_live(r)),
        "ExecuteStatement" => run(body, |r| db.execute_statement(r)),
        "ExecuteTransaction" => run(body, |r| db.execute_transaction(r)),
        "GetItem" => run(body, |r| db.get_item(r)),
        "GetRecords" => run(body, |r| db.get_records(r)),
        "GetShardIterator" => run(body, |r| db.get_shard_iterator(r)),
        "ListStreams" => run(body, |r| db.list_streams(r)),
        "ListTables" => run(body, |r| db.list_tables(r)),
        "ListTagsOfResource" => run(body, |r| db.list_tags_of_resource(r)),
        "PutItem" => run(body, |r| db.put_item(r)),
        "Query" => run(body, |r| db.query(r)),
        "Scan" => run(body, |r| db.scan(r)),
        "TagResource" => run(body, |r| db.tag_resource(r)),
        "TransactGetItems" => run(body, |r| db.transact_get_items(r)),
        "TransactWriteItems" => run(body, |r| db.transact_write_items(r)),
        "UntagResource" => run(body, |r| db.untag_resource(r)),
        "UpdateItem" => run(body, |r| db.update_item(r)),
        "UpdateTable" => run(body, |r| db.update_table(r)),
        "UpdateTimeToLive" => run(body, |r| db.update_time_to_live(r)),
        _ => return None,
    })
}

fn run<Request, Answer>(
    body: &[u8],
    operation: impl FnOnce(Request) -> dynoxide::Result<Answer>,
) -> dynoxide::Result<Bytes>
where
    Request: DeserializeOwned,
    Answer: Serialize,
{
    let request = aws_json::parse(body).map_err(|error| unreadable(&error))?;
    let answer = operation(request)?;
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// What a request `dynoxide` could not read is refused with. Its readers mark the class of error in front of the
/// message, and the function that resolves the marks is private to it.
fn unreadable(error: &serde_json::Error) -> DynoxideError {
    let message = error.to_string();
    let stripped = |prefix| message.strip_prefix(prefix).map(str::to_owned);
    for validation in ["VALIDATION_REQUEST:", "VALIDATION_AS_READ:", "VALIDATION:"] {
        if let Some(text) = stripped(validation) {
            return DynoxideError::ValidationException(text);
        }
    }
    for serialization in ["SERIALIZATION_AS_READ:", "SERIALIZATION:"] {
        if let Some(text) = stripped(serialization) {
            return DynoxideError::SerializationException(text);
        }
    }
    let invalid = ["missing field", "unknown variant", "invalid type: null", "AttributeValue"];
    if invalid.iter().any(|part| message.contains(part)) {
        DynoxideError::ValidationException(message)
    } else {
        DynoxideError::SerializationException(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::system_clock;

    #[test]
    fn a_memory_database_has_the_index() {
        let database = memory(system_clock()).unwrap();
        let uri = "file:embedded-copy?mode=memory&cache=shared";
        let copy = Connection::open(uri).unwrap();
        database.vacuum_into(uri).unwrap();
        let indexes = "SELECT count(*) FROM sqlite_master WHERE name = '_stream_records_by_sequence'";
        assert_eq!(copy.query_row(indexes, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    }

    #[test]
    fn marked_read_errors_keep_their_class() {
        let error = |text: &str| unreadable(&serde::de::Error::custom(text)).to_json();
        assert!(error("VALIDATION_REQUEST:no").contains("ValidationException"));
        assert!(error("SERIALIZATION:no").contains("SerializationException"));
        assert!(error("missing field `TableName`").contains("ValidationException"));
        assert!(error("invalid type: integer").contains("SerializationException"));
    }
}
