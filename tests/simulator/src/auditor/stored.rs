//! The model against what is stored, and at the end against everything that was told and published.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use serde_json::{Value, json};

use super::model::{Balance, Base, Claimed, Conversion, Drafted, PageLine, Payout, State, Tally, TallyKey};
use super::places::fingerprint;
use super::rates::Ratio;
use super::{
    Auditor, Checked, Entry, Invariant, ensure, hash, int, list, partner_in, program_of, skew, text, time, violation,
};
use crate::told::{About, Answer, ByHand, Program, Told, exponent};

/// Everything in the table, as plain JSON.
pub type Items = BTreeMap<(String, String), Value>;

pub(super) fn get<'a>(items: &'a Items, pk: &str, sk: &str) -> &'a Value {
    items.get(&(pk.to_owned(), sk.to_owned())).unwrap_or(&Value::Null)
}

/// Each of the expected fields, `null` where there must be none.
fn fields(invariant: Invariant, name: &str, expected: &Value, found: &Value) -> Checked {
    for (field, expected) in expected.as_object().into_iter().flatten() {
        if found[field] != *expected {
            let what = format!("{name}: expected {field} to be {expected}, found {} in {found}", found[field]);
            return violation(invariant, what);
        }
    }
    Ok(())
}

fn people(value: &Value, field: &str) -> BTreeSet<String> {
    list(value, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Auditor {
    /// Compares everything that is stored with the model. All entries so far must have been read.
    pub fn compare(&self, told: &Told, items: &Items) -> Checked {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        let mut balances: BTreeMap<String, Balance> = BTreeMap::new();
        for ((pk, sk), item) in items {
            let noun = match (pk.get(..4).unwrap_or_default(), sk.get(..4).unwrap_or_default()) {
                ("JRN#", _) => "entries",
                ("LIN#", _) => {
                    self.stored_line(told, item)?;
                    "lines"
                }
                ("PAR#", "PAY#") => {
                    self.stored_payout(told, items, item)?;
                    "payouts"
                }
                ("PAR#", "BAL#") => {
                    add_shard(balances.entry(pk[4..].to_owned()).or_default(), item);
                    continue;
                }
                (_, "TLY#") => {
                    self.stored_tally(item)?;
                    continue;
                }
                ("PAR#", "DRF#") => {
                    let payout = self.payouts.get(text(item, "payout"));
                    let drafting = payout.is_some_and(|payout| payout.state == "drafting");
                    ensure!(drafting, OneState, "{pk}: is locked for {item}, which is not being drafted");
                    "locks"
                }
                ("REF#", _) => {
                    let kind = item["kind"].as_str().unwrap_or("refund");
                    let claim = (
                        text(item, "source").to_owned(),
                        kind.to_owned(),
                        item["id"].as_str().unwrap_or_else(|| text(item, "refund")).to_owned(),
                    );
                    let stream = self.claims.get(&claim).map(String::as_str);
                    let stored = item["conversion"].as_str();
                    ensure!(
                        stream == stored,
                        OneEffect,
                        "{claim:?}: expected it to be of {stream:?}, found {stored:?}"
                    );
                    "refunds"
                }
                _ => continue,
            };
            *found.entry(noun).or_default() += 1;
        }
        let drafting = self.payouts.values().filter(|payout| payout.state == "drafting").count();
        for (noun, expected) in [
            ("entries", self.entries),
            ("lines", self.lines.len()),
            ("payouts", self.payouts.len()),
            ("locks", drafting),
            ("refunds", self.claims.len()),
        ] {
            let found = found.get(noun).copied().unwrap_or_default();
            ensure!(found == expected, History, "expected {expected} {noun} to be stored, found {found}");
        }
        self.stored_balances(balances)?;
        self.tallied(items)?;
        self.stored_exports(items)?;
        self.stored_tax(told, items)?;
        self.one_payout_each()
    }

    fn stored_line(&self, told: &Told, item: &Value) -> Checked {
        let id = text(item, "id");
        let Some(line) = self.lines.get(id) else {
            return violation(Invariant::History, format!("{id} is stored, and no entry made it"));
        };
        let (_, program) = program_of(told, &line.partner)?;
        let order = self.conversions.get(&line.conversion).map(|conversion| &conversion.order);
        let expected = json!({
            "program": program.id, "partner": line.partner, "currency": program.currency,
            "kind": line.kind.as_str(), "conversion": (!line.conversion.is_empty()).then_some(&line.conversion), "order": order,
            "edit": line.edit, "attribution": (line.attribution > 0).then_some(line.attribution), "of": line.of, "minimumSales": line.minimum_sales, "slice": line.slice, "ruleSet": line.rule_set,
            "amount": line.amount, "takenBack": line.taken, "state": line.state.as_str(),
            "occurredAt": line.occurred_at, "dueAt": line.due_at,
            "payout": line.payout.as_ref().map(|(payout, _)| payout), "page": line.payout.as_ref().map(|(_, page)| page),
            "refunded": (line.state == State::Rejected).then_some(line.recorded),
            "reviewed": matches!(line.state, State::Held | State::Reversed).then_some(line.reviewed),
            "version": line.version, "rev": line.version, "entry": line.entry,
        });
        fields(Invariant::History, id, &expected, item)?;
        let rule = text(&item["basis"], "rule");
        ensure!(rule == line.rule, ExactCents, "{id}: expected it to be under {}, found {rule}", line.rule);
        let hands = people(item, "hands");
        ensure!(hands == line.hands, Access, "{id}: expected the hands of {:?}, found {hands:?}", line.hands);
        let work = match line.state {
            State::Approved => text(item, "wpk").starts_with("DUE#"),
            State::Payable => text(item, "wpk") == format!("PAYABLE#{}", line.partner),
            _ => item["wpk"].is_null(),
        };
        ensure!(work, History, "{id}: is {} and stands in the index at {}", line.state.as_str(), item["wpk"]);
        Ok(())
    }

    fn stored_payout(&self, told: &Told, items: &Items, item: &Value) -> Checked {
        let id = text(item, "id");
        let Some(payout) = self.payouts.get(id) else {
            return violation(Invariant::History, format!("{id} is stored, and no entry made it"));
        };
        let (_, program) = program_of(told, &payout.partner)?;
        let expected = json!({
            "program": program.id, "partner": payout.partner, "currency": payout.currency, "state": payout.state,
            "amount": payout.amount(), "lineCount": payout.lines().count(), "pages": payout.pages.len(), "paid": payout.paid,
            "method": payout.method, "destination": fingerprint(payout.place.as_ref()), "export": payout.export, "processor": payout.batch.as_ref().or(payout.bill.as_ref()), "atRail": payout.at_rail.then_some(true), "attempts": (payout.attempts > 0).then_some(payout.attempts),
            "contentVersion": payout.version, "minimum": payout.minimum, "mustNet": payout.must_net.then_some(true),
            "settling": payout.settling, "entries": payout.entries, "rev": payout.entries, "entry": payout.entry,
        });
        fields(Invariant::PayoutIsItsLines, id, &expected, item)?;
        let resumed = payout.state == "drafting" || (payout.state == "submitting" && payout.method != "quickbooks");
        let under_way = resumed || payout.settling.is_some();
        let work = &item["wpk"];
        let findable = if under_way {
            text(item, "wpk").starts_with("PAYOUTS#")
        } else if matches!(payout.state, "paid" | "cancelled" | "void") {
            work.is_null()
        } else {
            !text(item, "wpk").starts_with("PAYOUTS#")
        };
        ensure!(findable, History, "{id}: is {}, settling {:?}, in the index at {work}", payout.state, payout.settling);
        // What failed or came back waits for somebody, and for nobody once it goes on or ends.
        let filed = items.iter().find(|((_, sk), filed)| sk == "EXC" && filed["id"] == item["trouble"]);
        let (waits, open) =
            (matches!(payout.state, "failed" | "returned"), filed.is_some_and(|(_, filed)| filed["status"] == "open"));
        ensure!(waits == open, RecordsEnd, "{id}: is {}, and an open exception tells of it: {open}", payout.state);
        let approvals: Vec<_> = list(item, "approvals").iter().map(|approval| text(approval, "by")).collect();
        ensure!(approvals == payout.approvals, Access, "{id}: expected {:?}, found {approvals:?}", payout.approvals);
        let (hands, found) = (payout.hands(), people(item, "hands"));
        ensure!(found.iter().eq(&hands), Access, "{id}: expected the hands of {hands:?}, found {found:?}");
        Self::stored_terms(id, payout, item)?;
        let conversion = &item["conversion"];
        let same = |rate: &Ratio| match rate_in(conversion) {
            None => payout.paid_in == payout.currency,
            Some((from, to, stored)) => (from, to, &stored) == (payout.currency, payout.paid_in, rate),
        };
        let by = &payout.rates;
        ensure!(by.iter().any(same), ExactCents, "{id}: expected to be sent by one of {by:?}, found {conversion}");
        let overridden = item["belowMinimum"].is_string();
        let as_told = payout.overridden.is_none_or(|told| told == overridden);
        ensure!(
            as_told,
            PayoutIsItsLines,
            "{id}: stands or fell as if overridden: {:?}, but {item}",
            payout.overridden
        );
        let mut hashes = String::new();
        for (n, page) in payout.pages.iter().enumerate() {
            let stored = get(items, &format!("PAY#{id}"), &format!("PAG#{n:05}"));
            let lines = stored_page(id, n, page, stored)?;
            hashes += &hash(lines.to_string().as_bytes());
        }
        if payout.state != "drafting" {
            // What an approval names covers the pages, where the money goes, at what rate, and what tax is kept back.
            let terms =
                json!([item["method"], item["destination"], item["currency"], item["conversion"], item["withholding"]]);
            let content = hash((hashes + &hash(terms.to_string().as_bytes())).as_bytes());
            let named = text(item, "linesHash");
            ensure!(content == named, PayoutIsItsLines, "{id}: linesHash is {named}, of its pages it is {content}");
        }
        let instantly = Self::is_instant(told, &payout.partner)?;
        check_run(told, program, items, id, payout, item, instantly)?;
        self.swept(program, items, id, payout, item)
    }

    fn stored_balances(&self, stored: BTreeMap<String, Balance>) -> Checked {
        let mut from_lines: BTreeMap<String, Balance> = BTreeMap::new();
        for line in self.lines.values() {
            from_lines.entry(line.partner.clone()).or_default().book(line, 1);
        }
        let partners: BTreeSet<_> = from_lines.keys().chain(stored.keys()).chain(self.balances.keys()).collect();
        for partner in partners {
            let of = |all: &BTreeMap<String, Balance>| all.get(partner).cloned().unwrap_or_default().trimmed();
            let (lines, fold, stored) = (of(&from_lines), of(&self.balances), of(&stored));
            ensure!(lines == fold, Balances, "{partner}: expected {lines:?} by its lines, the journal says {fold:?}");
            ensure!(lines == stored, Balances, "{partner}: expected {lines:?} by its lines, stored is {stored:?}");
            let sum: i128 = stored.amounts.values().sum();
            ensure!(sum == 0, Balances, "{partner}: all buckets sum to {sum}, not zero");
        }
        Ok(())
    }

    fn stored_tally(&self, item: &Value) -> Checked {
        let key = stored_key(item);
        let tally = self.tallies.get(&key).cloned().unwrap_or_default();
        if item["tally"].is_null() {
            let found = int(item, "count");
            ensure!(found == tally.count, History, "the tally {key:?}: expected {tally:?}, found {found:?}");
            return Ok(());
        }
        let stored = &item["tally"];
        let mut found = Tally {
            count: int(stored, "count"),
            revenue: int(stored, "revenue"),
            commission: int(stored, "commission"),
            bases: BTreeMap::new(),
        };
        for (version, base) in stored["bases"].as_object().into_iter().flatten() {
            let base = Base {
                count: int(base, "count"),
                shared: list(base, "shared").iter().filter_map(shared).collect(),
                revenue: int(base, "revenue"),
                earned: int(base, "earned"),
                partial: int(base, "partial"),
                kept: base["kept_back"].as_object().into_iter().flatten().map(kept_back).collect(),
                lacking: base["lacking"].as_object().into_iter().flatten().map(kept_back).collect(),
            };
            found.bases.insert(version.parse().unwrap_or_default(), base);
        }
        ensure!(found == tally, History, "the tally {key:?}: expected {tally:?}, found {found:?}");
        Ok(())
    }

    /// Every rule that conversions count for has a tally.
    fn tallied(&self, items: &Items) -> Checked {
        let stored: BTreeSet<_> =
            items.iter().filter(|((_, sk), _)| sk.starts_with("TLY#")).map(|(_, item)| stored_key(item)).collect();
        for (key, tally) in &self.tallies {
            let known = *tally == Tally::default() || stored.contains(key);
            ensure!(known, History, "there is no tally {key:?}, expected {tally:?}");
        }
        Ok(())
    }

    /// A line on a live payout's page is in that payout, as much as the page says; and a line in a payout is on a page of it.
    fn one_payout_each(&self) -> Checked {
        let mut on_pages: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, payout) in &self.payouts {
            for (n, page) in payout.pages.iter().enumerate().filter(|_| !matches!(payout.state, "cancelled" | "void")) {
                for on_page in page {
                    let line = &self.lines[&on_page.id];
                    let inside = line.payout.as_ref() == Some(&(id.clone(), n)) && line.net() == on_page.net;
                    ensure!(inside, PayoutIsItsLines, "{}: is on page {n} of {id}, but {line:?}", on_page.id);
                    let other = on_pages.insert(&on_page.id, id);
                    ensure!(other.is_none(), PayoutIsItsLines, "{} is in {id} and {other:?}", on_page.id);
                }
            }
        }
        for (id, line) in self.lines.iter().filter(|(_, line)| line.state == State::Paid) {
            let payout = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout));
            // Where a payment came back, they follow page by page.
            let paid = payout.is_some_and(|payout| payout.state == "paid" || payout.settling.is_some());
            ensure!(paid, OneState, "{id} is paid, and its payout {:?} is not", line.payout);
        }
        Ok(())
    }

    // --- The end --------------------------------------------------------------------------------------------------

    /// When everything was delivered without faults and nothing waits anywhere.
    pub fn finish(&self, told: &Told, now: Timestamp, items: &Items, published: &[Value]) -> Checked {
        self.compare(told, items)?;
        for (id, payout) in &self.payouts {
            let at_rest = payout.state != "drafting" && payout.settling.is_none();
            let at_rest = at_rest && payout.state != "submitting";
            ensure!(at_rest, Converges, "{id} is {} and settling {:?}", payout.state, payout.settling);
            let lines = match payout.state {
                "cancelled" | "void" => continue,
                "paid" => State::Paid,
                _ => State::InPayout,
            };
            let astray = payout.lines().find(|line| self.lines[&line.id].state != lines);
            ensure!(astray.is_none(), OneState, "{id} is {}, and not so {astray:?}", payout.state);
        }
        let is_over = |payout: &Payout| matches!(payout.state, "cancelled" | "void");
        for (id, line) in self.lines.iter().filter(|(_, line)| line.state == State::InPayout) {
            let gone = line.payout.as_ref().and_then(|(payout, _)| self.payouts.get(payout)).is_none_or(is_over);
            ensure!(!gone, OneState, "{id} is in {:?}, which has ended", line.payout);
        }
        for ((run, sk), item) in items.iter().filter(|((pk, _), _)| pk.starts_with("RUN#")) {
            if sk == "RUN" {
                let decided = items.range((run.clone(), "PAR#".to_owned())..(run.clone(), "PAR$".to_owned()));
                ended(run, item, decided.map(|(_, decision)| decision))?;
            } else if sk.starts_with("PAR#") && item["outcome"] == "payout" {
                let known = self.payouts.get(text(item, "payout")).is_some_and(|payout| sk[4..] == payout.partner);
                ensure!(known, Runs, "{run}: decided on a payout that is not there: {item}");
            }
        }
        self.paid_instantly(told, now, items)?;
        self.as_billed(told, now, items)?;
        self.as_remitted(told, now, items)?;
        self.accepted(told, items)?;
        self.answered(told)?;
        Self::details_given(told)?;
        self.published(published)
    }

    fn accepted(&self, told: &Told, items: &Items) -> Checked {
        let exceptions = || items.iter().filter(|((_, sk), _)| sk == "EXC").map(|(_, item)| item);
        let filed = |source: &str, order: &str, code: Option<&str>| {
            exceptions().any(|item| {
                let of_order = text(item, "source") == source && text(item, "order") == order;
                of_order && code.is_none_or(|code| item["code"] == code)
            })
        };
        let of_order = |source: &str, order: &str| -> Option<&Conversion> {
            self.conversions.get(self.orders.get(&(source.to_owned(), order.to_owned()))?)
        };
        for sale in told.sales.iter().filter(|sale| sale.accepted) {
            let applied = of_order(&sale.source, &sale.order).and_then(|conversion| conversion.sale.as_ref());
            let content = |sale: &crate::told::Sale| {
                let amounts = [sale.total, sale.tax, sale.shipping, sale.discount];
                (
                    sale.named.clone(),
                    sale.coupon.clone(),
                    amounts,
                    sale.items.iter().map(item_content).collect::<Vec<_>>(),
                )
            };
            let same = applied.is_some_and(|applied| content(applied) == content(sale));
            let ended = same || filed(&sale.source, &sale.order, None);
            ensure!(ended, RecordsEnd, "accepted, not applied, and no exception: {sale:?}; applied was {applied:?}");
        }
        for refund in told.refunds.iter().filter(|refund| refund.accepted) {
            let claim = (refund.source.clone(), "refund".to_owned(), refund.id.clone());
            let conversion = self.claims.get(&claim).and_then(|stream| self.conversions.get(stream));
            let applied = conversion.into_iter().flat_map(|conversion| &conversion.refunds);
            let content = |refund: &crate::told::Refund| {
                let items = refund.items.iter().flatten().map(item_content).collect::<Vec<_>>();
                (refund.order.clone(), refund.id.clone(), refund.total, refund.tax, refund.shipping, items)
            };
            let ended = applied.clone().any(|applied| content(applied) == content(refund))
                || filed(&refund.source, &refund.order, None);
            ensure!(ended, RecordsEnd, "accepted, not applied, and no exception: {refund:?}");
        }
        for edit in told.edits.iter().filter(|edit| edit.accepted) {
            let claim = (edit.source.clone(), "edit".to_owned(), edit.id.clone());
            let conversion = self.claims.get(&claim).and_then(|stream| self.conversions.get(stream));
            let same = |applied: &crate::told::Edit| {
                let content = |edit: &crate::told::Edit| edit.items.iter().map(item_content).collect::<Vec<_>>();
                applied.id == edit.id && applied.total == edit.total && content(applied) == content(edit)
            };
            let applied = conversion.is_some_and(|conversion| conversion.edits.iter().any(same));
            let ended = applied || filed(&edit.source, &edit.order, None);
            ensure!(ended, RecordsEnd, "accepted, not applied, and no exception: {edit:?}");
        }
        for withdrawal in told.withdrawals.iter().filter(|withdrawal| withdrawal.accepted) {
            let claim = (withdrawal.source.clone(), "withdrawal".to_owned(), withdrawal.id.clone());
            let conversion = self.claims.get(&claim).and_then(|stream| self.conversions.get(stream));
            let applied = conversion.is_some_and(|conversion| conversion.withdrawn.contains(&withdrawal.refund));
            let ended = applied || filed(&withdrawal.source, &withdrawal.order, None);
            ensure!(ended, RecordsEnd, "accepted, not applied, and no exception: {withdrawal:?}");
        }
        for conversion in self.conversions.values().filter(|conversion| !conversion.credits.is_empty()) {
            let Some(order_told) = conversion.order() else { continue };
            let beyond = order_told.cash_back > order_told.charged;
            let (source, order) = (&conversion.source, &conversion.order);
            let told_of = !beyond || filed(source, order, Some("refund_beyond_charge"));
            ensure!(told_of, RecordsEnd, "more went back than was charged for {order} of {source}, and no exception");
        }
        Ok(())
    }

    /// What the API said was done has an entry by whom it was said to.
    fn answered(&self, told: &Told) -> Checked {
        for command in &told.commands {
            let Some(Answer { status: 200..=299, done }) = &command.answer else { continue };
            let what = match (command.about, command.verb) {
                (About::Payouts, "approve") => "approve_payout",
                (About::Payouts, "send-back") => "send_back",
                (About::Payouts, "cancel") => "cancel_payout",
                (About::Payouts, "mark-paid") => "mark_paid",
                (About::Payouts, "mark-failed") => "mark_failed",
                (About::Payouts, "mark-returned") => "mark_returned",
                (About::Payouts, "void") => "void_payout",
                (_, verb) => verb,
            };
            for id in done {
                let mut known = self.done.contains(&(what.to_owned(), command.by.clone(), id.clone()));
                // What somebody else attested already is done.
                if what == "mark_paid" {
                    known |= self.done.iter().any(|(verb, _, done)| (verb.as_str(), done) == (what, id));
                }
                ensure!(known, Converges, "{} was told that {what} of {id} is done, and no entry is", command.by);
            }
            if (command.about, what) == (About::Partners, "payouts") {
                let drafted = self.done.iter().any(|(verb, by, id)| {
                    verb == "draft" && *by == command.by && command.ids.contains(&partner_in(id))
                });
                ensure!(drafted, Converges, "{} was told of a payout to {:?}, and none is", command.by, command.ids);
            }
        }
        Ok(())
    }

    /// Everything is published; of one stream, an entry's events not before all events of the entry before it.
    fn published(&self, published: &[Value]) -> Checked {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        // What becomes of connections is told apart from what becomes of money.
        let of_money = |event: &&Value| !text(event, "detail-type").starts_with("quickbooks.");
        for (n, event) in published.iter().filter(of_money).enumerate() {
            first.entry(text(&event["detail"], "id")).or_insert(n);
        }
        let mut latest: BTreeMap<&str, usize> = BTreeMap::new();
        let mut expected = 0;
        for (stream, events) in &self.events {
            let before = latest.get(stream.as_str()).copied();
            for event in events {
                expected += 1;
                let Some(at) = first.get(event.as_str()).copied() else {
                    return violation(Invariant::History, format!("{event} of {stream} was never published"));
                };
                ensure!(
                    before.is_none_or(|before| before < at),
                    History,
                    "{event} of {stream} was published too early"
                );
                let latest = latest.entry(stream).or_insert(at);
                *latest = at.max(*latest);
            }
        }
        ensure!(first.len() == expected, History, "{} events were published instead of {expected}", first.len());
        Ok(())
    }
}

