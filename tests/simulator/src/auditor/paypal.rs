//! PayPal's API: of a payout that it is asked to pay one payment is made, of what was approved, and what becomes of the payout is what that
//! payment says.
//!
//! Whoever looks there does so some time between beginning and writing, so there can be several answers; what is written must be one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::model::Payout;
use super::quickbooks::number_of;
use super::rates::Ratio;
use super::settlement::written;
use super::stored::Items;
use super::{Auditor, Checked, Effect, Entry, Invariant, days, ensure, int, list, skew, text, time, violation};
use crate::remitted::Sent;
use crate::told::{Told, exponent};

/// So long PayPal is asked for the same payment once more.
const ASKED_FOR: i64 = 25;

/// Whether PayPal may be asked to pay it.
pub(super) fn may_ask_paypal(told: &Told, payout: &Payout) -> bool {
    let place = told.partners.iter().find(|told| told.id == payout.partner).map(|partner| partner.program);
    let asked = |place| told.remitted.may_be_asked(place, told.since.0);
    payout.method == "paypal" && payout.export.is_none() && place.is_some_and(asked)
}

impl Payout {
    /// Whether PayPal is the one to pay it, and not people.
    pub(super) fn is_remitted(&self) -> bool {
        self.method == "paypal" && self.at_rail
    }

    /// What is still to be sent of it, by any of the rates that may hold, as PayPal writes it.
    fn sends(&self) -> Vec<String> {
        let due = |rate: &Ratio| Ratio::from(self.amount()).times(*rate).round() - self.paid_before;
        self.rates.iter().map(|rate| written(due(rate), exponent(self.paid_in))).collect()
    }

    /// PayPal pays out in no such currency, or not into that wallet.
    pub(super) fn is_unpayable(&self) -> bool {
        let venmo = self.place.as_ref().is_some_and(|way| way.detail("wallet") == "VENMO");
        self.paid_in == "KWD" || (venmo && self.paid_in != "USD")
    }

    /// As PayPal is told whom to pay.
    fn recipient(&self) -> Option<(String, String, String)> {
        let way = self.place.as_ref()?;
        let named = [("EMAIL", "email"), ("PAYPAL_ID", "payerId"), ("PHONE", "phone"), ("USER_HANDLE", "venmoHandle")];
        let (kind, to) =
            named.map(|(kind, detail)| (kind, way.detail(detail))).into_iter().find(|(_, to)| !to.is_empty())?;
        let wallet = if way.detail("wallet") == "VENMO" { "VENMO" } else { "PAYPAL" };
        Some((kind.to_owned(), to.to_owned(), wallet.to_owned()))
    }
}

impl Auditor {
    pub(super) fn is_sent_by_paypal(&self, payout: &str) -> bool {
        self.payouts.get(payout).is_some_and(|payout| payout.method == "paypal")
    }

