//! Buses, rules and targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::EventBridgeError;
use super::pattern::Pattern;
use super::wire::{
    BusRef, BusView, ById, CreateEventBus, DEFAULT_BUS, EventBusArn, EventBuses, ListEventBuses, ListRules,
    ListTargets, NamedBus, NamedRule, PutRule, PutTargets, RemoveTargets, RuleArn, RuleDefinition, RuleView, Rules,
    Target, TargetFailure, TargetResults, Targets, bus_arn, exists, rule_arn,
};
use crate::aws_json::Empty;
use crate::clock::Millis;
use crate::state::Call;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bus {
    description: Option<String>,
    created: Option<Millis>,
    pub(super) rules: BTreeMap<String, Rule>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rule {
    pub(super) definition: RuleDefinition,
    pub(super) targets: ById,
}

pub(super) fn create(call: &mut Call<'_>, request: CreateEventBus) -> Result<EventBusArn, EventBridgeError> {
    let CreateEventBus { name, description } = request;
    if name.is_empty() || name.contains('/') {
        return Err(EventBridgeError::Validation("A bus name is not empty and has no slash."));
    }
    if exists(call, &name) {
        return Err(EventBridgeError::BusAlreadyExists(name));
    }
    let event_bus_arn = bus_arn(&name);
    let created = Some(call.now);
    call.services.buses.insert(name, Bus { description, created, rules: BTreeMap::new() });
    Ok(EventBusArn { event_bus_arn })
}

#[allow(clippy::unnecessary_wraps)] // as every operation
pub(super) fn delete(call: &mut Call<'_>, request: &NamedBus) -> Result<Empty, EventBridgeError> {
    if request.name.name() == DEFAULT_BUS {
        return Err(EventBridgeError::Validation("The default bus cannot be deleted."));
    }
    call.services.buses.remove(request.name.name());
    Ok(Empty {})
}

pub(super) fn describe(call: &Call<'_>, request: &NamedBus) -> Result<BusView, EventBridgeError> {
    known(call, &request.name)?;
    Ok(view(call, request.name.name()))
}

#[allow(clippy::unnecessary_wraps)] // as every operation
pub(super) fn list(call: &Call<'_>, request: &ListEventBuses) -> Result<EventBuses, EventBridgeError> {
    let created = call.services.buses.keys().map(String::as_str).filter(|name| *name != DEFAULT_BUS);
    let names = std::iter::once(DEFAULT_BUS).chain(created).filter(|name| name.starts_with(&request.name_prefix));
    Ok(EventBuses { event_buses: names.map(|name| view(call, name)).collect() })
}

pub(super) fn put_rule(call: &mut Call<'_>, request: PutRule) -> Result<RuleArn, EventBridgeError> {
    let PutRule { name, event_bus_name: bus, definition } = request;
    known(call, &bus)?;
    if let Some(pattern) = &definition.event_pattern {
        Pattern::parse(pattern).map_err(EventBridgeError::InvalidEventPattern)?;
    } else if definition.schedule_expression.is_none() {
        return Err(EventBridgeError::Validation("A rule has an event pattern or a schedule expression."));
    }
    let rule_arn = rule_arn(bus.name(), &name);
    // The default bus comes into being with its first rule.
    let rules = &mut call.services.buses.entry(bus.name().to_owned()).or_default().rules;
    match rules.get_mut(&name) {
        Some(rule) => rule.definition = definition,
        None => drop(rules.insert(name, Rule { definition, targets: ById::new() })),
    }
    Ok(RuleArn { rule_arn })
}

pub(super) fn delete_rule(call: &mut Call<'_>, request: &NamedRule) -> Result<Empty, EventBridgeError> {
    known(call, &request.event_bus_name)?;
    let Some(bus) = call.services.buses.get_mut(request.event_bus_name.name()) else { return Ok(Empty {}) };
    if bus.rules.get(&request.name).is_some_and(|rule| !rule.targets.is_empty()) {
        return Err(EventBridgeError::Validation("Rule can't be deleted since it has targets."));
    }
    bus.rules.remove(&request.name);
    Ok(Empty {})
}

pub(super) fn describe_rule(call: &Call<'_>, request: &NamedRule) -> Result<RuleView, EventBridgeError> {
    let definition = rule(call, &request.event_bus_name, &request.name)?.definition.clone();
    Ok(rule_view(request.event_bus_name.name(), &request.name, definition))
}

pub(super) fn list_rules(call: &Call<'_>, request: &ListRules) -> Result<Rules, EventBridgeError> {
    known(call, &request.event_bus_name)?;
    let bus = request.event_bus_name.name();
    let rules = call.services.buses.get(bus).into_iter().flat_map(|found| &found.rules);
    let listed = rules.filter(|(name, _)| name.starts_with(&request.name_prefix));
    Ok(Rules { rules: listed.map(|(name, rule)| rule_view(bus, name, rule.definition.clone())).collect() })
}

pub(super) fn put_targets(call: &mut Call<'_>, request: PutTargets) -> Result<TargetResults, EventBridgeError> {
    let rule = rule_mut(call, &request.event_bus_name, &request.rule)?;
    let mut failed = Vec::new();
    for target in request.targets {
        if let Some(error_message) = unsupported(&target) {
            failed.push(TargetFailure { target_id: target.id, error_code: "ValidationException", error_message });
        } else {
            rule.targets.insert(target.id.clone(), target);
        }
    }
    Ok(TargetResults::new(failed))
}

pub(super) fn remove_targets(call: &mut Call<'_>, request: &RemoveTargets) -> Result<TargetResults, EventBridgeError> {
    let rule = rule_mut(call, &request.event_bus_name, &request.rule)?;
    for id in &request.ids {
        rule.targets.remove(id);
    }
    Ok(TargetResults::default())
}

pub(super) fn list_targets(call: &Call<'_>, request: &ListTargets) -> Result<Targets, EventBridgeError> {
    let rule = rule(call, &request.event_bus_name, &request.rule)?;
    Ok(Targets { targets: rule.targets.values().cloned().collect() })
}

fn unsupported(target: &Target) -> Option<&'static str> {
    if target.rest.contains_key("InputTransformer") {
        return Some("Input transformers are not offered here.");
    }
    let path = target.input_path.as_deref()?;
    (path != "$" && !path.starts_with("$.")).then_some("An input path begins with $ and names members only.")
}