fn stored_key(item: &Value) -> TallyKey {
    let partner = item["partner"].as_str().or(item["owner"]["partner"].as_str());
    let window = item["window"].as_str().unwrap_or("life");
    (partner.unwrap_or_else(|| text(item, "program")).to_owned(), text(item, "rule").to_owned(), window.to_owned())
}

fn item_content(item: &crate::told::Item) -> (String, i64, i64) {
    (item.product.to_owned(), item.quantity, item.amount)
}

fn add_shard(balance: &mut Balance, shard: &Value) {
    for (name, value) in shard.as_object().into_iter().flatten() {
        let Some(value) = value.as_i64() else { continue };
        match name.strip_suffix("_lines") {
            Some(state) => balance.count(state, value.into()),
            None => balance.add(name, value.into()),
        }
    }
}

/// The page's lines as its hash covers them.
fn stored_page(id: &str, n: usize, page: &[PageLine], stored: &Value) -> Checked<Value> {
    let lines = list(stored, "lines");
    let found: Vec<_> = lines.iter().map(|line| (text(line, "id"), int(line, "net"), people(line, "hands"))).collect();
    let same = found.len() == page.len()
        && found
            .iter()
            .zip(page)
            .all(|((id, net, hands), line)| (*id, *net, hands) == (&line.id, line.net, &line.hands));
    ensure!(same, PayoutIsItsLines, "page {n} of {id}: expected {page:?}, found {found:?}");
    Ok(lines.iter().map(|line| json!([line["id"], line["net"]])).collect())
}

