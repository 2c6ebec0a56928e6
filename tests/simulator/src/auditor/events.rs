//! Sales and refunds: what an accepted event must have done.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::model::{Conversion, Line, Payout, State};
use super::{
    Auditor, Checked, Effect, Entry, Invariant, days, ensure, int, leave_for, list, rates, skew, text, time, violation,
};
use crate::told::{Item, Named, Partner, Refund, Reward, Sale, Told};

/// How far ahead of a function's clock a source's may be, in seconds.
const AHEAD_SECONDS: i64 = 300;

impl Auditor {
    pub(super) fn event(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, event) = (entry.name(), &entry.value["event"]);
        let is_sale = event["type"] == "sale";
        let (id, order) = (text(event, "id"), text(event, if is_sale { "id" } else { "conversion" }));
        let place = (entry.by.to_owned(), order.to_owned());
        let stream = self.orders.entry(place).or_insert_with(|| entry.stream.to_owned());
        ensure!(stream == entry.stream, OneEffect, "{name}: order {order} of {} has stream {stream} already", entry.by);
        let conversion = self.conversions.entry(entry.stream.to_owned()).or_insert_with(|| Conversion {
            source: entry.by.to_owned(),
            order: order.to_owned(),
            sale: None,
            partner: None,
            refunds: Vec::new(),
            lines: Vec::new(),
        });
        let (of, theirs) = ((entry.by, order), (conversion.source.as_str(), conversion.order.as_str()));
        ensure!(of == theirs, OneEffect, "{name}: is about {of:?}, in the stream of {theirs:?}");
        let occurred_at = time(event, "occurredAt")?;
        let ahead = occurred_at > entry.at + SignedDuration::from_secs(AHEAD_SECONDS);
        ensure!(!ahead, ExactCents, "{name}: the event lies in the future, at {occurred_at}");
        let received_at = time(entry.value, "receivedAt")?;
        ensure!(received_at <= entry.now + skew(), History, "{name}: was received in the future, at {received_at}");

