//! `PutEvents`: from entries to envelopes, from envelopes to queues.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};

use super::error::EventBridgeError;
use super::log::{AcceptedEvent, Delivery, EventLog, Outcome};
use super::pattern::Pattern;
use super::wire::{EntryResult, PutEvents, PutEventsEntry, PutEventsResult, RuleState, Target, exists};
use crate::clock::Millis;
use crate::state::{Call, Services};
use crate::{ACCOUNT, REGION, sqs};

const MAXIMUM_ENTRIES: usize = 10;
/// All entries together. AWS raises its limits now and then; the product should stay below the oldest one.
const MAXIMUM_SIZE: usize = 256 * 1024;

pub(super) fn put_events(
    call: &mut Call<'_>,
    log: &mut EventLog,
    request: PutEvents,
) -> Result<PutEventsResult, EventBridgeError> {
    if !(1..=MAXIMUM_ENTRIES).contains(&request.entries.len()) {
        return Err(EventBridgeError::Validation("A request holds 1 to 10 entries."));
    }
    if request.entries.iter().map(size).sum::<usize>() > MAXIMUM_SIZE {
        return Err(EventBridgeError::Validation("Total size of the entries in the request is over the limit."));
    }
    let entries: Vec<EntryResult> = request.entries.into_iter().map(|entry| put(call, log, entry)).collect();
    let failed_entry_count = entries.iter().filter(|entry| matches!(entry, EntryResult::Failed { .. })).count();
    Ok(PutEventsResult { failed_entry_count, entries })
}

fn put(call: &mut Call<'_>, log: &mut EventLog, entry: PutEventsEntry) -> EntryResult {
    let bus = entry.event_bus_name.name().to_owned();
    if !exists(call, &bus) {
        return failed("ResourceNotFoundException", format!("Event bus {bus} does not exist."));
    }
    let (event_id, event) = match envelope(call, entry) {
        Ok(parts) => parts,
        Err(failure) => return failure,
    };
    let deliveries = deliver(call.services, &bus, &event, call.now);
    log.push(AcceptedEvent { bus, event, deliveries });
    EntryResult::Accepted { event_id }
}

fn envelope(call: &mut Call<'_>, entry: PutEventsEntry) -> Result<(String, Value), EntryResult> {
    let missing =
        |name: &str| failed("InvalidArgument", format!("Parameter {name} is not valid. Reason: it is required."));
    let present = |text: Option<String>| text.filter(|text| !text.is_empty());
    let source = present(entry.source).ok_or_else(|| missing("Source"))?;
    let detail_type = present(entry.detail_type).ok_or_else(|| missing("DetailType"))?;
    let detail = present(entry.detail).ok_or_else(|| missing("Detail"))?;
    if source.starts_with("aws.") {
        return Err(failed("NotAuthorizedForSourceException", "Sources beginning with aws. are reserved.".to_owned()));
    }
    let Ok(detail @ Value::Object(_)) = serde_json::from_str(&detail) else {
        return Err(failed("MalformedDetail", "Detail is malformed.".to_owned()));
    };
    let time = entry.time.map_or_else(|| DateTime::from_secs_f64(call.now.timestamp()), DateTime::from_secs_f64);
    let time = DateTime::from_secs(time.secs()).fmt(Format::DateTime);
    let time = time.map_err(|_| failed("InvalidArgument", "Parameter Time is not valid.".to_owned()))?;
    let id = call.services.ids.next("event").to_string();
    let event = json!({
        "version": "0",
        "id": id,
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": time,
        "region": REGION,
        "resources": entry.resources,
        "detail": detail,
    });
    Ok((id, event))
}

/// Sends the event to every target of every enabled rule of the bus that matches.
fn deliver(services: &mut Services, bus: &str, event: &Value, now: Millis) -> Vec<Delivery> {
    let matching: Vec<(String, Target)> = services
        .buses
        .get(bus)
        .into_iter()
        .flat_map(|bus| &bus.rules)
        .filter(|(_, rule)| rule.definition.state == RuleState::Enabled)
        .filter(|(_, rule)| {
            // Patterns were checked when the rule was put.
            let pattern = rule.definition.event_pattern.as_deref().and_then(|text| Pattern::parse(text).ok());
            pattern.is_some_and(|pattern| pattern.matches(event))
        })
        .flat_map(|(name, rule)| rule.targets.values().map(|target| (name.clone(), target.clone())))
        .collect();
    let deliver_one = |(rule, target): (String, Target)| {
        let outcome = deliver_to(services, &target, event, now);
        if matches!(outcome, Outcome::Lost | Outcome::DeadLettered) {
            tracing::warn!(rule, target = target.arn, "no such target queue");
        }
        Delivery { rule, target_id: target.id, target_arn: target.arn, outcome }
    };
    matching.into_iter().map(deliver_one).collect()
}

fn deliver_to(services: &mut Services, target: &Target, event: &Value, now: Millis) -> Outcome {
    if !target.arn.starts_with("arn:aws:sqs:") {
        return Outcome::Noted;
    }
    let body = match (&target.input, &target.input_path) {
        (Some(constant), _) => constant.clone(),
        (None, Some(path)) => part(event, path).to_string(),
        (None, None) => event.to_string(),
    };
    if sqs::deliver(services, &target.arn, &body, now) {
        return Outcome::Queued;
    }
    let dead_letters = target.dead_letter_config.as_ref().and_then(|config| config.arn.as_deref());
    if dead_letters.is_some_and(|arn| sqs::deliver(services, arn, &event.to_string(), now)) {
        Outcome::DeadLettered
    } else {
        Outcome::Lost
    }
}

/// The part of the event a path such as `$.detail.id` names.
fn part<'a>(event: &'a Value, path: &str) -> &'a Value {
    let members = path.trim_start_matches('$').split('.').filter(|member| !member.is_empty());
    members.fold(event, |value, member| &value[member])
}

fn size(entry: &PutEventsEntry) -> usize {
    let texts = [&entry.source, &entry.detail_type, &entry.detail];
    let text: usize = texts.into_iter().flatten().map(String::len).sum();
    // The time counts as 14 bytes.
    text + entry.resources.iter().map(String::len).sum::<usize>() + entry.time.map_or(0, |_| 14)
}

fn failed(error_code: &'static str, error_message: String) -> EntryResult {
    EntryResult::Failed { error_code, error_message }
}