fn kept_back((tier, amount): (&String, &Value)) -> (i64, i128) {
    (tier.parse().unwrap_or_default(), amount.as_i64().map(i128::from).unwrap_or_default())
}

/// A run pays a partner once, what was due by its cut-off, and leaves nothing that was.
/// So many conversions of which the partner has such a part.
fn shared(stored: &Value) -> Option<((i128, i128), i128)> {
    let number = |n: usize| stored[n].as_i64().map(i128::from);
    Some(((number(0)?, number(1)?), number(2)?))
}

/// A stored rate: from and to which currency, and what a minor unit of the one is worth in those of the other.
fn rate_in(stored: &Value) -> Option<(&str, &str, Ratio)> {
    let number = |text: &str| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let units = format!("{whole}{part}").parse().ok()?;
        Some(Ratio::new(units, 10_i128.pow(u32::try_from(part.len()).ok()?)))
    };
    let (from, to) = (stored["from"].as_str()?, stored["to"].as_str()?);
    let (rate, per) = (number(stored["rate"].as_str()?)?, number(stored["per"].as_str().unwrap_or("1"))?);
    let one = |currency: &str| 10_i128.pow(exponent(currency));
    Some((from, to, rate.times(per.inverse()).times(Ratio::new(one(to), one(from)))))
}

