//! QuickBooks: of a payout that is paid there, one Bill is made, of what was approved; and what becomes of it is what its Bill says.
//!
//! Whoever looks there does so some time between beginning and writing, so there can be several answers; what is written must be one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::model::Payout;
use super::paypal::may_ask_paypal;
use super::rates::{self, Ratio};
use super::stored::Items;
use super::{Auditor, Checked, Effect, Entry, Invariant, caused, ensure, int, list, program_of, text, time, violation};
use crate::ledgers::{Bill, Books, Vendor};
use crate::told::{About, Told, exponent};

/// Whoever asks companies.
pub const RAIL: &str = "submit-payouts";
/// The accounts that were chosen for commissions, and for tax that is kept back.
const EXPENSES: &str = "7";
const TAXES: &str = "8";
const PARTNERS_NAME: &str = "Partner ";

/// A payout's number for people, which is the document number of its Bill.
pub(super) fn number_of(payout: &str) -> String {
    format!("PP-{}", payout.get(30..).unwrap_or_default().to_uppercase())
}

/// What stands in a partner's vendor.
fn reference_of(partner: &str) -> String {
    format!("PP-{}", partner.get(partner.len().saturating_sub(12)..).unwrap_or_default().to_uppercase())
}

fn realm_of<'a>(told: &'a Told, partner: &str) -> Checked<&'a str> {
    let place = told.partners.iter().find(|told| told.id == partner).map(|partner| partner.program);
    match place.and_then(|place| told.ledgers.realms.get(&place)) {
        Some(realm) => Ok(realm),
        None => violation(Invariant::OneBill, format!("{partner} has no company to be billed in")),
    }
}

/// Whether a vendor may be a partner's: by its reference, by name where nothing says it is somebody else, or because the partner says so.
fn is_of(told: &Told, partner: &str, id: &str, vendor: &Vendor) -> bool {
    let number = told.partners.iter().position(|told| told.id == partner).unwrap_or_default();
    let named = told.ledgers.named.get(partner);
    let name = vendor.name.strip_suffix(" (deleted)").unwrap_or(&vendor.name);
    let by_name = vendor.reference.is_empty()
        && (vendor.email.is_empty() || vendor.email == format!("partner{number}@partners.example"))
        && (name == format!("{PARTNERS_NAME}{number}")
            || name == format!("{PARTNERS_NAME}{number} {}", vendor.currency));
    match named {
        Some(named) => named == id,
        None => vendor.reference == reference_of(partner) || by_name,
    }
}

/// All vendors that may ever have been a partner's, and what they went into.
fn vendors_of<'a>(told: &Told, realm: &str, partner: &str, books: impl Iterator<Item = &'a Books>) -> BTreeSet<String> {
    let mut own: BTreeSet<String> = told.ledgers.named.get(partner).cloned().into_iter().collect();
    for books in books {
        let of_partner = books.vendors.iter().filter(|(id, vendor)| is_of(told, partner, id, vendor));
        own.extend(of_partner.map(|(id, _)| id.clone()));
    }
    told.ledgers.merged_into(realm, own)
}

fn is_marked(bill: &Bill, payout: &str) -> bool {
    bill.memo.contains(payout)
}

/// So much is paid of a payout by its Bill; of one that is gone or comes to nothing, nothing is.
fn paid_by(bill: Option<&Bill>, payout: &Payout) -> i128 {
    bill.filter(|bill| bill.total != 0).map_or(0, |bill| bill.cash().min(payout.due()))
}

fn last_payment(bill: &Bill) -> Option<&(String, i128, Option<Date>)> {
    bill.payments.iter().max_by_key(|(.., date)| *date)
}

/// What one unit of the currency a payout is sent in is worth in its company's on a day, in millionths: by what was known when it was drafted,
/// or on one of the days since. Where it is already tomorrow, the rate of that day may not be known yet.
fn worth(told: &Told, realm: &str, payout: &Payout, day: Date) -> Vec<Option<Ratio>> {
    let home = home_of(told, realm);
    let one = |currency: &str| 10_i128.pow(exponent(currency));
    let drafted = payout.drafted_at.to_zoned(TimeZone::UTC).date();
    let days = std::iter::successors(Some(drafted.min(day)), |known| known.tomorrow().ok());
    let on = |known: Date| {
        let rates = told.rates.iter().filter(move |rate| rate.date <= known);
        let minor = rates::exchange(rates, payout.paid_in, home, day)?;
        Some(minor.times(Ratio::new(one(payout.paid_in) * 1_000_000, one(home))))
    };
    days.take_while(|known| *known <= day).map(on).collect()
}

