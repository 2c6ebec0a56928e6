//! Event patterns: exact values, `prefix`, `anything-but` and `exists`, nested as the event is.
//!
//! An operator that is not known here is refused, never ignored: a rule that matched too much would be worse.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A parsed pattern: every field has to match.
#[derive(Debug)]
pub(super) struct Pattern(BTreeMap<String, Field>);

#[derive(Debug)]
enum Field {
    Nested(Pattern),
    /// One of these has to match.
    Any(Vec<Matcher>),
}

#[derive(Debug)]
enum Matcher {
    Exact(Value),
    Prefix(String),
    AnythingBut(Vec<Value>),
    AnythingButPrefix(String),
    Exists(bool),
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) if fields.is_empty() => Err("it is empty".to_owned()),
            Ok(Value::Object(fields)) => Self::of(fields),
            Ok(_) => Err("it is not an object".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn of(fields: Map<String, Value>) -> Result<Self, String> {
        let field = |(name, value): (String, Value)| {
            let field = match value {
                _ if name.starts_with('$') => return Err(format!("{name} is not offered here")),
                Value::Object(nested) if nested.is_empty() => return Err(format!("{name} is empty")),
                Value::Object(nested) => Field::Nested(Self::of(nested)?),
                Value::Array(values) if values.is_empty() => return Err(format!("{name} is empty")),
                Value::Array(values) => Field::Any(values.into_iter().map(Matcher::parse).collect::<Result<_, _>>()?),
                _ => return Err(format!("{name} is neither an object nor an array")),
            };
            Ok((name, field))
        };
        fields.into_iter().map(field).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn matches(&self, event: &Value) -> bool {
        self.0.iter().all(|(name, field)| field.matches(event.get(name)))
    }
}

impl Field {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            // What is absent has no fields, which `exists: false` below it may ask for.
            Self::Nested(pattern) => match value {
                Some(Value::Array(elements)) => elements.iter().any(|element| pattern.matches(element)),
                other => pattern.matches(other.unwrap_or(&Value::Null)),
            },
            Self::Any(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

impl Matcher {
    fn parse(value: Value) -> Result<Self, String> {
        let operator = match value {
            Value::Object(operator) => operator,
            Value::Array(_) => return Err("an array holds an array".to_owned()),
            exact => return Ok(Self::Exact(exact)),
        };
        let mut entries = operator.into_iter();
        match (entries.next(), entries.next()) {
            (Some((name, operand)), None) => Self::operator(&name, operand),
            _ => Err("a matcher has one operator".to_owned()),
        }
    }

    fn operator(name: &str, operand: Value) -> Result<Self, String> {
        match (name, operand) {
            ("prefix", Value::String(prefix)) => Ok(Self::Prefix(prefix)),
            ("exists", Value::Bool(exists)) => Ok(Self::Exists(exists)),
            ("anything-but", Value::Array(values)) if values.iter().all(|v| v.is_string() || v.is_number()) => {
                Ok(Self::AnythingBut(values))
            }
            ("anything-but", value @ (Value::String(_) | Value::Number(_))) => Ok(Self::AnythingBut(vec![value])),
            ("anything-but", Value::Object(inner)) => match (inner.len(), inner.get("prefix")) {
                (1, Some(Value::String(prefix))) => Ok(Self::AnythingButPrefix(prefix.clone())),
                _ => Err("anything-but takes values or a prefix".to_owned()),
            },
            (name, _) => Err(format!("operator {name} is not offered here, or not with this operand")),
        }
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // Objects are no leaves, and only leaves exist for a pattern.
            (Self::Exists(wanted), value) => value.is_some_and(|value| !value.is_object()) == *wanted,
            (_, None) => false,
            (matcher, Some(Value::Array(elements))) => elements.iter().any(|element| matcher.matches_leaf(element)),
            (matcher, Some(leaf)) => matcher.matches_leaf(leaf),
        }
    }

    fn matches_leaf(&self, leaf: &Value) -> bool {
        match self {
            Self::Exact(exact) => same(exact, leaf),
            Self::Prefix(prefix) => leaf.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::AnythingBut(values) => !leaf.is_object() && !values.iter().any(|value| same(value, leaf)),
            Self::AnythingButPrefix(prefix) => leaf.as_str().is_some_and(|text| !text.starts_with(prefix)),
            Self::Exists(_) => false,
        }
    }
}

/// Equality, with numbers compared by value: `1` is `1.0`.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(pattern: &Value, event: &Value) -> bool {
        Pattern::parse(&pattern.to_string()).unwrap().matches(event)
    }

    #[test]
    fn patterns_match_as_documented() {
        let event = json!({
            "source": "payouts",
            "detail-type": "payout.approved",
            "detail": { "amount": 10, "currency": "EUR", "tags": ["a", "b"], "rail": null, "partner": { "id": "p1" } },
        });
        for (expected, pattern) in [
            (true, json!({ "source": ["other", "payouts"] })),
            (false, json!({ "source": ["other"] })),
            (true, json!({ "detail-type": [{ "prefix": "payout." }] })),
            (false, json!({ "detail-type": [{ "prefix": "line." }] })),
            (true, json!({ "detail": { "amount": [10.0] } })),
            (true, json!({ "detail": { "partner": { "id": ["p1"] } } })),
            (false, json!({ "detail": { "partner": { "id": ["p2"] } } })),
            (true, json!({ "detail": { "tags": ["b"] } })),
            (true, json!({ "detail": { "currency": [{ "anything-but": "USD" }] } })),
            (false, json!({ "detail": { "currency": [{ "anything-but": ["USD", "EUR"] }] } })),
            (false, json!({ "detail": { "absent": [{ "anything-but": "USD" }] } })),
            (true, json!({ "detail": { "currency": [{ "anything-but": { "prefix": "US" } }] } })),
            (true, json!({ "detail": { "absent": [{ "exists": false }] } })),
            (true, json!({ "nowhere": { "absent": [{ "exists": false }] } })),
            (true, json!({ "detail": { "rail": [{ "exists": true }] } })),
            (true, json!({ "detail": { "rail": [null] } })),
            (false, json!({ "detail": { "currency": [{ "exists": false }] } })),
            (false, json!({ "source": ["payouts"], "detail": { "amount": [11] } })),
        ] {
            assert_eq!(matches(&pattern, &event), expected, "{pattern}");
        }
    }

    #[test]
    fn unknown_operators_are_refused() {
        for pattern in [
            "{}",
            r#"{"source": "payouts"}"#,
            r#"{"source": []}"#,
            r#"{"source": [{"wildcard": "*"}]}"#,
            r#"{"$or": [{"source": ["a"]}]}"#,
            "not json",
        ] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
