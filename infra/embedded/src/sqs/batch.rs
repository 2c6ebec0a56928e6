//! The batch operations: each entry succeeds or fails alone.

use super::error::SqsError;
use super::named;
use super::queue::{Draft, MAXIMUM_SIZE};
use super::wire::{Batch, BatchFailure, BatchResult, BatchSuccess, NewMessage, Receipt, SentMessage, VisibilityChange};
use crate::aws_json::{Empty, Fault as _};
use crate::state::Call;

const MAXIMUM_ENTRIES: usize = 10;

pub(super) fn send(call: &mut Call<'_>, batch: Batch<NewMessage>) -> Result<BatchResult<SentMessage>, SqsError> {
    let size: usize = batch.entries.iter().map(|entry| entry.entry.size()).sum();
    let now = call.now;
    let (queue, ids) = named(call, &batch.queue_url)?;
    if size > MAXIMUM_SIZE {
        return Err(SqsError::BatchRequestTooLong);
    }
    each(batch, |message| Ok(queue.push(Draft::new(message, queue)?, ids, now)))
}

pub(super) fn delete(call: &mut Call<'_>, batch: Batch<Receipt>) -> Result<BatchResult<Empty>, SqsError> {
    let (queue, _) = named(call, &batch.queue_url)?;
    each(batch, |receipt| queue.delete(&receipt.receipt_handle).map(|()| Empty {}))
}

pub(super) fn change_visibility(
    call: &mut Call<'_>,
    batch: Batch<VisibilityChange>,
) -> Result<BatchResult<Empty>, SqsError> {
    let now = call.now;
    let (queue, _) = named(call, &batch.queue_url)?;
    each(batch, |change| queue.change_visibility(&change, now).map(|()| Empty {}))
}

fn each<Entry, Done>(
    batch: Batch<Entry>,
    mut operation: impl FnMut(Entry) -> Result<Done, SqsError>,
) -> Result<BatchResult<Done>, SqsError> {
    let entries = batch.entries;
    if entries.is_empty() {
        return Err(SqsError::EmptyBatchRequest);
    }
    if entries.len() > MAXIMUM_ENTRIES {
        return Err(SqsError::TooManyEntriesInBatchRequest);
    }
    if (1..entries.len()).any(|at| entries[..at].iter().any(|earlier| earlier.id == entries[at].id)) {
        return Err(SqsError::BatchEntryIdsNotDistinct);
    }
    let mut result = BatchResult { successful: Vec::new(), failed: Vec::new() };
    for entry in entries {
        match operation(entry.entry) {
            Ok(done) => result.successful.push(BatchSuccess { id: entry.id, done }),
            Err(error) => result.failed.push(BatchFailure {
                id: entry.id,
                code: error.query_code().unwrap_or(error.shape()),
                message: error.to_string(),
                sender_fault: true,
            }),
        }
    }
    Ok(result)
}