        if is_sale {
            ensure!(conversion.sale.is_none(), OneEffect, "{name}: order {order} has its sale already");
            ensure!(entry.what == "accrue", OneState, "{name}: holds a sale");
            let sale = told_sale(told, entry, order, occurred_at)?.clone();
            let refunds = conversion.refunds.clone();
            let effect = self.accrue(told, entry, &sale, &refunds, received_at)?;
            if let Some(conversion) = self.conversions.get_mut(entry.stream) {
                conversion.partner = attributed(told, &sale).map(|partner| partner.id.clone());
                conversion.sale = Some(sale);
            }
            return Ok(effect);
        }
        let (claim, stream) = ((entry.by.to_owned(), id.to_owned()), entry.stream.to_owned());
        if let Some(first) = self.refunds.insert(claim, stream) {
            ensure!(first != entry.stream, OneEffect, "{name}: refund {id} was applied before");
            return violation(Invariant::SameContent, format!("{name}: refund {id} was for {first} before"));
        }
        conversion.refunds.push(told_refund(told, entry, order, id, occurred_at)?);
        let what = if conversion.sale.is_some() { "refund" } else { "await_sale" };
        ensure!(entry.what == what, OneState, "{name}: must be {what}");
        let (sale, refunds) = (conversion.sale.clone(), conversion.refunds.clone());
        let mut effect = Effect::default();
        if let Some(sale) = sale {
            let ids = &self.conversions[entry.stream].lines;
            let mut lines = ids.iter().map(|id| (Some(id.clone()), self.lines[id].clone())).collect();
            let changed = self.reverse(entry, &sale, &refunds, &mut lines)?;
            let lines = lines.into_iter().enumerate().filter(|(n, _)| changed.contains(n));
            effect.lines = lines.map(|(_, line)| line).collect();
        }
        Ok(self.retally(entry, effect))
    }

    fn accrue(
        &self,
        told: &Told,
        entry: &Entry,
        sale: &Sale,
        refunds: &[Refund],
        received_at: Timestamp,
    ) -> Checked<Effect> {
        let name = entry.name();
        let unattributed = entry.value["note"] == "unattributed";
        let Some(partner) = attributed(told, sale) else {
            ensure!(unattributed, ExactCents, "{name}: names no partner, {:?}", sale.named);
            return Ok(Effect::default());
        };
        ensure!(!unattributed, ExactCents, "{name}: is of {}, by {:?}", partner.id, sale.named);
        let program = &told.programs[sale.program];
        let Some(set) = rates::in_force(&program.rule_sets, sale.occurred_at) else {
            return violation(Invariant::ExactCents, format!("{name}: no rules were in force at {}", sale.occurred_at));
        };
        let mut lines = Vec::new();
        for rated in rates::rate(sale, &set.rules, partner, |rule| self.tally(&partner.id, rule)) {
            let hold = rated.rule.hold_days.unwrap_or(program.hold_days);
            for (n, (amount, slice_days)) in rates::slices(rated.earned, rated.rule).into_iter().enumerate() {
                let due_at = (sale.occurred_at + days(hold.max(slice_days).into())).max(received_at);
                let reviewed = program.approves_automatically;
                let line = Line {
                    partner: partner.id.clone(),
                    conversion: entry.stream.to_owned(),
                    rule: rated.rule.key.clone(),
                    rule_set: set.version,
                    tiered: matches!(rated.rule.reward, Reward::TieredByCount(_)),
                    items: rated.items.clone(),
                    slice: Some(n + 1),
                    amount,
                    taken: 0,
                    recorded: 0,
                    state: State::at_gates(reviewed, due_at, entry.at),
                    reviewed,
                    payout: None,
                    hands: BTreeSet::new(),
                    occurred_at: sale.occurred_at,
                    due_at,
                    payable_since: entry.now,
                    version: 0,
                    entry: String::new(),
                };
                lines.push((None, line));
            }
        }
        if !refunds.is_empty() {
            // Refunds that came first apply before anything is written.
            self.reverse(entry, sale, refunds, &mut lines)?;
        }
        Ok(Effect { lines, ..Effect::default() })
    }

    /// Silent in the rules: only conversions that were rated by tiers count for them.
    pub(super) fn tally(&self, partner: &str, rule: &str) -> usize {
        let counting = self.lines.values().filter(|line| line.counts() && line.partner == partner && line.rule == rule);
        counting.map(|line| &line.conversion).collect::<BTreeSet<_>>().len()
    }

    /// The cumulative target of every earning: what is missing comes off its newest slice first, and in the end as a clawback,
    /// which is added to the lines. Tells which of them changed.
    fn reverse(
        &self,
        entry: &Entry,
        sale: &Sale,
        refunds: &[Refund],
        lines: &mut Vec<(Option<String>, Line)>,
    ) -> Checked<BTreeSet<usize>> {
        let (mut changed, written) = (BTreeSet::new(), entry.line_ids());
        let rules: BTreeSet<_> = lines.iter().map(|(_, line)| line.rule.clone()).collect();
        for rule in rules {
            let of_rule: Vec<_> = (0..lines.len()).filter(|n| lines[*n].1.rule == rule).collect();
            let mut slices: Vec<_> = of_rule.iter().copied().filter(|n| lines[*n].1.slice.is_some()).collect();
            slices.sort_by_key(|n| std::cmp::Reverse(lines[*n].1.slice));
            let Some(newest) = slices.first().map(|n| lines[*n].1.clone()) else { continue };
            let (part, whole) = rates::refunded(sale, refunds, &newest.items);
            let earned: i128 = slices.iter().map(|n| lines[*n].1.amount).sum();
            let mut left =
                rates::round(earned * part, whole) - of_rule.iter().map(|n| lines[*n].1.reversed()).sum::<i128>();
            for n in slices {
                let (id, line) = &mut lines[n];
                let step = left.min(line.net() - line.recorded).max(0);
                let zero = line.amount == 0 && part == whole;
                let payout = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout));
                let late = match line.state {
                    State::Paid | State::Reversed => true,
                    State::InPayout => !payout.is_some_and(Payout::is_open),
                    // There is nothing to record, so whether that is written does not matter.
                    State::Rejected if zero => !id.as_deref().is_some_and(|id| written.contains(&id)),
                    _ => false,
                };
                if step == 0 && !zero {
                    continue;
                }
                // Silent in the rules: what a cancelled payout has yet to free is freed first.
                let freeing = line.state == State::InPayout && payout.is_some_and(|payout| payout.state == "cancelled");
                ensure!(!freeing, OneState, "{}: {id:?} was to be freed before", entry.name());
                if late {
                    continue;
                }
                left -= step;
                changed.insert(n);
                if line.state == State::Rejected {
                    line.recorded += step;
                    continue;
                }
                line.taken += step;
                if line.net() == 0 {
                    leave_for(line, State::Reversed);
                }
            }
            if left > 0 {
                changed.insert(lines.len());
                lines.push((None, clawback(&newest, left, entry)));
            }
        }
        Ok(changed)
    }
}