    /// PayPal has it.
    pub(super) fn accepted_there(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["submitting"])?);
        ensure!(payout.is_remitted(), Access, "{name}: is sent by {}, in {:?}", payout.method, payout.export);
        let batch = text(entry.value, "why");
        let mut seen = told.remitted.since(batch, told.since.0).peekable();
        let of = seen.peek().and_then(|sent| sent.of());
        let Some((_, attempt)) = of.filter(|(id, _)| *id == entry.stream) else {
            return violation(Invariant::OnePayment, format!("{name}: {batch} is no payment of it, but of {of:?}"));
        };
        // What somebody called failed is left where it is if it did not fail.
        let known = payout.batch.as_deref() == Some(batch);
        let left = known && attempt <= payout.attempts && seen.any(Sent::is_live);
        let fresh = attempt == payout.attempts + 1;
        ensure!(fresh || left, OnePayment, "{name}: {batch} is attempt {attempt}, after {}", payout.attempts);
        payout.batch = Some(batch.to_owned());
        payout.state = "submitted";
        Ok(Self::alone(entry, payout))
    }

    /// How a payout's payment may have been for whoever looked at it.
    fn looked_up(told: &Told, name: &str, payout: &Payout, says: impl Fn(&Sent) -> bool) -> Checked<Sent> {
        let batch = payout.batch.as_deref().unwrap_or_default();
        let mut seen = told.remitted.since(batch, told.since.0);
        if let Some(sent) = seen.find(|sent| says(sent)) {
            return Ok(sent.clone());
        }
        let seen: Vec<_> = told.remitted.since(batch, told.since.0).collect();
        violation(Invariant::OnePayment, format!("{name}: its payment {batch} was {seen:?}"))
    }

    /// The recipient has all of it.
    pub(super) fn arrived_there(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["submitted", "partially_paid"])?);
        let change = list(entry.value, "payouts").first().unwrap_or(&Value::Null);
        let paid = int(change, "paid");
        payout.narrow(paid, true);
        let reference = entry.value["why"].as_str();
        Self::looked_up(told, &name, &payout, |sent| sent.is_paid() && sent.transaction.as_deref() == reference)?;
        let due = payout.due();
        ensure!(paid == due && entry.what == "mark_paid", OnePayment, "{name}: {paid} of {due} is paid");
        payout.parts = vec![(paid, time(change, "paidAt").unwrap_or(entry.at))];
        payout.payments.clear();
        payout.paid = paid;
        payout.state = "paid";
        payout.settling = Some(0);
        self.follow(entry, payout)
    }

    /// PayPal refuses it, or could not send it.
    pub(super) fn not_sent(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let mut payout = self.payout(entry, &["submitting", "submitted", "partially_paid"])?;
        if payout.state == "submitting" {
            let refused = told.remitted.refused.iter().filter(|(tick, _)| *tick >= told.since.0);
            let refused = refused.clone().any(|(_, body)| body.contains(entry.stream));
            // What was asked for so long ago that PayPal may know it no more is not asked for again.
            let forgotten = payout.sent_at.is_some_and(|at| entry.at + skew() + skew() > at + days(ASKED_FOR));
            let why = text(entry.value, "why");
            let possible = payout.is_remitted() && (refused || forgotten || payout.is_unpayable());
            ensure!(possible, OnePayment, "{name}: nothing speaks against it, and it is said that {why}");
        } else {
            Self::looked_up(told, &name, &payout, Sent::has_failed)?;
        }
        payout.state = "failed";
        Ok(Self::alone(entry, payout))
    }

    /// The money was sent, and is back.
    pub(super) fn back_there(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, payout) = (entry.name(), self.payout(entry, &["submitted", "partially_paid", "paid"])?);
        Self::looked_up(told, &name, &payout, Sent::came_back)?;
        self.comes_back(entry, payout)
    }

    // --- Payments -------------------------------------------------------------------------------------------------

    /// What PayPal has is what was approved, once.
    pub fn payments(&self, told: &Told) -> Checked {
        let mut live: BTreeMap<&str, &str> = BTreeMap::new();
        for (batch, sent) in told.remitted.now() {
            let name = format!("payment {batch}, {}", sent.name);
            let known = sent.of().and_then(|(of, attempt)| Some((self.payouts.get_key_value(of)?, attempt)));
            let Some(((of, payout), attempt)) = known else {
                return violation(Invariant::OnePayment, format!("{name}: is no payout's: {sent:?}"));
            };
            let begun = !matches!(payout.state, "drafting" | "pending" | "approved" | "cancelled");
            ensure!(begun, OnePayment, "{name}: was made, and {of} is {}", payout.state);
            ensure!(
                payout.is_remitted(),
                OnePayment,
                "{name}: {of} is paid by {} in {:?}",
                payout.method,
                payout.export
            );
            ensure!((1..=payout.attempts + 1).contains(&attempt), OnePayment, "{name}: after {}", payout.attempts);
            if attempt == payout.attempts + 1 {
                let expected = payout.sends();
                let same = expected.contains(&sent.value) && sent.currency == payout.paid_in;
                ensure!(same, OnePayment, "{name}: is to be {expected:?} {}, is {sent:?}", payout.paid_in);
            }
            let to = payout.recipient();
            ensure!(
                to.as_ref() == Some(&sent.recipient),
                OnePayment,
                "{name}: {of} goes to {to:?}, not {:?}",
                sent.recipient
            );
            if sent.is_live() {
                let other = live.insert(of, batch);
                ensure!(other.is_none(), OnePayment, "{name}: {of} is paid by {other:?}, too");
            }
        }
        Ok(())
    }

    /// At the end, when PayPal has told everything: every payout is as its payment is, or somebody was told that it is not.
    pub(super) fn as_remitted(&self, told: &Told, now: Timestamp, items: &Items) -> Checked {
        let payments: BTreeMap<&String, &Sent> = told.remitted.now().collect();
        for (id, payout) in self.payouts.iter().filter(|(_, payout)| payout.method == "paypal") {
            if payout.state == "approved" && may_ask_paypal(told, payout) {
                let stays = self.must_wait(told, now, id, payout);
                ensure!(stays, Converges, "{id}: is approved, and PayPal was not asked");
            }
            let Some(sent) = payout.batch.as_ref().and_then(|batch| payments.get(batch)) else { continue };
            let open = matches!(payout.state, "submitted" | "partially_paid");
            let fits = if sent.is_paid() {
                let contradicted = || {
                    items.iter().any(|((_, sk), filed)| {
                        sk == "EXC"
                            && filed["code"] == "payout_contradicted"
                            && text(filed, "detail").contains(&number_of(id))
                    })
                };
                !open && (payout.state == "paid" || contradicted())
            } else if sent.has_failed() {
                !open
            } else if sent.came_back() {
                !open && payout.state != "paid"
            } else {
                true
            };
            ensure!(fits, OnePayment, "{id}: is {}, and its payment is {sent:?}", payout.state);
        }
        Ok(())
    }
}