fn check_run(
    told: &Told,
    program: &Program,
    items: &Items,
    id: &str,
    payout: &Payout,
    item: &Value,
    instantly: bool,
) -> Checked {
    let place = format!("RUN#{}", text(item, "run"));
    let decided = get(items, &place, &format!("PAR#{}", payout.partner));
    ensure!(decided["payout"] == id, Runs, "{id}: its run decided {decided}");
    let told_as = match payout.drafted {
        None => decided["outcome"] == "payout" && decided["drafting"] == true,
        Some(Drafted::Stands(amount)) => {
            decided["outcome"] == "payout"
                && decided["drafting"].is_null()
                && int(&decided["amount"], "minor") == amount
        }
        Some(Drafted::GivenUp(freed)) => decided["outcome"] == "carried" && int(&decided["payable"], "minor") == freed,
    };
    ensure!(told_as, Runs, "{id}: was drafted as {:?}, and its run tells {decided}", payout.drafted);
    let run = get(items, &place, "RUN");
    let (cut_off, planned_at) = (time(run, "cutOff")?, time(run, "plannedAt")?);
    let inclusive = run["cutOffInclusive"] == true;
    let by = text(run, "createdBy");
    let commanded = |verb: &str, about: &str| {
        told.commands.iter().any(|command| {
            (command.about, command.verb, command.by.as_str()) == (About::Partners, verb, by)
                && command.ids.iter().any(|id| id == about)
        })
    };
    let kind = &run["request"]["method"];
    let as_asked = payout.named.iter().any(|named| named.map_or(Value::Null, |named| json!(named)) == *kind);
    ensure!(as_asked, Runs, "{id}: was drafted for {:?}, and {by}'s run asks {kind}", payout.named);
    let as_of_now = inclusive && cut_off <= planned_at;
    let fits = match text(run, "kind") {
        "manual" => as_of_now && by_hand(told, run).is_some_and(|run| run.names(&payout.partner)),
        "instant" => {
            let of_partner = partner_in(text(run, "period")) == payout.partner;
            as_of_now && instantly && of_partner && by == "draft-payout"
        }
        "on_demand" => as_of_now && commanded("payouts", &payout.partner),
        frequency => frequency == program.frequency && !inclusive && scheduled(program, run, cut_off, planned_at),
    };
    ensure!(fits, Runs, "{id}: nothing calls for its run, {run}");
    let pay_on = match text(run, "kind") {
        "manual" | "on_demand" => Value::Null,
        "instant" => pay_on(program, date_of(program, planned_at)),
        _ => pay_on(program, text(run, "period").parse().ok()),
    };
    let found = (&item["payOn"], &run["payOn"]);
    ensure!(found == (&pay_on, &pay_on), Runs, "{id}: is to be paid on {found:?}, expected {pay_on}");
    ensure!(payout.drafted_at + skew() + skew() >= planned_at, Runs, "{id}: was drafted before its run, {run}");
    let within = |amount: i128, due_at: Timestamp| amount < 0 || due_at < cut_off || (inclusive && due_at == cut_off);
    // A run about one partner is planned as it is decided.
    let payable_by = if run["payableBy"].is_null() { None } else { Some(time(run, "payableBy")?) };
    let planned_in_time = match (text(run, "kind"), payable_by) {
        ("on_demand" | "instant", by) => by.is_none(),
        ("manual", by) => by == Some(planned_at),
        (_, by) => by.is_some_and(|by| by >= planned_at && Some(by) <= day_after(program, run)),
    };
    ensure!(planned_in_time, Runs, "{id}: its run takes what was payable by {payable_by:?}: {run}");
    for Claimed { line, amount, due_at, ready_at } in &payout.claimed {
        ensure!(within(*amount, *due_at), Runs, "{id}: {line} is due at {due_at}, the cut-off is {cut_off}");
        let in_time = *amount < 0 || payable_by.is_none_or(|by| *ready_at <= by);
        ensure!(
            in_time,
            Runs,
            "{id}: {line} is payable since {ready_at}, and its run takes what was by {payable_by:?}"
        );
    }
    if run["request"]["amount"].is_null() && payout.state != "cancelled" {
        for (line, amount, since, due_at) in &payout.left {
            let missed = *since + skew() < payable_by.unwrap_or(planned_at) && within(*amount, *due_at);
            ensure!(!missed, Runs, "{id}: left out {line}, of {amount}, payable since {since} and due at {due_at}");
        }
    }
    Ok(())
}

