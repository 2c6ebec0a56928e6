//! Events: what an accepted sale, refund, edit or withdrawal must have done.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::accrual::{Occasion, exchanged};
use super::model::{Attributed, Conversion, Customer};
use super::{Auditor, Checked, Effect, Entry, Invariant, days, ensure, int, list, skew, text, time, violation};
use crate::told::{Edit, Item, Named, Program, Refund, Sale, Told, Withdrawal};

/// How long one function may take, and clocks differ.
const MOMENT: SignedDuration = SignedDuration::from_mins(5);
/// How far ahead of a function's clock a source's may be, in seconds.
const AHEAD_SECONDS: i64 = 300;

impl Auditor {
    pub(super) fn event(&mut self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, event) = (entry.name(), &entry.value["event"]);
        let kind = text(event, "type");
        let is_sale = !matches!(kind, "refund" | "edit" | "withdrawal");
        let (id, order) = (text(event, "id"), text(event, if is_sale { "id" } else { "conversion" }));
        let place = (entry.by.to_owned(), order.to_owned());
        let stream = self.orders.entry(place).or_insert_with(|| entry.stream.to_owned());
        ensure!(stream == entry.stream, OneEffect, "{name}: order {order} of {} has stream {stream} already", entry.by);
        let received_at = time(entry.value, "receivedAt")?;
        let mut conversion = self
            .conversions
            .get(entry.stream)
            .cloned()
            .unwrap_or_else(|| Conversion::new(entry.by, order, received_at));
        let (of, theirs) = ((entry.by, order), (conversion.source.as_str(), conversion.order.as_str()));
        ensure!(of == theirs, OneEffect, "{name}: is about {of:?}, in the stream of {theirs:?}");
        let occurred_at = time(event, "occurredAt")?;
        let ahead = occurred_at > entry.at + SignedDuration::from_secs(AHEAD_SECONDS);
        ensure!(!ahead, ExactCents, "{name}: the event lies in the future, at {occurred_at}");
        ensure!(received_at <= entry.now + skew(), History, "{name}: was received in the future, at {received_at}");
        let parts = conversion.order().map_or(0, |order| order.parts.len());
        if is_sale {
            ensure!(conversion.sale.is_none(), OneEffect, "{name}: order {order} has its sale already");
            ensure!(entry.what == "accrue", OneState, "{name}: holds a sale");
            let sale = told_sale(told, entry, order, occurred_at)?.clone();
            conversion.program.clone_from(&told.programs[sale.program].id);
            conversion.sale = Some(sale);
            conversion.sold = told.tick;
            conversion.received_at = received_at;
            return self.accrue(told, entry, conversion);
        }
        let claim = (entry.by.to_owned(), kind.to_owned(), id.to_owned());
        if let Some(first) = self.claims.insert(claim, entry.stream.to_owned()) {
            ensure!(first != entry.stream, OneEffect, "{name}: {kind} {id} was applied before");
            return violation(Invariant::SameContent, format!("{name}: {kind} {id} was for {first} before"));
        }
        let measured = conversion.sale.as_ref().is_none_or(|sale| {
            let currency = event["currency"].as_str();
            currency.is_none_or(|currency| currency == sale.currency)
        });
        ensure!(measured, ExactCents, "{name}: is in another currency than its sale");
        let applied = match kind {
            "refund" => {
                conversion.refunds.push(told_refund(told, entry, order, id, occurred_at)?);
                "refund"
            }
            "edit" => {
                conversion.edits.push(told_edit(told, entry, order, id, occurred_at)?.clone());
                "edit"
            }
            _ => {
                let withdrawal = told_withdrawal(told, entry, order, id, occurred_at)?;
                conversion.withdrawn.insert(withdrawal.refund.clone());
                "withdraw"
            }
        };
        if let Some(before) = self.conversions.get(entry.stream).cloned() {
            self.notes_return(&before, &conversion);
        }
        let what = if conversion.sale.is_some() { applied } else { "await_sale" };
        ensure!(entry.what == what, OneState, "{name}: must be {what}");
        let mut work = self.work(entry.stream, conversion);
        if let Some(program) = program_of(told, &work.conversion) {
            let after = work.conversion.order().map_or(0, |order| order.parts.len());
            for part in parts..after {
                let attribution = work.conversion.attribution;
                let occasion = Occasion { program, part, attribution, occurred_at, received_at, hand: None };
                self.earn(told, entry, &mut work, &occasion)?;
            }
            self.reverse(entry, &mut work)?;
            self.true_up(entry, program, &[], &mut work);
        }
        self.conversions.insert(entry.stream.to_owned(), work.conversion.clone());
        Ok(self.retally(entry, Effect { lines: work.into_changed(), ..Effect::default() }))
    }

    fn accrue(&mut self, told: &Told, entry: &Entry, mut conversion: Conversion) -> Checked<Effect> {
        let name = entry.name();
        let Some((sale, program)) = conversion.sale.clone().zip(program_of(told, &conversion)) else {
            return violation(Invariant::OneEffect, format!("{name}: is of no program"));
        };
        let exchange = exchanged(told, entry, program, &sale)?;
        conversion.credits = self.attribute(told, &sale);
        conversion.channels = self.channels(told, &sale);
        let own = |(id, _): &(String, i128)| told.partners.iter().find(|partner| partner.id == *id);
        let owns =
            |id: &(String, i128)| own(id).is_some_and(|own| Some(&own.email_hash) == sale.customer.email_hash.as_ref());
        ensure!(!conversion.credits.iter().any(owns), ExactCents, "{name}: whoever earns of it is the customer");
        let was_suspended = |id: &(String, i128)| own(id).is_some_and(|own| own.was_suspended(sale.occurred_at));
        let earns = conversion.credits.iter().any(was_suspended);
        ensure!(!earns, ExactCents, "{name}: whoever earns of it was suspended at {}", sale.occurred_at);
        let unattributed = entry.value["note"] == "unattributed";
        // Silent in the rules: only purchases wait for another purchase of the customer that is booked in the same moment.
        let just_known = |known: &Customer| known.learned.is_some_and(|at| entry.at.duration_since(at).abs() <= MOMENT);
        if unattributed && !is_purchase(&sale) && self.known(&sale).any(just_known) {
            conversion.credits = Self::default().attribute(told, &sale);
        }
        let nobody = conversion.credits.is_empty();
        ensure!(nobody == unattributed, ExactCents, "{name}: is of {:?}, by {sale:?}", conversion.credits);
        let known = || self.known(&sale);
        conversion.standing.returning = is_purchase(&sale) && known().any(|known| known.bought);
        conversion.standing.first_attributed = self.first_attributed(&sale, entry.stream);
        let alike = |(source, total, currency, at): &(String, i64, &str, Timestamp)| {
            let apart = sale.occurred_at.duration_since(*at).abs();
            let same = (*total, *currency) == (sale.total, sale.currency);
            *source != sale.source && same && apart <= days(1)
        };
        let duplicate = known().any(|known| known.sales.iter().any(alike));
        let unusual = self.unusual(program, &mut conversion, exchange);
        conversion.suspicious = duplicate || !unusual.is_empty();
        let objection = text(&entry.value["circumstances"], "objection");
        let says = |word: &str| objection.starts_with(word);
        let anomaly = |word: &&str| says(&format!("anomaly: {word}"));
        let is_why = if conversion.suspicious {
            duplicate && says("possible_duplicate") || unusual.iter().any(anomaly)
        } else {
            objection.is_empty()
        };
        ensure!(nobody || is_why, ExactCents, "{name}: {unusual:?} and {duplicate} is why, and said was {objection:?}");
        self.remember(&sale, entry, &conversion.credits);

        let mut work = self.work(entry.stream, conversion);
        let parts = work.conversion.order().map(|order| order.parts).unwrap_or_default();
        for (n, part) in parts.iter().enumerate().filter(|_| !nobody) {
            let of_part = |edit: &&Edit| Some(&edit.id) == part.edit.as_ref();
            let edit = work.conversion.edits.iter().find(of_part);
            let occasion = Occasion {
                program,
                part: n,
                attribution: 0,
                occurred_at: edit.map_or(sale.occurred_at, |edit| edit.occurred_at),
                received_at: work.conversion.received_at,
                hand: None,
            };
            self.earn(told, entry, &mut work, &occasion)?;
        }
        // Refunds that came first apply before anything is written.
        self.reverse(entry, &mut work)?;
        self.true_up(entry, program, &[], &mut work);
        self.conversions.insert(entry.stream.to_owned(), work.conversion.clone());
        Ok(Effect { lines: work.into_changed(), ..Effect::default() })
    }

    /// What is known of who bought, by id and by address.
    pub(super) fn known(&self, sale: &Sale) -> impl Iterator<Item = &Customer> {
        keys(sale).into_iter().filter_map(|key| self.customers.get(&key))
    }

    /// When the first of the customer's other sales that were somebody's happened. Silent in the rules: what is no purchase is rated as
    /// if nobody knew the customer.
    pub(super) fn first_attributed(&self, sale: &Sale, stream: &str) -> Option<Timestamp> {
        let known = self.known(sale).filter_map(|known| known.first_attributed.as_ref());
        known.filter(|first| is_purchase(sale) && first.stream != stream).map(|first| first.at).min()
    }

    /// Silent in the rules: only sales and renewals tell of a customer.
    fn remember(&mut self, sale: &Sale, entry: &Entry, credits: &[(String, i128)]) {
        for key in keys(sale) {
            let known = self.customers.entry(key).or_default();
            if !is_purchase(sale) {
                continue;
            }
            known.visitors.extend(sale.visitor.clone());
            known.bought = true;
            known.learned = Some(entry.at);
            known.sales.push((sale.source.clone(), sale.total, sale.currency, sale.occurred_at));
            // Silent in the rules: the latest ten are remembered.
            if known.sales.len() > 10 {
                known.sales.remove(0);
            }
        }
        self.remember_credits(sale, entry.stream, credits);
    }

    /// Silent in the rules: whom a person gives a customer's first sale to is whose customer it is from then on.
    pub(super) fn remember_credits(&mut self, sale: &Sale, stream: &str, credits: &[(String, i128)]) {
        if credits.is_empty() || !is_purchase(sale) {
            return;
        }
        for key in keys(sale) {
            let known = self.customers.entry(key).or_default();
            if known.first_attributed.as_ref().is_none_or(|first| first.stream == stream) {
                known.first_attributed =
                    Some(Attributed { stream: stream.to_owned(), at: sale.occurred_at, credits: credits.to_vec() });
            }
        }
    }
}

