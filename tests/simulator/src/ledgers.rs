//! What was seen in companies in QuickBooks, and what people did there. Whatever a company has is the truth about its Bills.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use crate::told::exponent;

/// Everything that is known of companies, by their realm.
#[derive(Debug, Clone, Default)]
pub struct Ledgers {
    /// How each company was: from which tick on, oldest first.
    seen: BTreeMap<String, Vec<(usize, Books)>>,
    /// Every Bill as it was when it was first seen.
    first: BTreeMap<(String, String), Bill>,
    /// Which company the payouts of a program are billed in, by the program's place.
    pub realms: BTreeMap<usize, String>,
    /// Programs whose settings have no account for tax that is kept back.
    pub untaxed: BTreeSet<usize>,
    /// The vendor that a partner's payout details name.
    pub named: BTreeMap<String, String>,
    /// Bills that people made themselves: realm and id.
    pub by_hand: BTreeSet<(String, String)>,
    /// Vendors that went into others: realm, which one, and into which.
    pub merged: Vec<(String, String, String)>,
    /// What was refused by a company for no reason that can be seen in it: at which tick, and what was asked.
    pub refused: Vec<(usize, String)>,
}

/// A company's books at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    pub currency: String,
    /// Whether it has vendors and Bills in other currencies, too.
    pub multicurrency: bool,
    pub closed: bool,
    pub bills: BTreeMap<String, Bill>,
    pub vendors: BTreeMap<String, Vendor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    pub vendor: String,
    pub number: String,
    pub memo: String,
    pub currency: String,
    pub date: Option<Date>,
    /// What one unit of its currency is worth in the company's, in millionths: nothing where it is the company's.
    pub rate: Option<i128>,
    /// Minor units, like all amounts.
    pub total: i128,
    /// Accounts and amounts.
    pub lines: Vec<(String, i128)>,
    /// What is not settled of it, by money or by credits.
    pub open: i128,
    /// What paid it with money: id, how much, and the day that stands on it.
    pub payments: Vec<(String, i128, Option<Date>)>,
    /// When it last changed.
    pub changed: Option<Timestamp>,
}

impl Bill {
    pub fn cash(&self) -> i128 {
        self.payments.iter().map(|(_, amount, _)| amount).sum()
    }