/// A run at its end: whoever was asked got a decision, and the summary is the fold of them. Another planner may have asked more than it
/// noted, through a fresher index.
fn ended<'a>(id: &str, run: &Value, decisions: impl Iterator<Item = &'a Value>) -> Checked {
    let (mut count, mut payouts, mut amount) = (0, 0, 0);
    let mut last = Timestamp::MIN;
    let mut carried: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
    for decision in decisions {
        last = last.max(time(decision, "at")?);
        if decision["outcome"] == "failed" {
            continue;
        }
        count += 1;
        ensure!(decision["drafting"].is_null(), Runs, "{id}: a payout is still being drafted: {decision}");
        if decision["outcome"] == "payout" {
            payouts += 1;
            amount += int(&decision["amount"], "minor");
        } else {
            let sum = carried.entry(text(decision, "because")).or_default();
            *sum = (sum.0 + 1, sum.1 + int(&decision["payable"], "minor"));
        }
    }
    ensure!(int(run, "asked") <= count, Runs, "{id}: {count} decision(s) by the end of {run}");
    // What is about one partner is decided as it is written.
    if run["ofOne"] == true {
        ensure!(run["state"] == "planned" && count == 1, Runs, "{id}: {count} decision(s) of {run}");
        return Ok(());
    }
    ensure!(run["state"] == "completed", Runs, "{id}: is not completed: {run}");
    let summary = &run["summary"];
    let told: BTreeMap<_, _> = list(summary, "carried")
        .iter()
        .map(|sum| (text(sum, "because"), (int(sum, "partners"), int(sum, "payable"))))
        .collect();
    // A day after the last was asked, the rest is not waited for.
    let counted = int(summary, "payouts") + told.values().map(|(partners, _)| partners).sum::<i128>();
    if counted < int(run, "asked") || int(summary, "drafting") > 0 {
        let since = time(run, "at")? + SignedDuration::from_hours(24);
        ensure!(last + skew() + skew() >= since, Runs, "{id}: was closed before all was decided: {run}");
        return Ok(());
    }
    let same = (int(summary, "payouts"), int(summary, "amount")) == (payouts, amount);
    ensure!(same && carried == told, Runs, "{id}: decided {payouts} payout(s) of {amount}, carried {carried:?}: {run}");
    Ok(())
}