fn home_of<'a>(told: &'a Told, realm: &str) -> &'a str {
    told.ledgers.since(realm, 0).next().map_or("", |books| books.currency.as_str())
}

/// A Bill in another currency says what that is worth in the company's on its day. Silent in the rules: to six decimals, and of two that are
/// as near either.
fn rated(told: &Told, realm: &str, payout: &Payout, name: &str, bill: &Bill) -> Checked {
    let home = home_of(told, realm);
    let worth = bill.date.map(|day| worth(told, realm, payout, day)).unwrap_or_default();
    let near = |says: i128, rate: Ratio| {
        let twice = rate.times(Ratio::from(2));
        !Ratio::from(2 * says - 1).compare(twice).is_gt() && !Ratio::from(2 * says + 1).compare(twice).is_lt()
    };
    let right = match bill.rate {
        None => bill.currency == home,
        Some(says) => bill.currency != home && worth.iter().flatten().any(|rate| near(says, *rate)),
    };
    ensure!(right, ExactCents, "{name}: is worth {worth:?} millionths of {home}, and says {bill:?}");
    Ok(())
}

/// Whether nobody told what a payout's currency is worth in the company's on the day that is complained of.
fn unrated(told: &Told, payout: &Payout, why: &str) -> Checked<bool> {
    let realm = realm_of(told, &payout.partner)?;
    let day = why.split_once(" of ").and_then(|(_, rest)| rest.get(..10)?.parse::<Date>().ok());
    Ok(day.is_some_and(|day| worth(told, realm, payout, day).contains(&None)))
}

/// Whether a company has come to take other currencies, and is treated as if it did not: that is noticed when it is compared.
fn unnoticed(told: &Told, payout: &Payout, why: &str) -> Checked<bool> {
    let realm = realm_of(told, &payout.partner)?;
    let mut seen = told.ledgers.since(realm, 0);
    let switched = seen.next().is_some_and(|first| !first.multicurrency) && seen.any(|books| books.multicurrency);
    Ok(switched && (why.contains("CurrencyRef") || why.contains("multicurrency")))
}

impl Auditor {
    pub(super) fn is_billed(&self, payout: &str) -> bool {
        self.payouts.get(payout).is_some_and(|payout| payout.method == "quickbooks")
    }

    pub(super) fn begin_submit(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let mut payout = self.payout(entry, &["approved"])?;
        let asked = entry.by == RAIL && (payout.method == "quickbooks" || may_ask_paypal(told, &payout));
        ensure!(asked, Access, "{}: is paid by {}", entry.name(), payout.method);
        Self::leaves_for(told, entry, &payout)?;
        self.tax_stands(told, entry, (entry.stream, &payout), 0, None)?;
        payout.state = "submitting";
        payout.at_rail = true;
        payout.leaves(entry);
        Ok(Self::alone(entry, payout))
    }

