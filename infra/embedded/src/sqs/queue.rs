//! One queue and its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use serde::{Deserialize, Serialize, Serializer};

use super::digest;
use super::error::SqsError;
use super::queues::name_in;
use super::wire::{
    Attributes, MessageAttribute, NewMessage, ReceiveMessage, ReceivedMessage, SentMessage, VisibilityChange,
};
use crate::ACCOUNT;
use crate::clock::Millis;
use crate::ids::Ids;
use crate::state::Services;

/// The greatest length of a message, and of all messages of a batch together.
pub(super) const MAXIMUM_SIZE: usize = 1024 * 1024;
/// What attributes are unless set; the names are all that may be set besides the ones below.
const DEFAULTS: [(&str, &str); 5] = [
    ("DelaySeconds", "0"),
    ("MaximumMessageSize", "1048576"),
    ("MessageRetentionPeriod", "345600"),
    ("ReceiveMessageWaitTimeSeconds", "0"),
    ("VisibilityTimeout", "30"),
];
const WITHOUT_DEFAULT: [&str; 6] = [
    "KmsDataKeyReusePeriodSeconds",
    "KmsMasterKeyId",
    "Policy",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
];

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Queue {
    arn: String,
    attributes: Attributes,
    created: Millis,
    modified: Millis,
    next: u64,
    /// By order of arrival.
    #[serde(skip)]
    messages: BTreeMap<u64, Message>,
    /// Those that came, changed or went since that was last forgotten.
    #[serde(skip)]
    changed: BTreeSet<u64>,
}

/// Messages as they are now, or nothing where they are gone.
pub(crate) type Changes = BTreeMap<u64, Option<Message>>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    id: String,
    body: String,
    attributes: BTreeMap<String, MessageAttribute>,
    attributes_md5: Option<String>,
    sent: Millis,
    visible: Millis,
    receive_count: u32,
    first_received: Option<Millis>,
    /// The latest receipt handle; older ones have lost their power.
    receipt: Option<String>,
    dead_letter_source: Option<String>,
}

/// A message that was checked and may be pushed.
pub(super) struct Draft {
    body: String,
    attributes: BTreeMap<String, MessageAttribute>,
    attributes_md5: Option<String>,
    delay: u32,
}

/// Where messages go that were received too often.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    max_receive_count: Count,
}

/// The console writes the count as a number, templates often as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u32),
    Text(String),
}

impl RedrivePolicy {
    fn maximum(&self) -> Option<u32> {
        match &self.max_receive_count {
            Count::Number(number) => Some(*number),
            Count::Text(text) => text.parse().ok(),
        }
    }
}

impl NewMessage {
    pub(super) fn size(&self) -> usize {
        let attribute = |(name, value): (&String, &MessageAttribute)| {
            let text = value.string_value.as_ref().map_or(0, String::len);
            let binary = value.binary_value.as_ref().map_or(0, |encoded| encoded.len() / 4 * 3);
            name.len() + value.data_type.len() + text + binary
        };
        self.message_body.len() + self.message_attributes.iter().map(attribute).sum::<usize>()
    }
}

impl Draft {
    pub(super) fn new(message: NewMessage, queue: &Queue) -> Result<Self, SqsError> {
        if message.message_body.is_empty() {
            return Err(SqsError::InvalidParameterValue("The message body is empty."));
        }
        let limit = queue.number("MaximumMessageSize") as usize;
        if message.size() > limit {
            return Err(SqsError::InvalidParameterValue("The message is longer than the queue allows."));
        }
        if message.message_attributes.len() > 10 {
            return Err(SqsError::InvalidParameterValue("A message has at most 10 attributes."));
        }
        let delay = message.delay_seconds.unwrap_or_else(|| queue.number("DelaySeconds"));
        if delay > 900 {
            return Err(SqsError::InvalidParameterValue("DelaySeconds is between 0 and 900."));
        }
        let attributes_md5 = digest::of_attributes(&message.message_attributes)?;
        Ok(Self { body: message.message_body, attributes: message.message_attributes, attributes_md5, delay })
    }
}

impl Queue {
    pub(super) fn new(arn: String, attributes: Attributes, now: Millis) -> Result<Self, SqsError> {
        let (messages, changed) = (BTreeMap::new(), BTreeSet::new());
        let mut queue =
            Self { arn, attributes: Attributes::new(), created: now, modified: now, next: 0, messages, changed };
        queue.set_attributes(attributes, now)?;
        Ok(queue)
    }