    /// The payout that its memo names.
    pub fn payout(&self) -> Option<&str> {
        let (_, rest) = self.memo.rsplit_once('[')?;
        rest.split_once(']').map(|(id, _)| id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendor {
    pub name: String,
    /// What stands in it as its account number: empty where nothing does.
    pub reference: String,
    pub email: String,
    pub currency: String,
    pub active: bool,
}

impl Ledgers {
    /// Notes how a company is, from this tick on; whether it was otherwise before.
    pub fn note(&mut self, realm: &str, tick: usize, books: Books) -> bool {
        for (id, bill) in &books.bills {
            self.first.entry((realm.to_owned(), id.clone())).or_insert_with(|| bill.clone());
        }
        let seen = self.seen.entry(realm.to_owned()).or_default();
        let changed = seen.last().is_none_or(|(_, last)| *last != books);
        if changed {
            seen.push((tick, books));
        }
        changed
    }

    /// How a company may have been for whoever began at a tick.
    pub fn since(&self, realm: &str, tick: usize) -> impl Iterator<Item = &Books> {
        let seen = self.seen.get(realm).map(Vec::as_slice).unwrap_or_default();
        let from = seen.partition_point(|(at, _)| *at < tick).saturating_sub(1);
        seen[from..].iter().map(|(_, books)| books)
    }

    /// How all companies are now.
    pub fn now(&self) -> impl Iterator<Item = (&String, &Books)> {
        self.seen.iter().filter_map(|(realm, seen)| Some((realm, &seen.last()?.1)))
    }

    /// How a Bill ever was.
    pub fn ever<'a>(&'a self, realm: &str, bill: &'a str) -> impl Iterator<Item = &'a Bill> {
        let seen = self.seen.get(realm).map(Vec::as_slice).unwrap_or_default();
        seen.iter().filter_map(move |(_, books)| books.bills.get(bill))
    }

    pub fn first(&self, realm: &str, bill: &str) -> Option<&Bill> {
        self.first.get(&(realm.to_owned(), bill.to_owned()))
    }

    /// All Bills that were ever made, as they were made: realm and id first.
    pub fn made(&self) -> impl Iterator<Item = (&(String, String), &Bill)> {
        self.first.iter()
    }

    /// Whatever these vendors went into, with them.
    pub fn merged_into(&self, realm: &str, mut vendors: BTreeSet<String>) -> BTreeSet<String> {
        for (of, from, into) in &self.merged {
            if of == realm && vendors.contains(from) {
                vendors.insert(into.clone());
            }
        }
        vendors
    }
}

/// A number as books write it, in minor units; nothing where it has more decimals.
fn minor(value: &Value, exponent: u32) -> i128 {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = format!("{part:0<width$}", width = exponent as usize);
    sign * format!("{whole}{part}").parse::<i128>().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A company's books, from its entities.
pub fn read(currency: &str, multicurrency: bool, closed: bool, all: impl Fn(&str) -> Vec<Value>) -> Books {
    let payments = all("BillPayment");
    let paid_by = |bill: &str, exponent: u32| {
        let mut paid = Vec::new();
        for payment in &payments {
            let amount = |line: &Value| minor(&line["Amount"], exponent);
            let (mut applied, mut credits) = (0, 0);
            for line in list(&payment["Line"]) {
                let linked = list(&line["LinkedTxn"]);
                if linked.iter().any(|linked| linked["TxnId"] == bill) {
                    applied += amount(line);
                } else if linked.iter().all(|linked| linked["TxnType"] != "Bill") {
                    credits += amount(line).abs();
                }
            }
            let amount = (applied - credits).min(minor(&payment["TotalAmt"], exponent)).max(0);
            if amount != 0 {
                paid.push((text(&payment["Id"]), amount, text(&payment["TxnDate"]).parse().ok()));
            }
        }
        paid
    };
    let bill = |bill: &Value| {
        let currency = text(&bill["CurrencyRef"]["value"]);
        let exponent = exponent(&currency);
        let line = |line: &Value| {
            (text(&line["AccountBasedExpenseLineDetail"]["AccountRef"]["value"]), minor(&line["Amount"], exponent))
        };
        Bill {
            vendor: text(&bill["VendorRef"]["value"]),
            number: text(&bill["DocNumber"]),
            memo: text(&bill["PrivateNote"]),
            date: text(&bill["TxnDate"]).parse().ok(),
            rate: (!bill["ExchangeRate"].is_null()).then(|| minor(&bill["ExchangeRate"], 6)),
            total: minor(&bill["TotalAmt"], exponent),
            lines: list(&bill["Line"]).iter().map(line).collect(),
            open: minor(&bill["Balance"], exponent),
            payments: paid_by(&text(&bill["Id"]), exponent),
            changed: text(&bill["MetaData"]["LastUpdatedTime"]).parse().ok(),
            currency,
        }
    };
    let vendor = |vendor: &Value| Vendor {
        name: text(&vendor["DisplayName"]),
        reference: text(&vendor["AcctNum"]),
        email: text(&vendor["PrimaryEmailAddr"]["Address"]),
        currency: text(&vendor["CurrencyRef"]["value"]),
        active: vendor["Active"] != false,
    };
    Books {
        currency: currency.to_owned(),
        multicurrency,
        closed,
        bills: all("Bill").iter().map(|one| (text(&one["Id"]), bill(one))).collect(),
        vendors: all("Vendor").iter().map(|one| (text(&one["Id"]), vendor(one))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let written = |text: &str, exponent| minor(&serde_json::from_str(text).unwrap_or_default(), exponent);
        for (number, exponent, expect) in
            [("20", 2, 2_000), ("20.5", 2, 2_050), ("-3.07", 2, -307), ("500", 0, 500), ("1.234", 3, 1_234)]
        {
            assert_eq!(written(number, exponent), expect, "{number}");
        }
    }

    #[test]
    fn whoever_began_may_have_seen_what_was_then_and_all_since() {
        let mut ledgers = Ledgers::default();
        for tick in [1, 4, 6] {
            ledgers.note("1", tick, Books { currency: tick.to_string(), ..Books::default() });
        }
        let since = |tick| ledgers.since("1", tick).map(|books| books.currency.clone()).collect::<Vec<_>>();
        assert_eq!(since(0), ["1", "4", "6"]);
        assert_eq!(since(5), ["4", "6"]);
        assert_eq!(since(9), ["6"]);
    }
}