/// The midnight after a scheduled run's date.
fn day_after(program: &Program, run: &Value) -> Option<Timestamp> {
    let date = text(run, "period").parse::<Date>().ok()?.tomorrow().ok()?;
    let zone = TimeZone::get(program.time_zone).ok()?;
    date.to_zoned(zone).ok().map(|at| at.timestamp())
}

/// What was said of a run by hand by whoever started it.
pub fn by_hand<'a>(told: &'a Told, run: &Value) -> Option<&'a ByHand> {
    let (cut_off, planned_at) = (time(run, "cutOff").ok()?, time(run, "plannedAt").ok()?);
    let same = |said: &ByHand| {
        let sorted = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        let named = (people(run, "include"), people(run, "exclude"));
        named == (sorted(&said.include), sorted(&said.exclude)) && cut_off == said.cut_off.unwrap_or(planned_at)
    };
    let commands = told.commands.iter().filter(|command| {
        (command.about, command.verb, command.by.as_str()) == (About::Partners, "runs", text(run, "createdBy"))
            && command.ids.iter().any(|id| id == text(run, "program"))
    });
    commands.filter_map(|command| command.run.as_ref()).find(|said| same(said))
}

fn date_of(program: &Program, at: Timestamp) -> Option<Date> {
    TimeZone::get(program.time_zone).ok().map(|zone| at.to_zoned(zone).date())
}

