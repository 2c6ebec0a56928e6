//! What was seen at PayPal. Whatever PayPal has is the truth about its payments.

use std::collections::BTreeMap;

/// Everything that is known of payments there, by PayPal's own ids of their batches.
#[derive(Debug, Clone, Default)]
pub struct Remitted {
    /// How each was: from which tick on, oldest first.
    seen: BTreeMap<String, Vec<(usize, Sent)>>,
    /// Programs, by their place, that have a connection: from which tick on it was switched on or off.
    pub switched: BTreeMap<usize, Vec<(usize, bool)>>,
    /// What was refused for no reason that can be seen in it: at which tick, and what was asked.
    pub refused: Vec<(usize, String)>,
}

/// A payment at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The sender's own.
    pub name: String,
    /// How whom is named, and into which wallet.
    pub recipient: (String, String, String),
    /// As it was written.
    pub value: String,
    pub currency: String,
    /// Like `SUCCESS`.
    pub status: String,
    pub transaction: Option<String>,
}

impl Sent {
    /// The payout that its name stands for, and which attempt at it.
    pub fn of(&self) -> Option<(&str, u32)> {
        let (payout, attempt) = self.name.rsplit_once('-')?;
        Some((payout, attempt.parse().ok()?))
    }

    /// Money moved, or may yet.
    pub fn is_live(&self) -> bool {
        self.is_paid() || self.is_under_way()
    }

    pub fn is_paid(&self) -> bool {
        self.status == "SUCCESS"
    }

    pub fn is_under_way(&self) -> bool {
        matches!(self.status.as_str(), "PENDING" | "UNCLAIMED" | "ONHOLD")
    }

    /// No money ever moved.
    pub fn has_failed(&self) -> bool {
        matches!(self.status.as_str(), "FAILED" | "BLOCKED" | "DENIED" | "CANCELED")
    }

    /// It moved, and is back.
    pub fn came_back(&self) -> bool {
        matches!(self.status.as_str(), "RETURNED" | "REFUNDED" | "REVERSED")
    }
}

impl Remitted {
    /// Notes how a payment is, from this tick on; whether it was otherwise before.
    pub fn note(&mut self, batch: &str, tick: usize, sent: Sent) -> bool {
        let seen = self.seen.entry(batch.to_owned()).or_default();
        let changed = seen.last().is_none_or(|(_, last)| *last != sent);
        if changed {
            seen.push((tick, sent));
        }
        changed
    }

    /// How a payment may have been for whoever began at a tick.
    pub fn since(&self, batch: &str, tick: usize) -> impl Iterator<Item = &Sent> {
        let seen = self.seen.get(batch).map(Vec::as_slice).unwrap_or_default();
        let from = seen.partition_point(|(at, _)| *at < tick).saturating_sub(1);
        seen[from..].iter().map(|(_, sent)| sent)
    }

    /// Whether PayPal may be asked about a program's payouts by whoever began at a tick.
    pub fn may_be_asked(&self, program: usize, tick: usize) -> bool {
        let switched = self.switched.get(&program).map(Vec::as_slice).unwrap_or_default();
        let from = switched.partition_point(|(at, _)| *at <= tick).saturating_sub(1);
        switched[from.min(switched.len())..].iter().any(|(_, on)| *on)
    }

    /// How all payments are now, by their batches.
    pub fn now(&self) -> impl Iterator<Item = (&String, &Sent)> {
        self.seen.iter().filter_map(|(batch, seen)| Some((batch, &seen.last()?.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_began_may_have_seen_what_was_then_and_all_since() {
        let mut remitted = Remitted::default();
        let sent = |status: &str| Sent {
            name: "pay_1-2".to_owned(),
            recipient: (String::new(), String::new(), String::new()),
            value: "1.00".to_owned(),
            currency: "USD".to_owned(),
            status: status.to_owned(),
            transaction: None,
        };
        assert_eq!(sent("PENDING").of(), Some(("pay_1", 2)));
        for (tick, status) in [(1, "PENDING"), (4, "UNCLAIMED"), (6, "RETURNED")] {
            assert!(remitted.note("B", tick, sent(status)));
        }
        assert!(!remitted.note("B", 7, sent("RETURNED")));
        let since = |tick| remitted.since("B", tick).map(|sent| sent.status.as_str()).collect::<Vec<_>>();
        assert_eq!(since(0), ["PENDING", "UNCLAIMED", "RETURNED"]);
        assert_eq!(since(5), ["UNCLAIMED", "RETURNED"]);
        assert_eq!(since(9), ["RETURNED"]);
        remitted.switched.insert(0, vec![(0, true), (5, false)]);
        assert_eq!([4, 5, 6].map(|tick| remitted.may_be_asked(0, tick)), [true, false, false]);
        assert!(!remitted.may_be_asked(1, 0));
    }
}
