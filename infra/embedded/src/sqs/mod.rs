//! SQS: standard queues with visibility, delays and redrive to a dead-letter queue, by the JSON protocol.
//!
//! What it never does: FIFO queues (refused), waiting for messages (`WaitTimeSeconds` is checked and then taken as 0: a
//! clock that stands still would wait for ever), dropping messages after their retention period (a clock that jumps a
//! month would lose them), reordering or delivering twice by itself.

mod batch;
mod digest;
mod error;
mod queue;
mod queues;
mod wire;

pub(crate) use queue::{Changes, Queue, deliver};

use bytes::Bytes;

use crate::aws_json::{Empty, Failure, run};
use crate::ids::Ids;
use crate::state::Call;
use error::SqsError;
use queue::Draft;
use wire::{
    ChangeMessageVisibility, DeleteMessage, QueueUrl, ReceiveMessage, ReceivedMessages, SendMessage, SentMessage,
};

pub(crate) const TARGET: &str = "AmazonSQS";

pub(crate) fn dispatch(call: &mut Call<'_>, operation: &str, body: &[u8]) -> Result<Bytes, Failure<SqsError>> {
    match operation {
        "ChangeMessageVisibility" => run(body, |r| change_visibility(call, &r)),
        "ChangeMessageVisibilityBatch" => run(body, |r| batch::change_visibility(call, r)),
        "CreateQueue" => run(body, |r| queues::create(call, r)),
        "DeleteMessage" => run(body, |r| delete(call, &r)),
        "DeleteMessageBatch" => run(body, |r| batch::delete(call, r)),
        "DeleteQueue" => run(body, |r| queues::delete(call, &r)),
        "GetQueueAttributes" => run(body, |r| queues::attributes(call, &r)),
        "GetQueueUrl" => run(body, |r| queues::url(call, &r)),
        "ListQueues" => run(body, |r| queues::list(call, &r)),
        "PurgeQueue" => run(body, |r: QueueUrl| purge(call, &r)),
        "ReceiveMessage" => run(body, |r| receive(call, &r)),
        "SendMessage" => run(body, |r| send(call, r)),
        "SendMessageBatch" => run(body, |r| batch::send(call, r)),
        "SetQueueAttributes" => run(body, |r| queues::set_attributes(call, r)),
        _ => Err(Failure::UnknownOperation),
    }
}

/// The queue a URL names. Only the last segment counts, so a URL stays good when the endpoint moves to another port.
fn named<'a>(call: &'a mut Call<'_>, url: &str) -> Result<(&'a mut Queue, &'a mut Ids), SqsError> {
    let name = queues::name_in(url);
    if !call.services.queues.contains_key(name) {
        return Err(SqsError::QueueDoesNotExist);
    }
    let services = &mut **call.services;
    let queue = services.queues.get_mut(name).ok_or(SqsError::QueueDoesNotExist)?;
    Ok((queue, &mut services.ids))
}

fn send(call: &mut Call<'_>, request: SendMessage) -> Result<SentMessage, SqsError> {
    let now = call.now;
    let (queue, ids) = named(call, &request.queue_url)?;
    let message = Draft::new(request.message, queue)?;
    Ok(queue.push(message, ids, now))
}

fn receive(call: &mut Call<'_>, request: &ReceiveMessage) -> Result<ReceivedMessages, SqsError> {
    let maximum = request.maximum()?;
    let visibility = request.visibility()?;
    request.check_wait()?;
    let name = queues::name_in(&request.queue_url);
    let queue = call.services.queues.get(name).ok_or(SqsError::QueueDoesNotExist)?;
    if !queue.has_visible(call.now) {
        // Most polls end here, without the state being touched and saved.
        return Ok(ReceivedMessages::default());
    }
    let messages = queue::receive(call.services, name, maximum, visibility, call.now);
    Ok(ReceivedMessages { messages: messages.into_iter().map(|message| message.view(request)).collect() })
}

fn delete(call: &mut Call<'_>, request: &DeleteMessage) -> Result<Empty, SqsError> {
    let (queue, _) = named(call, &request.queue_url)?;
    queue.delete(&request.receipt.receipt_handle)?;
    Ok(Empty {})
}

fn change_visibility(call: &mut Call<'_>, request: &ChangeMessageVisibility) -> Result<Empty, SqsError> {
    let now = call.now;
    let (queue, _) = named(call, &request.queue_url)?;
    queue.change_visibility(&request.change, now)?;
    Ok(Empty {})
}

fn purge(call: &mut Call<'_>, request: &QueueUrl) -> Result<Empty, SqsError> {
    named(call, &request.queue_url)?.0.purge();
    Ok(Empty {})
}
