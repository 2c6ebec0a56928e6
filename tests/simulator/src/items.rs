//! The table as the stream tells it: every item, as plain JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

#[derive(Debug, Default)]
pub struct Items(BTreeMap<(String, String), Value>);

impl Items {
    pub fn change(&mut self, key: (String, String), item: Option<Value>) {
        match item {
            Some(item) => drop(self.0.insert(key, item)),
            None => drop(self.0.remove(&key)),
        }
    }

    pub const fn all(&self) -> &BTreeMap<(String, String), Value> {
        &self.0
    }

    fn with<'a>(&'a self, pk: &'a str, sk: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |(key, _)| key.0.starts_with(pk) && key.1.starts_with(sk)).map(|(_, item)| item)
    }

    /// Ids and states of all lines.
    pub fn lines(&self) -> Vec<&Value> {
        self.with("LIN#", "").collect()
    }

    pub fn payouts(&self) -> Vec<&Value> {
        self.with("PAR#", "PAY#").collect()
    }
}

/// An item without the database's type marks.
pub fn plain(image: &Value) -> Value {
    let members = image.as_object().into_iter().flatten();
    Value::Object(members.map(|(name, value)| (name.clone(), member(value))).collect())
}

fn member(value: &Value) -> Value {
    let Some((kind, value)) = value.as_object().and_then(|typed| typed.iter().next()) else { return Value::Null };
    match (kind.as_str(), value) {
        ("N", Value::String(number)) => number.parse::<Number>().map_or(Value::Null, Value::Number),
        ("M", Value::Object(members)) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), member(value))).collect::<Map<_, _>>())
        }
        ("L", Value::Array(list)) => list.iter().map(member).collect(),
        ("NULL", _) => Value::Null,
        (_, value) => value.clone(),
    }
}