fn pay_on(program: &Program, run_date: Option<Date>) -> Value {
    json!(run_date.and_then(|date| date.checked_add(Span::new().days(i64::from(program.pay_days))).ok()))
}

/// Whether a scheduled run has a date of its schedule, and that date's times.
fn scheduled(program: &Program, run: &Value, cut_off: Timestamp, planned_at: Timestamp) -> bool {
    let (Ok(date), Ok(zone)) = (text(run, "period").parse::<Date>(), TimeZone::get(program.time_zone)) else {
        return false;
    };
    let midnight = |date: Date| date.to_zoned(zone.clone()).map(|at| at.timestamp()).ok();
    let reach = date.checked_sub(Span::new().days(i64::from(program.cut_off_days)));
    let on_schedule = match program.frequency {
        "monthly" => date.day() == program.run_day.min(date.days_in_month()),
        "weekly" => date.weekday().to_monday_one_offset() == program.run_day,
        "quarterly" => date.month() % 3 == 1 && date.day() == program.run_day.min(date.days_in_month()),
        "semi_monthly" => matches!(date.day(), 1 | 15),
        // The world does not tell from when two weeks are counted.
        "biweekly" => true,
        _ => false,
    };
    on_schedule && midnight(date) == Some(planned_at) && reach.ok().and_then(midnight) == Some(cut_off)
}