    /// Its Bill is there.
    pub(super) fn taken(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["submitting"])?);
        ensure!(payout.method == "quickbooks", Access, "{name}: is paid by {}", payout.method);
        let realm = realm_of(told, &payout.partner)?;
        let bill = text(entry.value, "why");
        let dues = payout.dues();
        let ours = |seen: &&Bill| is_marked(seen, entry.stream) && dues.contains(&seen.total);
        let Some(there) = told.ledgers.ever(realm, bill).find(ours) else {
            return violation(Invariant::OneBill, format!("{name}: Bill {bill} in {realm} was never its, of {dues:?}"));
        };
        payout.narrow(there.total, true);
        payout.bill = Some(bill.to_owned());
        payout.state = "submitted";
        Ok(Self::alone(entry, payout))
    }

    /// How its Bill may have been for whoever looked at it: nothing where it was gone.
    fn looked_at<'a>(told: &'a Told, payout: &Payout) -> Checked<Vec<Option<&'a Bill>>> {
        let realm = realm_of(told, &payout.partner)?;
        let bill = payout.bill.as_deref().unwrap_or_default();
        Ok(told.ledgers.since(realm, told.since.0).map(|books| books.bills.get(bill)).collect())
    }

    /// What a payout's Bill says is paid of it, more or less than before.
    pub(super) fn reported(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let mut payout = self.payout(entry, &["submitted", "partially_paid", "paid"])?;
        ensure!(payout.method == "quickbooks" && entry.by == RAIL, Access, "{name}: is paid by {}", payout.method);
        let change = list(entry.value, "payouts").first().unwrap_or(&Value::Null);
        let (paid, amount) = (int(change, "paid"), payout.due());
        let seen = Self::looked_at(told, &payout)?;
        let reference = entry.value["why"].as_str();
        let says = |bill: Option<&Bill>| {
            let named = reference.is_none() && paid == 0
                || bill.is_some_and(|bill| bill.payments.iter().any(|(id, ..)| Some(id.as_str()) == reference));
            paid_by(bill, &payout) == paid && named
        };
        let Some(bill) = seen.iter().copied().find(|bill| says(*bill)) else {
            let what = format!("{name}: {paid} of {amount} is paid, by {reference:?}, and its Bill says {seen:?}");
            return violation(Invariant::OneBill, what);
        };
        let less = entry.what == "unpay";
        ensure!(less == (paid < payout.paid) && paid != payout.paid, OneBill, "{name}: after {}", payout.paid);
        let last = bill.and_then(last_payment).and_then(|(.., date)| *date);
        let at = time(change, "paidAt").or_else(|_| Self::paid_at(told, entry, &payout, last))?;
        payout.parts = if paid == 0 { Vec::new() } else { vec![(paid, at)] };
        let was_paid = payout.state == "paid";
        payout.paid = paid;
        payout.state = match paid {
            0 => "submitted",
            _ if paid == amount => "paid",
            _ => "partially_paid",
        };
        if was_paid != (payout.state == "paid") {
            payout.settling = Some(0);
        }
        self.follow(entry, payout)
    }

    /// The day that stands on the last payment, unless that is today.
    fn paid_at(told: &Told, entry: &Entry, payout: &Payout, last: Option<Date>) -> Checked<Timestamp> {
        let (_, program) = program_of(told, &payout.partner)?;
        let zone = TimeZone::get(program.time_zone).unwrap_or(TimeZone::UTC);
        let today = entry.at.to_zoned(zone.clone()).date();
        let noon = last
            .filter(|date| *date < today)
            .and_then(|date| date.at(12, 0, 0, 0).to_zoned(zone).ok())
            .map(|noon| noon.timestamp());
        Ok(noon.unwrap_or(entry.at).max(payout.drafted_at.min(entry.at)))
    }

    /// A company refuses it for good.
    pub(super) fn refused(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let (name, mut payout) = (entry.name(), self.payout(entry, &["submitting"])?);
        ensure!(payout.method == "quickbooks", Access, "{name}: is paid by {}", payout.method);
        let why = text(entry.value, "why");
        let beyond = unrated(told, &payout, why)? || unnoticed(told, &payout, why)?;
        let possible = beyond || Self::hindered(told, entry.stream, &payout)?;
        ensure!(possible, OneBill, "{name}: nothing speaks against it, and it is said that {why}");
        payout.state = "failed";
        Ok(Self::alone(entry, payout))
    }

    /// Whether something may have stood in the way of a payout's Bill.
    fn hindered(told: &Told, id: &str, payout: &Payout) -> Checked<bool> {
        let realm = realm_of(told, &payout.partner)?;
        let (since, _) = told.since;
        let place = told.partners.iter().find(|told| told.id == payout.partner).map(|partner| partner.program);
        if payout.withheld() != 0 && place.is_some_and(|place| told.ledgers.untaxed.contains(&place)) {
            return Ok(true);
        }
        let reference = reference_of(&payout.partner);
        let refused = told.ledgers.refused.iter().filter(|(tick, _)| *tick >= since);
        if refused.clone().any(|(_, body)| body.contains(id) || body.contains(&reference)) {
            return Ok(true);
        }
        let own = vendors_of(told, realm, &payout.partner, told.ledgers.since(realm, 0));
        let number = number_of(id);
        Ok(told.ledgers.since(realm, since).any(|books| {
            let named = told.ledgers.named.get(&payout.partner);
            let of_currency = |vendor: &Vendor| vendor.currency == payout.paid_in;
            let unusable = named.is_some_and(|named| !books.vendors.get(named).is_some_and(of_currency))
                || own.iter().any(|id| books.vendors.get(id).is_some_and(|vendor| !vendor.active));
            let numbered: Vec<_> = books.bills.iter().filter(|(_, bill)| bill.number == number).collect();
            // With its vendor, a Bill goes into another; who has not heard of that expects it at the former.
            let stayed = |bill: &str, vendor: &str| told.ledgers.ever(realm, bill).all(|seen| seen.vendor == vendor);
            let ours = |(bill, now): &(&String, &Bill)| {
                is_marked(now, id)
                    && payout.dues().contains(&now.total)
                    && own.contains(&now.vendor)
                    && stayed(bill, &now.vendor)
            };
            let taken = numbered.len() > 1 || !numbered.iter().all(ours);
            let foreign = books.currency != payout.paid_in && !books.multicurrency;
            books.closed || foreign || unusable || taken
        }))
    }

    /// Its Bill is gone, or comes to nothing; or somebody ends it, and there is nothing that could be paid.
    pub(super) fn ended(&self, told: &Told, entry: &Entry) -> Checked<Effect> {
        let name = entry.name();
        let mut payout = if entry.by == RAIL {
            let payout = self.payout(entry, &["submitted"])?;
            let seen = Self::looked_at(told, &payout)?;
            let gone = seen.iter().any(|bill| bill.is_none_or(|bill| bill.total == 0));
            ensure!(gone, OneBill, "{name}: its Bill is there: {seen:?}");
            payout
        } else {
            let payout = self.payout(entry, &["failed"])?;
            caused(told, entry, About::Payouts, "void", &[entry.stream])?;
            let (realm, number) = (realm_of(told, &payout.partner)?, number_of(entry.stream));
            let nothing = |books: &Books| {
                !books
                    .bills
                    .values()
                    .any(|bill| bill.number == number && bill.total != 0 && is_marked(bill, entry.stream))
            };
            let nothing_to_pay = told.ledgers.since(realm, told.since.0).any(nothing);
            ensure!(nothing_to_pay, OneBill, "{name}: there is a Bill of it");
            payout
        };
        ensure!(payout.paid == 0, OneState, "{name}: {} of it is paid", payout.paid);
        payout.state = "void";
        payout.settling = Some(0);
        self.follow(entry, payout)
    }

    // --- Companies ------------------------------------------------------------------------------------------------

    /// What companies have is what was approved, once.
    pub fn companies(&self, told: &Told) -> Checked {
        for ((realm, id), bill) in told.ledgers.made() {
            if told.ledgers.by_hand.contains(&(realm.clone(), id.clone())) {
                continue;
            }
            let name = format!("Bill {id} in {realm}");
            let Some((of, payout)) = bill.payout().and_then(|of| self.payouts.get_key_value(of)) else {
                return violation(Invariant::OneBill, format!("{name}: is no payout's: {bill:?}"));
            };
            let begun = !matches!(payout.state, "drafting" | "pending" | "approved" | "cancelled");
            ensure!(begun, OneBill, "{name}: was made, and {of} is {}", payout.state);
            ensure!(realm_of(told, &payout.partner)? == realm, OneBill, "{name}: {of} is billed elsewhere");
            ensure!(bill.number == number_of(of), OneBill, "{name}: of {of} has the number {}", bill.number);
            let (gross, withheld) = (payout.gross(), payout.withheld());
            let says = |rate: &Ratio| {
                let due = Ratio::from(payout.amount()).times(*rate).round();
                let kept = Ratio::from(withheld).times(*rate).round();
                let tax = (withheld != 0).then(|| (TAXES.to_owned(), -kept));
                bill.total == due && bill.lines.iter().eq([(EXPENSES.to_owned(), due + kept)].iter().chain(&tax))
            };
            let same = payout.rates.iter().any(says) && bill.currency == payout.paid_in;
            ensure!(same, OneBill, "{name}: of {of}, which is {gross} less {withheld}, says {bill:?}");
            rated(told, realm, payout, &name, bill)?;
            let own = vendors_of(told, realm, &payout.partner, told.ledgers.since(realm, 0));
            ensure!(own.contains(&bill.vendor), OneBill, "{name}: of {of} is vendor {}'s, not {own:?}'s", bill.vendor);
        }
        for (realm, books) in told.ledgers.now() {
            let mut live: BTreeMap<&str, &str> = BTreeMap::new();
            for (id, bill) in books.bills.iter().filter(|(_, bill)| bill.total != 0) {
                let by_hand = told.ledgers.by_hand.contains(&(realm.clone(), id.clone()));
                if let Some(payout) = bill.payout().filter(|_| !by_hand) {
                    let other = live.insert(payout, id);
                    ensure!(other.is_none(), OneBill, "{payout} has Bills {id} and {other:?} in {realm}");
                }
            }
            // One for each currency that a partner is paid in.
            let mut known: BTreeMap<(&str, &str), &str> = BTreeMap::new();
            for (id, vendor) in books.vendors.iter().filter(|(_, vendor)| vendor.reference.starts_with("PP-")) {
                let other = known.insert((&vendor.reference, &vendor.currency), id);
                ensure!(other.is_none(), OneBill, "{} is vendors {id} and {other:?} in {realm}", vendor.reference);
            }
        }
        Ok(())
    }

    /// At the end, when companies are connected and were compared: every payout is as its Bill is.
    pub(super) fn as_billed(&self, told: &Told, now: Timestamp, items: &Items) -> Checked {
        let books: BTreeMap<&String, &Books> = told.ledgers.now().collect();
        for (id, payout) in self.payouts.iter().filter(|(_, payout)| payout.method == "quickbooks") {
            let realm = realm_of(told, &payout.partner)?;
            let Some(books) = books.iter().find(|(of, _)| of.as_str() == realm).map(|(_, books)| *books) else {
                continue;
            };
            let record = items.get(&(format!("PAY#{id}"), "QBO".to_owned())).unwrap_or(&Value::Null);
            // One that was made while somebody ended the payout is known from what was written down of it.
            let known = payout.bill.clone().or_else(|| record["bill"].as_str().map(str::to_owned));
            let payout = &Payout { bill: known, ..payout.clone() };
            let bill = payout.bill.as_ref().and_then(|bill| books.bills.get(bill)).filter(|bill| bill.total != 0);
            let trouble = Self::trouble(told, realm, payout, books);
            match payout.state {
                "approved" => {
                    let stays = self.must_wait(told, now, id, payout);
                    ensure!(stays, Converges, "{id}: is approved, and no Bill was made");
                }
                "submitted" | "partially_paid" | "paid" if payout.bill.is_some() => {
                    ensure!(bill.is_some(), OneBill, "{id}: is {}, and its Bill is gone", payout.state);
                    let paid = paid_by(bill, payout);
                    ensure!(paid == payout.paid, OneBill, "{id}: {} is paid, its Bill says {bill:?}", payout.paid);
                }
                "paid" => ensure!(payout.amount() == 0, OneBill, "{id}: is paid, and there is no Bill"),
                "void" => {
                    let live = |(bill_id, bill): &(&String, &Bill)| {
                        let by_hand = told.ledgers.by_hand.contains(&(realm.to_owned(), (*bill_id).clone()));
                        !by_hand
                            && bill.total != 0
                            && bill.payout() == Some(id)
                            && payout.bill.as_ref() != Some(*bill_id)
                    };
                    let other = books.bills.iter().find(live);
                    ensure!(other.is_none(), OneBill, "{id}: is void, and there is a Bill of it: {other:?}");
                }
                _ => continue,
            }
            let filed = items.iter().find(|((_, sk), filed)| sk == "EXC" && filed["id"] == record["trouble"]);
            let told_of = filed.is_some_and(|(_, filed)| filed["status"] == "open" && filed["code"] == "bill_differs");
            let because = || format!("{id}, {}: differs: {trouble:?}, told: {told_of}, Bill {bill:?}", payout.state);
            ensure!(trouble.is_some() == told_of, OneBill, "{}", because());
        }
        for (realm, books) in told.ledgers.now() {
            self.compared(told, realm, books, items)?;
        }
        Ok(())
    }

    /// Why a payout's Bill is not as it was sent, if it is not.
    fn trouble(told: &Told, realm: &str, payout: &Payout, books: &Books) -> Option<&'static str> {
        let bill = payout.bill.as_ref().and_then(|bill| books.bills.get(bill)).filter(|bill| bill.total != 0)?;
        if payout.state == "void" {
            return Some("the payout is void");
        }
        if bill.total != payout.due() {
            return Some("another amount");
        }
        let own = vendors_of(told, realm, &payout.partner, told.ledgers.since(realm, 0));
        if !own.contains(&bill.vendor) {
            return Some("another vendor");
        }
        (bill.cash() < bill.total - bill.open).then_some("credits")
    }

    /// Whether an approved payout may not be sent now.
    pub(super) fn must_wait(&self, told: &Told, now: Timestamp, id: &str, payout: &Payout) -> bool {
        let entry =
            Entry { value: &Value::Null, stream: id, position: 0, hash: "", at: now, now, by: RAIL, what: "submit" };
        Self::leaves_for(told, &entry, payout).is_err() || self.tax_stands(told, &entry, (id, payout), 0, None).is_err()
    }

    /// The last report agrees with both sides, and every Bill that names a payout wrongly was told of.
    fn compared(&self, told: &Told, realm: &str, books: &Books, items: &Items) -> Checked {
        let place = format!("QBR#{realm}");
        let reports = items.range((place.clone(), String::new())..(format!("{place}$"), String::new()));
        let Some((_, report)) = reports.last() else {
            return violation(Invariant::OneBill, format!("{realm} was never compared"));
        };
        ensure!(report["finished"] == true, OneBill, "{realm}: {report}");
        let mut open = BTreeMap::new();
        for (id, payout) in &self.payouts {
            let billed = payout.method == "quickbooks" && payout.bill.is_some();
            if billed
                && matches!(payout.state, "submitted" | "partially_paid")
                && realm_of(told, &payout.partner)? == realm
            {
                open.insert(id.as_str(), payout);
            }
        }
        let count = i128::try_from(open.len()).unwrap_or_default();
        let found = int(report, "compared");
        ensure!(found == count, OneBill, "{realm}: {found} payouts were compared, {count} are open");
        // Sums are of what is open, and of what was paid and changed since the comparison before.
        let since = time(report, "since")?.as_second();
        let mut summed = open.clone();
        for (id, payout) in &self.payouts {
            let bill = payout.bill.as_ref().and_then(|bill| books.bills.get(bill));
            let is_news = bill.and_then(|bill| bill.changed).is_some_and(|at| at.as_second() >= since);
            if payout.method == "quickbooks"
                && payout.state == "paid"
                && is_news
                && realm_of(told, &payout.partner)? == realm
            {
                summed.insert(id.as_str(), payout);
            }
        }
        let days = list(report, "days");
        let sum = |field: &str| days.iter().map(|day| int(day, field)).sum::<i128>();
        let bills = i128::try_from(summed.len()).unwrap_or_default();
        let ours: i128 = summed.values().map(|payout| payout.due()).sum();
        let theirs: i128 =
            summed.values().filter_map(|payout| books.bills.get(payout.bill.as_ref()?)).map(|bill| bill.total).sum();
        let (expected, found) = ((bills, ours, theirs), (sum("bills"), sum("ours"), sum("theirs")));
        ensure!(found == expected, OneBill, "{realm}: bills and sums are {expected:?}, told are {found:?}");
        let differ = open.iter().filter(|(_, payout)| Self::trouble(told, realm, payout, books).is_some());
        let differ: BTreeSet<&str> = differ.map(|(id, _)| *id).collect();
        let told_of: BTreeSet<&str> = list(report, "differing").iter().map(|one| text(one, "payout")).collect();
        ensure!(differ == told_of, OneBill, "{realm}: expected {differ:?} to differ, told are {told_of:?}");
        for (id, bill) in
            books.bills.iter().filter(|(id, _)| told.ledgers.by_hand.contains(&(realm.to_owned(), (*id).clone())))
        {
            let Some(of) = bill.payout() else { continue };
            let adopted = self.payouts.get(of).is_some_and(|payout| payout.bill.as_ref() == Some(id));
            let filed = items.iter().any(|((_, sk), filed)| {
                let detail = text(filed, "detail");
                sk == "EXC" && filed["code"] == "bill_orphaned" && detail.starts_with(&format!("Bill {id} of "))
            });
            ensure!(adopted || filed, OneBill, "Bill {id} in {realm} names {of}, and nobody was told: {bill:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payouts_number_is_what_tells_it_from_its_partners_others() {
        let payout = format!("pay_{}00000000abcdefgh", "0".repeat(26));
        assert_eq!(number_of(&payout), "PP-00000000ABCDEFGH");
        assert_eq!(reference_of("par_0123456789abcdefghijklmnop"), "PP-EFGHIJKLMNOP");
    }
}