    pub(super) fn set_attributes(&mut self, attributes: Attributes, now: Millis) -> Result<(), SqsError> {
        for (name, value) in &attributes {
            check_attribute(name, value)?;
        }
        self.attributes.extend(attributes);
        self.modified = now;
        Ok(())
    }

    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        let default = || DEFAULTS.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        self.attributes.get(name).cloned().or_else(default)
    }

    fn number(&self, name: &str) -> u32 {
        self.attribute(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(super) fn all_attributes(&self, now: Millis) -> Attributes {
        let (mut ready, mut in_flight, mut delayed) = (0_usize, 0_usize, 0_usize);
        for message in self.messages.values() {
            if message.visible <= now {
                ready += 1;
            } else if message.receipt.is_some() {
                in_flight += 1;
            } else {
                delayed += 1;
            }
        }
        let counted = [
            ("ApproximateNumberOfMessages", ready.to_string()),
            ("ApproximateNumberOfMessagesDelayed", delayed.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", in_flight.to_string()),
            ("CreatedTimestamp", self.created.seconds().to_string()),
            ("LastModifiedTimestamp", self.modified.seconds().to_string()),
            ("QueueArn", self.arn.clone()),
        ];
        let defaults = DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut attributes: Attributes = defaults.collect();
        attributes.extend(self.attributes.clone());
        attributes.extend(counted.map(|(name, value)| (name.to_owned(), value)));
        attributes
    }

    pub(super) fn push(&mut self, draft: Draft, ids: &mut Ids, now: Millis) -> SentMessage {
        let id = ids.next("message").to_string();
        let sent = SentMessage {
            message_id: id.clone(),
            md5_of_message_body: digest::of_body(&draft.body),
            md5_of_message_attributes: draft.attributes_md5.clone(),
        };
        self.append(Message {
            id,
            body: draft.body,
            attributes: draft.attributes,
            attributes_md5: draft.attributes_md5,
            sent: now,
            visible: now.plus_seconds(draft.delay),
            receive_count: 0,
            first_received: None,
            receipt: None,
            dead_letter_source: None,
        });
        sent
    }

    fn append(&mut self, message: Message) {
        self.changed.insert(self.next);
        self.messages.insert(self.next, message);
        self.next += 1;
    }

    fn remove(&mut self, number: u64) -> Option<Message> {
        self.changed.insert(number);
        self.messages.remove(&number)
    }

    /// What [`Queue::apply`] takes: what changed of the messages, or all of them.
    pub(crate) fn write_messages<S: Serializer>(&self, to: S, all: bool) -> Result<S::Ok, S::Error> {
        if all {
            return to.collect_map(&self.messages);
        }
        to.collect_map(self.changed.iter().map(|number| (number, self.messages.get(number))))
    }

    pub(crate) fn forget_changes(&mut self) {
        self.changed.clear();
    }

    pub(crate) fn take_messages_of(&mut self, former: Self) {
        self.messages = former.messages;
    }

    pub(crate) fn apply(&mut self, changes: Changes) {
        for (number, message) in changes {
            match message {
                Some(message) => drop(self.messages.insert(number, message)),
                None => drop(self.messages.remove(&number)),
            }
        }
    }

    pub(super) fn has_visible(&self, now: Millis) -> bool {
        self.messages.values().any(|message| message.visible <= now)
    }

    /// Deletes by the latest receipt handle. An older one, or one of a message that is gone, is accepted without
    /// effect.
    pub(super) fn delete(&mut self, receipt: &str) -> Result<(), SqsError> {
        let number = number_in(receipt)?;
        if self.messages.get(&number).is_some_and(|message| message.receipt.as_deref() == Some(receipt)) {
            self.remove(number);
        }
        Ok(())
    }

    pub(super) fn change_visibility(&mut self, change: &VisibilityChange, now: Millis) -> Result<(), SqsError> {
        let seconds = change.seconds()?;
        let number = number_in(&change.receipt_handle)?;
        let message = self
            .messages
            .get_mut(&number)
            .filter(|message| message.receipt.as_ref() == Some(&change.receipt_handle))
            .ok_or(SqsError::InvalidParameterValue("The message does not exist or was received again since."))?;
        if message.visible <= now {
            return Err(SqsError::MessageNotInflight);
        }
        message.visible = now.plus_seconds(seconds);
        self.changed.insert(number);
        Ok(())
    }

    pub(super) fn purge(&mut self) {
        self.changed.extend(mem::take(&mut self.messages).into_keys());
    }

    fn redrive(&self) -> Option<(String, u32)> {
        let policy: RedrivePolicy = serde_json::from_str(self.attributes.get("RedrivePolicy")?).ok()?;
        Some((name_in(&policy.dead_letter_target_arn).to_owned(), policy.maximum()?))
    }
}

/// Takes up to `maximum` visible messages, oldest first; those received too often move to the dead-letter queue
/// instead.
pub(super) fn receive(
    services: &mut Services,
    name: &str,
    maximum: usize,
    visibility: Option<u32>,
    now: Millis,
) -> Vec<Message> {
    let Some(queue) = services.queues.get_mut(name) else { return Vec::new() };
    let hidden_until = now.plus_seconds(visibility.unwrap_or_else(|| queue.number("VisibilityTimeout")));
    let redrive = queue.redrive();
    let (mut received, mut exhausted) = (Vec::new(), Vec::new());
    for (&number, message) in &mut queue.messages {
        if received.len() == maximum {
            break;
        }
        if message.visible > now {
            continue;
        }
        if redrive.as_ref().is_some_and(|(_, limit)| message.receive_count >= *limit) {
            exhausted.push(number);
            continue;
        }
        message.receive_count += 1;
        message.first_received.get_or_insert(now);
        message.visible = hidden_until;
        message.receipt = Some(format!("{number:016x}{}", services.ids.next("receipt").simple()));
        received.push(message.clone());
        queue.changed.insert(number);
    }
    if let Some((dead_letter_name, _)) = redrive {
        move_to(services, name, &dead_letter_name, &exhausted, now);
    }
    received
}

fn move_to(services: &mut Services, from: &str, to: &str, numbers: &[u64], now: Millis) {
    if !services.queues.contains_key(to) {
        // As on AWS, messages stay where they are while their dead-letter queue is missing.
        return;
    }
    let Some(source) = services.queues.get_mut(from) else { return };
    let arn = source.arn.clone();
    let moved: Vec<Message> = numbers.iter().filter_map(|number| source.remove(*number)).collect();
    let Some(target) = services.queues.get_mut(to) else { return };
    for message in moved {
        target.append(Message {
            visible: now,
            receive_count: 0,
            first_received: None,
            receipt: None,
            dead_letter_source: Some(arn.clone()),
            ..message
        });
    }
}

/// Puts a body into the queue an ARN names, for the services that deliver to queues. `false` if there is none.
pub(crate) fn deliver(services: &mut Services, arn: &str, body: &str, now: Millis) -> bool {
    let Some(queue) = services.queues.get_mut(name_in(arn)).filter(|queue| queue.arn == arn) else { return false };
    let delay = queue.number("DelaySeconds");
    let draft = Draft { body: body.to_owned(), attributes: BTreeMap::new(), attributes_md5: None, delay };
    queue.push(draft, &mut services.ids, now);
    true
}

impl Message {
    /// The message as this request wants to see it.
    pub(super) fn view(self, request: &ReceiveMessage) -> ReceivedMessage {
        let known = [
            ("ApproximateFirstReceiveTimestamp", self.first_received.map(|time| time.0.to_string())),
            ("ApproximateReceiveCount", Some(self.receive_count.to_string())),
            ("DeadLetterQueueSourceArn", self.dead_letter_source),
            ("SenderId", Some(ACCOUNT.to_owned())),
            ("SentTimestamp", Some(self.sent.0.to_string())),
        ];
        let wanted = known.into_iter().filter(|(name, _)| request.wants_system_attribute(name));
        let total = self.attributes.len();
        let mut message_attributes = self.attributes;
        message_attributes.retain(|name, _| request.wants_attribute(name));
        // The digest covers what is returned; it is at hand when that is everything.
        let md5_of_message_attributes = match message_attributes.len() {
            some if some == total => self.attributes_md5,
            _ => digest::of_attributes(&message_attributes).unwrap_or_default(),
        };
        ReceivedMessage {
            message_id: self.id,
            receipt_handle: self.receipt.unwrap_or_default(),
            md5_of_body: digest::of_body(&self.body),
            body: self.body,
            attributes: wanted.filter_map(|(name, value)| Some((name, value?))).collect(),
            md5_of_message_attributes,
            message_attributes,
        }
    }
}

/// The message's number, which its receipt handles begin with.
fn number_in(receipt: &str) -> Result<u64, SqsError> {
    match (receipt.len(), receipt.get(..16)) {
        (48, Some(number)) => u64::from_str_radix(number, 16).map_err(|_| SqsError::ReceiptHandleIsInvalid),
        _ => Err(SqsError::ReceiptHandleIsInvalid),
    }
}

fn check_attribute(name: &str, value: &str) -> Result<(), SqsError> {
    let invalid = || SqsError::InvalidAttributeValue { name: name.to_owned(), value: value.to_owned() };
    let range = match name {
        "DelaySeconds" => 0..=900,
        "MaximumMessageSize" => 1024..=1_048_576,
        "MessageRetentionPeriod" => 60..=1_209_600,
        "ReceiveMessageWaitTimeSeconds" => 0..=20,
        "VisibilityTimeout" => 0..=43_200,
        "RedrivePolicy" if value.is_empty() => return Ok(()),
        "RedrivePolicy" => {
            let policy: RedrivePolicy = serde_json::from_str(value).map_err(|_| invalid())?;
            return policy.maximum().filter(|count| (1..=1000).contains(count)).map(drop).ok_or_else(invalid);
        }
        "FifoQueue" | "ContentBasedDeduplication" => return Err(SqsError::FifoUnsupported),
        _ if WITHOUT_DEFAULT.contains(&name) => return Ok(()),
        _ => return Err(SqsError::InvalidAttributeName(name.to_owned())),
    };
    value.parse::<u32>().ok().filter(|number| range.contains(number)).map(drop).ok_or_else(invalid)
}