/// The ids of the events that tell of an entry.
pub fn events_of(entry: &Entry) -> Vec<String> {
    let event = |id: &str, kind: &str| format!("evt_{}", hash(format!("{}/{id}/{kind}", entry.hash).as_bytes()));
    let of_line = |line: &Value| {
        if entry.is_tax(text(line, "id")) {
            return None;
        }
        let kind = match (entry.what, text(&line["to"], "state")) {
            _ if line["from"].is_null() => "accrued",
            ("refund" | "attribute", _) => "reversed",
            ("edit" | "adjust", _) => "adjusted",
            ("approve", _) => "approved",
            ("mature", _) => "matured",
            ("hold", _) => "held",
            ("release", _) => "released",
            ("reject", _) => "rejected",
            ("reinstate" | "withdraw", _) => "reinstated",
            (_, "paid") => "paid",
            _ => return None,
        };
        Some(event(text(line, "id"), &format!("commission.{kind}")))
    };
    let of_payout = |payout: &Value| {
        let (from, to) = (text(payout, "from"), text(payout, "to"));
        let kind = match (from, to) {
            _ if from == to && !matches!(entry.what, "mark_paid" | "unpay") => return None,
            (_, "drafting" | "submitting") => return None,
            ("" | "drafting", "pending") => "created",
            (_, "pending") => "sent_back",
            (_, to) => to,
        };
        Some(event(text(payout, "id"), &format!("payout.{kind}")))
    };
    let lines = list(entry.value, "lines").iter().filter_map(of_line);
    lines.chain(list(entry.value, "payouts").iter().filter_map(of_payout)).collect()
}
