//! Queues as a whole: creating, finding, describing, deleting.

use super::error::SqsError;
use super::named;
use super::queue::Queue;
use super::wire::{
    Attributes, CreateQueue, GetQueueAttributes, GetQueueUrl, ListQueues, QueueAttributes, QueueUrl, QueueUrls,
    SetQueueAttributes,
};
use crate::aws_json::Empty;
use crate::state::Call;
use crate::{ACCOUNT, REGION};

const NAME_LIMIT: usize = 80;

/// The name in a queue's URL or ARN.
pub(super) fn name_in(address: &str) -> &str {
    address.rsplit(['/', ':']).next().unwrap_or(address)
}

pub(super) fn arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}

pub(super) fn create(call: &mut Call<'_>, request: CreateQueue) -> Result<QueueUrl, SqsError> {
    let CreateQueue { queue_name: name, attributes } = request;
    if name.strip_suffix(".fifo").is_some() || attributes.contains_key("FifoQueue") {
        return Err(SqsError::FifoUnsupported);
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NAME_LIMIT || !name.chars().all(valid) {
        return Err(SqsError::InvalidParameterValue(
            "A queue name has 1 to 80 letters, digits, hyphens and underscores.",
        ));
    }
    let queue_url = url_of(call, &name);
    if let Some(existing) = call.services.queues.get(&name) {
        return match attributes.iter().find(|(key, value)| existing.attribute(key).as_deref() != Some(value)) {
            Some((key, _)) => Err(SqsError::QueueNameExists(key.clone())),
            None => Ok(QueueUrl { queue_url }),
        };
    }
    let queue = Queue::new(arn(&name), attributes, call.now)?;
    call.services.queues.insert(name, queue);
    Ok(QueueUrl { queue_url })
}

pub(super) fn set_attributes(call: &mut Call<'_>, request: SetQueueAttributes) -> Result<Empty, SqsError> {
    let now = call.now;
    named(call, &request.queue_url)?.0.set_attributes(request.attributes, now)?;
    Ok(Empty {})
}

pub(super) fn attributes(call: &Call<'_>, request: &GetQueueAttributes) -> Result<QueueAttributes, SqsError> {
    let queue = call.services.queues.get(name_in(&request.queue_url)).ok_or(SqsError::QueueDoesNotExist)?;
    let mut attributes: Attributes = queue.all_attributes(call.now);
    let names = &request.attribute_names;
    if !names.iter().any(|name| name == "All") {
        attributes.retain(|key, _| names.contains(key));
    }
    Ok(QueueAttributes { attributes })
}

pub(super) fn url(call: &Call<'_>, request: &GetQueueUrl) -> Result<QueueUrl, SqsError> {
    if !call.services.queues.contains_key(&request.queue_name) {
        return Err(SqsError::QueueDoesNotExist);
    }
    Ok(QueueUrl { queue_url: url_of(call, &request.queue_name) })
}

#[allow(clippy::unnecessary_wraps)] // as every operation
pub(super) fn list(call: &Call<'_>, request: &ListQueues) -> Result<QueueUrls, SqsError> {
    let names = call.services.queues.keys().filter(|name| name.starts_with(&request.queue_name_prefix));
    Ok(QueueUrls { queue_urls: names.map(|name| url_of(call, name)).collect() })
}

pub(super) fn delete(call: &mut Call<'_>, request: &QueueUrl) -> Result<Empty, SqsError> {
    let name = name_in(&request.queue_url);
    call.services.queues.remove(name).ok_or(SqsError::QueueDoesNotExist)?;
    Ok(Empty {})
}

/// A URL on the host the caller used, because some clients send requests to the URL itself.
fn url_of(call: &Call<'_>, name: &str) -> String {
    let scheme = if call.host.ends_with(".amazonaws.com") { "https" } else { "http" };
    format!("{scheme}://{}/{ACCOUNT}/{name}", call.host)
}
