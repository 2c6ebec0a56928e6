//! `EventBridge` requests and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::state::Call;
use crate::{ACCOUNT, REGION};

pub(super) const DEFAULT_BUS: &str = "default";

/// A bus by name or ARN; none is the default one.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct BusRef(String);

impl Default for BusRef {
    fn default() -> Self {
        Self(DEFAULT_BUS.to_owned())
    }
}

impl BusRef {
    pub(super) fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

pub(super) fn bus_arn(bus: &str) -> String {
    format!("arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{bus}")
}

pub(super) fn rule_arn(bus: &str, rule: &str) -> String {
    let path = if bus == DEFAULT_BUS { rule.to_owned() } else { format!("{bus}/{rule}") };
    format!("arn:aws:events:{REGION}:{ACCOUNT}:rule/{path}")
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateEventBus {
    pub name: String,
    pub description: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EventBusArn {
    pub event_bus_arn: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NamedBus {
    #[serde(default)]
    pub name: BusRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListEventBuses {
    #[serde(default)]
    pub name_prefix: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BusView {
    pub name: String,
    pub arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EventBuses {
    pub event_buses: Vec<BusView>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutRule {
    pub name: String,
    #[serde(default)]
    pub event_bus_name: BusRef,
    #[serde(flatten)]
    pub definition: RuleDefinition,
}

/// What a rule is, apart from its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RuleDefinition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event_pattern: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schedule_expression: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role_arn: Option<String>,
    #[serde(default)]
    pub(super) state: RuleState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum RuleState {
    #[default]
    Enabled,
    Disabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RuleArn {
    pub rule_arn: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NamedRule {
    pub name: String,
    #[serde(default)]
    pub event_bus_name: BusRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListRules {
    #[serde(default)]
    pub event_bus_name: BusRef,
    #[serde(default)]
    pub name_prefix: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RuleView {
    pub name: String,
    pub arn: String,
    pub event_bus_name: String,
    #[serde(flatten)]
    pub definition: RuleDefinition,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Rules {
    pub rules: Vec<RuleView>,
}

/// Where a rule sends events. What is not used here is kept and shown again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Target {
    pub(super) id: String,
    pub(super) arn: String,
    /// Constant text to send in place of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<String>,
    /// The part of the event to send, such as `$.detail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) input_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dead_letter_config: Option<DeadLetterConfig>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeadLetterConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutTargets {
    pub rule: String,
    #[serde(default)]
    pub event_bus_name: BusRef,
    pub targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RemoveTargets {
    pub rule: String,
    #[serde(default)]
    pub event_bus_name: BusRef,
    pub ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListTargets {
    pub rule: String,
    #[serde(default)]
    pub event_bus_name: BusRef,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Targets {
    pub targets: Vec<Target>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TargetResults {
    pub failed_entry_count: usize,
    pub failed_entries: Vec<TargetFailure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TargetFailure {
    pub target_id: String,
    pub error_code: &'static str,
    pub error_message: &'static str,
}

impl TargetResults {
    pub(super) fn new(failed_entries: Vec<TargetFailure>) -> Self {
        Self { failed_entry_count: failed_entries.len(), failed_entries }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutEvents {
    pub entries: Vec<PutEventsEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutEventsEntry {
    pub source: Option<String>,
    pub detail_type: Option<String>,
    pub detail: Option<String>,
    #[serde(default)]
    pub event_bus_name: BusRef,
    pub time: Option<f64>,
    #[serde(default)]
    pub resources: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutEventsResult {
    pub failed_entry_count: usize,
    pub entries: Vec<EntryResult>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum EntryResult {
    #[serde(rename_all = "PascalCase")]
    Accepted { event_id: String },
    #[serde(rename_all = "PascalCase")]
    Failed { error_code: &'static str, error_message: String },
}

/// The bus a request names, which for the default one need not have been created.
pub(super) fn exists(call: &Call<'_>, bus: &str) -> bool {
    bus == DEFAULT_BUS || call.services.buses.contains_key(bus)
}

pub(super) type ById = BTreeMap<String, Target>;