fn known(call: &Call<'_>, bus: &BusRef) -> Result<(), EventBridgeError> {
    if exists(call, bus.name()) { Ok(()) } else { Err(EventBridgeError::NotFound(format!("Event bus {}", bus.name()))) }
}

fn rule<'a>(call: &'a Call<'_>, bus: &BusRef, name: &str) -> Result<&'a Rule, EventBridgeError> {
    let missing = || missing_rule(bus, name);
    call.services.buses.get(bus.name()).and_then(|bus| bus.rules.get(name)).ok_or_else(missing)
}

fn rule_mut<'a>(call: &'a mut Call<'_>, bus: &BusRef, name: &str) -> Result<&'a mut Rule, EventBridgeError> {
    let missing = || missing_rule(bus, name);
    call.services.buses.get_mut(bus.name()).and_then(|bus| bus.rules.get_mut(name)).ok_or_else(missing)
}

fn missing_rule(bus: &BusRef, name: &str) -> EventBridgeError {
    EventBridgeError::NotFound(format!("Rule {name} on event bus {}", bus.name()))
}

fn view(call: &Call<'_>, name: &str) -> BusView {
    let bus = call.services.buses.get(name);
    BusView {
        name: name.to_owned(),
        arn: bus_arn(name),
        description: bus.and_then(|bus| bus.description.clone()),
        creation_time: bus.and_then(|bus| bus.created).map(Millis::timestamp),
    }
}

fn rule_view(bus: &str, name: &str, definition: RuleDefinition) -> RuleView {
    RuleView { name: name.to_owned(), arn: rule_arn(bus, name), event_bus_name: bus.to_owned(), definition }
}