fn is_purchase(sale: &Sale) -> bool {
    matches!(sale.action, "sale" | "renewal")
}

fn keys(sale: &Sale) -> Vec<(usize, String)> {
    let customer = &sale.customer;
    customer.id.iter().chain(&customer.email_hash).map(|key| (sale.program, key.clone())).collect()
}

pub(super) fn program_of<'a>(told: &'a Told, conversion: &Conversion) -> Option<&'a Program> {
    told.programs.get(conversion.sale.as_ref()?.program)
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
        let by_coupon = |code: &String| coupons().any(|coupon| coupon.eq_ignore_ascii_case(code));
        let by_name = match &sale.named {
            Named::Id(id) => named("id") == Some(id),
            Named::Code(code) => named("code").is_some_and(|named| named.eq_ignore_ascii_case(code)),
            Named::Nobody => true,
        };
        by_name && sale.coupon.as_ref().is_none_or(by_coupon)
    };
    let amounts = |sale: &Sale| [sale.total, sale.tax, sale.shipping, sale.discount, sale.store_credit].map(i128::from);
    let found = ["total", "tax", "shipping", "discount", "storeCredit"].map(|field| int(event, field));
    let of_order = |sale: &&Sale| sale.source == entry.by && sale.order == order;
    let mut tellings = told.sales.iter().filter(of_order);
    ensure!(tellings.clone().next().is_some(), OneEffect, "{}: nobody told of {order}", entry.name());
    let same = |sale: &&Sale| {
        let items = amounts(sale) == found && same_items(event, &sale.items);
        items && names(sale) && sale.occurred_at == occurred_at && text(event, "currency") == sale.currency
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
            && text(event, "currency") == refund.currency
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

fn told_edit<'a>(told: &'a Told, entry: &Entry, order: &str, id: &str, occurred_at: Timestamp) -> Checked<&'a Edit> {
    let event = &entry.value["event"];
    let of_id = |edit: &&Edit| edit.source == entry.by && edit.id == id && edit.order == order;
    let mut tellings = told.edits.iter().filter(of_id);
    ensure!(tellings.clone().next().is_some(), OneEffect, "{}: nobody told of {id} of {order}", entry.name());
    let same = |edit: &&Edit| {
        let amounts = [edit.total, edit.tax, edit.shipping, edit.discount, edit.store_credit].map(i128::from);
        amounts == ["total", "tax", "shipping", "discount", "storeCredit"].map(|field| int(event, field))
            && text(event, "currency") == edit.currency
            && same_items(event, &edit.items)
            && edit.occurred_at == occurred_at
    };
    match tellings.find(same) {
        Some(edit) => Ok(edit),
        None => violation(Invariant::SameContent, format!("{}: nobody told it so: {event}", entry.name())),
    }
}

fn told_withdrawal<'a>(
    told: &'a Told,
    entry: &Entry,
    order: &str,
    id: &str,
    occurred_at: Timestamp,
) -> Checked<&'a Withdrawal> {
    let event = &entry.value["event"];
    let of_id = |told: &&Withdrawal| told.source == entry.by && told.id == id && told.order == order;
    let mut tellings = told.withdrawals.iter().filter(of_id);
    ensure!(tellings.clone().next().is_some(), OneEffect, "{}: nobody told of {id} of {order}", entry.name());
    match tellings.find(|told| told.refund == text(event, "refund") && told.occurred_at == occurred_at) {
        Some(withdrawal) => Ok(withdrawal),
        None => violation(Invariant::SameContent, format!("{}: nobody told it so: {event}", entry.name())),
    }
}