fn clawback(of: &Line, amount: i128, entry: &Entry) -> Line {
    Line {
        slice: None,
        amount: -amount,
        taken: 0,
        recorded: 0,
        state: State::Payable,
        reviewed: true,
        payout: None,
        hands: BTreeSet::new(),
        occurred_at: entry.at,
        due_at: entry.at,
        version: 0,
        entry: String::new(),
        ..of.clone()
    }
}

/// Case does not matter in codes.
fn is_code(code: &str, partner: &Partner) -> bool {
    code.trim().eq_ignore_ascii_case(&partner.code)
}

fn attributed<'a>(told: &'a Told, sale: &Sale) -> Option<&'a Partner> {
    let mut partners = told.partners.iter().filter(|partner| partner.program == sale.program);
    match &sale.named {
        Named::Id(id) => partners.find(|partner| partner.id == *id),
        Named::Code(code) | Named::Coupon(code) => partners.find(|partner| is_code(code, partner)),
        Named::Nobody => None,
    }
}

fn same_items(event: &Value, items: &[Item]) -> bool {
    let found = list(event, "items");
    let same = |(found, item): (&Value, &Item)| {
        let quantity = text(found, "quantity").parse::<i64>().ok();
        text(found, "product") == item.product
            && quantity == Some(item.quantity)
            && int(found, "amount") == i128::from(item.amount)
    };
    found.len() == items.len() && found.iter().zip(items).all(same)
}

/// The telling that an accepted sale is, content and all.
fn told_sale<'a>(told: &'a Told, entry: &Entry, order: &str, occurred_at: Timestamp) -> Checked<&'a Sale> {
    let event = &entry.value["event"];
    let names = |sale: &Sale| {
        let named = |by: &str| event["partner"][by].as_str();
        let coupons = || list(event, "coupons").iter().filter_map(Value::as_str);
        match &sale.named {
            Named::Id(id) => named("id") == Some(id),
            Named::Code(code) => named("code").is_some_and(|named| named.eq_ignore_ascii_case(code)),
            Named::Coupon(code) => coupons().any(|coupon| coupon.eq_ignore_ascii_case(code)),
            Named::Nobody => true,
        }
    };
    let amounts = |sale: &Sale| [sale.total, sale.tax, sale.shipping, sale.discount].map(i128::from);
    let found = ["total", "tax", "shipping", "discount"].map(|field| int(event, field));
    let of_order = |sale: &&Sale| sale.source == entry.by && sale.order == order;
    let mut tellings = told.sales.iter().filter(of_order);
    ensure!(tellings.clone().next().is_some(), OneEffect, "{}: nobody told of {order}", entry.name());
    let same = |sale: &&Sale| {
        let items = amounts(sale) == found && same_items(event, &sale.items);
        items && names(sale) && sale.occurred_at == occurred_at
    };
    match tellings.find(same) {
        Some(sale) => Ok(sale),
        None => violation(Invariant::SameContent, format!("{}: nobody told it so: {event}", entry.name())),
    }
}

fn told_refund(told: &Told, entry: &Entry, order: &str, id: &str, occurred_at: Timestamp) -> Checked<Refund> {
    let event = &entry.value["event"];
    let of_id = |refund: &&Refund| refund.source == entry.by && refund.id == id && refund.order == order;
    let mut tellings = told.refunds.iter().filter(of_id);
    ensure!(tellings.clone().next().is_some(), OneEffect, "{}: nobody told of {id} of {order}", entry.name());
    let same = |refund: &&Refund| {
        int(event, "total") == i128::from(refund.total)
            && event["tax"].as_i64() == refund.tax
            && event["shipping"].as_i64() == refund.shipping
            && same_items(event, refund.items.as_deref().unwrap_or_default())
            && refund.occurred_at == occurred_at
    };
    match tellings.find(same) {
        // Silent in the rules: a source that names no items may have none to name.
        Some(refund) => {
            Ok(Refund { items: refund.items.clone().filter(|_| event["items"].is_array()), ..refund.clone() })
        }
        None => violation(Invariant::SameContent, format!("{}: nobody told it so: {event}", entry.name())),
    }
}
