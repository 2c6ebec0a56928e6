//! How partners are paid, as people say it: ways, of which one is preferred, and since when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

/// One way to pay a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// `manual`, `bank`, ...
    pub kind: &'static str,
    pub details: BTreeMap<String, String>,
    pub preferred: bool,
    /// By whom and when its details were changed; the first that a partner ever gave are no change.
    pub changed: Option<(String, Timestamp)>,
}

/// All ways to pay a partner, from some tick on.
#[derive(Debug, Clone)]
pub struct Ways {
    pub since: usize,
    pub all: Vec<Way>,
}

pub const KINDS: [&str; 5] = ["manual", "bank", "wise", "paypal", "quickbooks"];

impl Way {
    pub fn new(kind: &'static str, details: &[(&str, String)]) -> Self {
        let details = details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { kind, details, preferred: false, changed: None }
    }

    /// As it is put to the API.
    pub fn body(&self) -> Value {
        json!({"kind": self.kind, "details": self.details, "preferred": self.preferred})
    }

    /// As it is stored; nothing where it is of a kind that no world knows.
    fn stored(way: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = way["details"].as_object().into_iter().flatten();
        let changed = &way["changed"];
        Some(Self {
            kind: KINDS.into_iter().find(|kind| way["kind"] == *kind)?,
            details: details.map(|(name, value)| (name.clone(), text(value))).collect(),
            preferred: way["preferred"] == true,
            changed: text(&changed["at"]).parse().ok().map(|at| (text(&changed["by"]), at)),
        })
    }

    /// To the same destination.
    pub fn leads_where(&self, other: &Self) -> bool {
        (self.kind, &self.details) == (other.kind, &other.details)
    }

    pub fn detail(&self, name: &str) -> &str {
        self.details.get(name).map_or("", String::as_str)
    }
}

/// The ways to pay a partner as they are stored.
pub fn stored(partner: &Value) -> Vec<Way> {
    partner["payoutMethods"].as_array().into_iter().flatten().filter_map(Way::stored).collect()
}

impl Ways {
    pub fn preferred(&self) -> Option<&Way> {
        self.all.iter().find(|way| way.preferred).or(self.all.first())
    }

    pub fn of(&self, kind: &str) -> Option<&Way> {
        self.all.iter().find(|way| way.kind == kind)
    }

    /// What becomes of them where somebody gives others; `change` marks what they changed.
    pub fn given(&self, first: bool, all: &[Way], change: &(String, Timestamp)) -> Vec<Way> {
        let marked = |way: &Way| {
            let kept = self.of(way.kind).filter(|known| known.leads_where(way));
            let changed = match kept {
                Some(kept) => kept.changed.clone(),
                None => Some(change.clone()).filter(|_| !first),
            };
            Way { changed, ..way.clone() }
        };
        all.iter().map(marked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_anew_is_changed_unless_it_is_the_first_or_the_same() {
        let change = ("ann".to_owned(), Timestamp::UNIX_EPOCH);
        let paypal = |to: &str| Way::new("paypal", &[("email", to.to_owned())]);
        let changed = |ways: &Ways, first: bool, given: &[Way]| {
            ways.given(first, given, &change).iter().map(|way| way.changed.is_some()).collect::<Vec<_>>()
        };
        let none = Ways { since: 0, all: vec![] };
        assert_eq!(changed(&none, true, &[paypal("a@x.example")]), [false]);
        assert_eq!(changed(&none, false, &[paypal("a@x.example")]), [true]);
        let one = Ways { since: 0, all: vec![paypal("a@x.example")] };
        assert_eq!(changed(&one, false, &[paypal("a@x.example"), Way::new("manual", &[])]), [false, true]);
        assert_eq!(changed(&one, false, &[paypal("b@x.example")]), [true]);
    }

    #[test]
    fn a_way_is_read_as_it_is_put() {
        let way = Way { preferred: true, ..Way::new("wise", &[("name", "Ann".to_owned())]) };
        assert_eq!(stored(&json!({"payoutMethods": [way.body(), {"kind": "barter"}]})), [way]);
    }
}
