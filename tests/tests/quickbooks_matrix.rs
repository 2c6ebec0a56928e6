//! Every fault of the way to QuickBooks at every request that is made there, one at a time: in the end exactly one Bill that is paid when it
//! is paid, or an exception that says what to do, after which it is the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use quickbooks_counterpart::company::{Company, EXPENSE_ACCOUNT};
use quickbooks_counterpart::{Blow, Strike};
use serde_json::{Value, json};
use tests::books::{REALM, in_quickbooks};
use tests::{ADMIN, APPROVER, FINANCE, Plan, World};

/// What is done while one request of it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Play {
    /// A payout to somebody new, with an access token that has just ended.
    First,
    /// A payout to a vendor that the payout details name.
    Named,
    /// A Bill whose answer was lost is found.
    Found,
    /// The Bill is paid.
    Paid,
    /// The payment is voided.
    Undone,
    /// The Bill is deleted.
    Deleted,
    /// The vendor was merged into another, which nobody told, and the Bill is paid.
    Merged,
    /// The Bill is paid, which nobody told, and two nights compare.
    Nights,
}

impl Play {
    /// The requests that it makes, in their order.
    const fn steps(self) -> &'static [&'static str] {
        match self {
            Self::First => &[
                "query Bill by DocNumber",
                "refresh token",
                "query Bill by DocNumber",
                "query Vendor by AcctNum",
                "query Vendor by DisplayName",
                "create Vendor",
                "create Bill",
            ],
            Self::Named => &["query Bill by DocNumber", "read Vendor", "create Bill"],
            Self::Found => &["query Bill by DocNumber", "read Bill"],
            Self::Paid => {
                &["read Bill", "query BillPayment by Id", "read BillPayment", "read Bill", "query BillPayment by Id"]
            }
            Self::Undone => &["read Bill", "read BillPayment", "read Bill"],
            Self::Deleted => &["read Bill", "query Bill by Id"],
            Self::Merged => &[
                "read Bill",
                "query BillPayment by Id",
                "read Vendor",
                "read BillPayment",
                "read Bill",
                "query BillPayment by Id",
            ],
            Self::Nights => &[
                "query Preferences",
                "query CompanyInfo",
                "cdc",
                "read Bill",
                "query BillPayment by Id",
                // The second night is told the same again, and knows it.
                "query Preferences",
                "query CompanyInfo",
                "cdc",
            ],
        }
    }

    /// Which of them are struck: not those that are struck in another play, or that only say the same again.
    fn struck(self) -> impl Iterator<Item = (usize, &'static str)> {
        let new = move |(at, step): &(usize, &'static str)| match self {
            Self::Merged => *step == "read Vendor",
            Self::Nights => *at < 5,
            _ => true,
        };
        self.steps().iter().copied().enumerate().filter(new)
    }
}

/// A payout of its own for each cell.
struct Cell {
    play: Play,
    /// The partner's name, and their vendor's.
    name: String,
    partner: String,
    payout: Value,
    number: String,
}

impl Cell {
    async fn prepare(world: &World, play: Play, n: usize) -> Self {
        let name = format!("Partner {n}");
        let mut methods = in_quickbooks();
        if play == Play::Named {
            methods[0]["details"] = json!({"vendorId": made_vendor(world, &name)});
        }
        let partner = json!({"name": name, "code": format!("P{n}"), "email": format!("p{n}@partners.example"), "payoutMethods": methods});
        let partner = world.add_partner(&partner).await;
        let mut sale = world.sale_event(&format!("o{n}"), "100.00");
        sale["partner"] = json!({"id": partner});
        world.report(&sale).await.ok();
        let request = json!({"partnerId": partner, "programId": world.program});
        let payout = world.post(ADMIN, "/payouts", &request).await.ok();
        world.settle().await;
        let cell = Self {
            play,
            name,
            partner,
            payout: payout["id"].clone(),
            number: payout["number"].as_str().unwrap().to_owned(),
        };
        match play {
            Play::First => world.system.quickbooks.expire_all(),
            Play::Named => {}
            Play::Found => {
                let lost = Strike { step: "create Bill".to_owned(), nth: 0, blow: Blow::LostAfter };
                world.system.quickbooks.watch(vec![lost]);
                cell.approve(world).await;
                assert_eq!(world.state_of_payout(&cell.payout).await, "submitting");
            }
            Play::Paid | Play::Undone | Play::Deleted | Play::Merged | Play::Nights => cell.approve(world).await,
        }
        if play == Play::Undone {
            world.pay_bill(&cell.payout, None).await;
        }
        if play == Play::Nights {
            let bill = world.bill_id(&cell.payout);
            world.company(REALM, |company, now| {
                company.pay(&bill, None, now).unwrap();
                company.happened.clear();
            });
        }
        if play == Play::Merged {
            let into = made_vendor(world, &format!("{} Inc.", cell.name));
            let from = world.bill_of(REALM, &cell.payout)["VendorRef"]["value"].as_str().unwrap().to_owned();
            world.company(REALM, |company, now| {
                company.merge_vendors(&from, &into, now);
                company.happened.clear();
            });
        }
        cell
    }

    async fn approve(&self, world: &World) {
        assert_eq!(world.approve_payout(APPROVER, &self.payout).await, 200);
        world.settle().await;
    }

    async fn act(&self, world: &World) {
        match self.play {
            Play::First | Play::Named => self.approve(world).await,
            Play::Found => {}
            Play::Paid | Play::Merged => drop(world.pay_bill(&self.payout, None).await),
            Play::Undone => {
                let payment = world.bill_of(REALM, &self.payout)["LinkedTxn"][0]["TxnId"].as_str().unwrap().to_owned();
                world.there(|company, now| company.void_payment(&payment, now)).await;
            }
            Play::Nights => {
                for _ in 0..2 {
                    world.fire("reconcile").await;
                    world.pass("1h");
                }
            }
            Play::Deleted => {
                let bill = world.bill_id(&self.payout);
                world.there(|company, now| company.delete_bill(&bill, now)).await;
            }
        }
        // Failed messages come again, and then what waits is taken up by a tick.
        world.pass("4m");
        world.settle().await;
        world.pass("1h");
        world.fire("batch-payouts").await;
        world.settle().await;
    }

    /// Where it is to end.
    async fn has_ended_well(&self, world: &World, cell: &str) {
        let state = world.state_of_payout(&self.payout).await;
        let expect = match self.play {
            Play::First | Play::Named | Play::Found | Play::Undone => "submitted",
            Play::Paid | Play::Merged | Play::Nights => "paid",
            Play::Deleted => "void",
        };
        assert_eq!(state, expect, "{cell}");
        assert_eq!(world.exceptions().await, [] as [Value; 0], "{cell}");
        if self.play == Play::Deleted {
            assert_eq!(world.bills_of(REALM, &self.payout), [] as [Value; 0], "{cell}");
            assert_eq!(world.buckets_of(&self.partner).await, [("payable", 1_000)], "{cell}");
            return;
        }
        let bill = world.bill_of(REALM, &self.payout);
        assert_eq!((&bill["TotalAmt"], &bill["DocNumber"]), (&json!(10), &json!(self.number)), "{cell}");
        let vendor = bill["VendorRef"]["name"].as_str().unwrap();
        assert!(vendor.starts_with(&self.name), "{cell}: {vendor}");
        assert_eq!(world.payout(&self.payout).await["quickbooks"]["vendorId"], bill["VendorRef"]["value"], "{cell}");
        if state == "submitted" {
            assert_eq!(world.buckets_of(&self.partner).await, [("inPayout", 1_000)], "{cell}");
            world.pay_bill(&self.payout, None).await;
            assert_eq!(world.state_of_payout(&self.payout).await, "paid", "{cell}");
        }
        assert_eq!(world.buckets_of(&self.partner).await, [("paid", 1_000)], "{cell}");
    }

    /// That somebody was told once, with this code and what to do, and that nothing was billed or paid twice.
    async fn is_told(&self, world: &World, cell: &str, told: Told) {
        let exceptions = world.exceptions().await;
        assert_eq!(exceptions.len(), 1, "{cell}: {exceptions:?}");
        let detail = exceptions[0]["detail"].as_str().unwrap();
        assert_eq!(exceptions[0]["code"], told.code, "{cell}: {detail}");
        assert!(detail.contains(told.what_to_do), "{cell}: {detail}");
        assert!(world.bills_of(REALM, &self.payout).len() <= 1, "{cell}");
        if !matches!(self.play, Play::Paid | Play::Undone | Play::Merged | Play::Nights) {
            assert_eq!(world.buckets_of(&self.partner).await, [("inPayout", 1_000)], "{cell}");
        }
    }

    /// Somebody does what the exception says.
    async fn mend(&self, world: &World, told: Told) {
        world.company(REALM, |company, now| {
            company.books_closed = None;
            undo(company, self, now);
        });
        match told.then {
            Then::Retry => {
                let reason = json!({"reason": "set right"});
                assert_eq!(world.payout_call(FINANCE, "retry", &self.payout, &reason).await, 200);
                world.settle().await;
            }
            Then::Connect => {
                world.connect_company(REALM).await;
                world.pass("1h");
                world.fire("batch-payouts").await;
                world.settle().await;
                world.fire("reconcile").await;
            }
            // A night tries it.
            Then::Wait => {
                world.fire("reconcile").await;
                world.pass("1h");
                world.fire("batch-payouts").await;
            }
        }
        world.settle().await;
    }
}

fn made_vendor(world: &World, name: &str) -> String {
    let made = world.company(REALM, |company, now| {
        company.write("vendor", &json!({"DisplayName": name}), None, None, now).unwrap()
    });
    made["Vendor"]["Id"].as_str().unwrap().to_owned()
}

/// Takes back what somebody did there.
fn undo(company: &mut Company, cell: &Cell, now: Timestamp) {
    let vendors: Vec<Value> = company.all("Vendor").filter(|vendor| vendor["Active"] == false).cloned().collect();
    for mut vendor in vendors {
        vendor["Active"] = json!(true);
        vendor["DisplayName"] = json!(cell.name);
        company.write("vendor", &vendor, None, None, now).unwrap();
    }
    let by_hand = |bill: &&Value| bill["DocNumber"] == cell.number.as_str() && bill["PrivateNote"].is_null();
    let bills: Vec<String> =
        company.all("Bill").filter(by_hand).map(|bill| bill["Id"].as_str().unwrap().to_owned()).collect();
    for bill in bills {
        company.delete_bill(&bill, now);
    }
}

/// What an exception says.
#[derive(Debug, Clone, Copy)]
struct Told {
    code: &'static str,
    what_to_do: &'static str,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Retry,
    Connect,
    Wait,
}

/// All that may befall a request of a step.
fn blows(step: &str, cell: &Cell) -> Vec<(&'static str, Blow)> {
    let mut blows = vec![
        ("unreachable", Blow::Unreachable),
        ("never arrives", Blow::LostBefore),
        ("answer lost", Blow::LostAfter),
        ("429", Blow::Throttled),
        ("401", Blow::Unauthorized { lower_case: false }),
        ("502 page", Blow::PageBefore),
        ("504 page, done", Blow::PageAfter),
    ];
    if step == "refresh token" {
        blows.push(("invalid_grant", Blow::InvalidGrant));
        return blows;
    }
    blows.push(("401, lower case", Blow::Unauthorized { lower_case: true }));
    for code in ["600", "610", "3100", "5010", "6000", "6140", "6190", "6210", "6240", "10000"] {
        blows.push((code, Blow::Refused(code)));
    }
    let (name, number) = (cell.name.clone(), cell.number.clone());
    if step == "create Vendor" {
        let taken = move |company: &mut Company, now: Timestamp| {
            company.write("customer", &json!({"DisplayName": name}), None, None, now).unwrap();
        };
        blows.push(("the name is taken", Blow::Meanwhile(Arc::new(taken))));
    } else if step == "create Bill" {
        let inactive = move |company: &mut Company, now: Timestamp| {
            let vendor = company.all("Vendor").find(|vendor| vendor["DisplayName"] == name.as_str()).unwrap();
            let vendor = vendor["Id"].as_str().unwrap().to_owned();
            company.deactivate(&vendor, now);
        };
        let by_hand = move |company: &mut Company, now: Timestamp| {
            let other = company.write("vendor", &json!({"DisplayName": format!("Other {number}")}), None, None, now);
            let bill = json!({
                "VendorRef": {"value": other.unwrap()["Vendor"]["Id"]}, "DocNumber": number,
                "Line": [{"Amount": 10, "DetailType": "AccountBasedExpenseLineDetail",
                          "AccountBasedExpenseLineDetail": {"AccountRef": {"value": EXPENSE_ACCOUNT}}}],
            });
            company.write("bill", &bill, None, None, now).unwrap();
        };
        let closed = |days: i64| {
            move |company: &mut Company, now: Timestamp| {
                let until = now + SignedDuration::from_hours(24 * days);
                company.books_closed = Some(until.to_zoned(jiff::tz::TimeZone::UTC).date());
            }
        };
        blows.extend([
            ("comes twice", Blow::Twice),
            ("the vendor is made inactive", Blow::Meanwhile(Arc::new(inactive))),
            ("the number is typed in by hand", Blow::Meanwhile(Arc::new(by_hand))),
            ("the books are closed", Blow::Meanwhile(Arc::new(closed(400)))),
        ]);
    }
    blows
}

/// Which of them somebody is told. Everything else passes without anybody noticing.
fn told(play: Play, step: &str, blow: &str) -> Option<Told> {
    let failed = |what_to_do| Some(Told { code: "payout_failed", what_to_do, then: Then::Retry });
    let ended = |what_to_do, then| Some(Told { code: "quickbooks_disconnected", what_to_do, then });
    match (step, blow) {
        // New tokens may have been given out, and nobody has them.
        ("refresh token", "answer lost" | "504 page, done" | "invalid_grant") | (_, "3100") => {
            ended("connect it again", Then::Connect)
        }
        // The next night finds the subscription renewed.
        (_, "6190") if play == Play::Nights => None,
        (_, "6190") => ended("end the suspension at Intuit", Then::Wait),
        ("create Vendor", "610" | "5010" | "6000" | "6140" | "6210") => failed("could not be made a vendor"),
        ("create Bill", "610") => failed("see that the vendor, the accounts and the term that were chosen are in use"),
        ("create Bill", "5010" | "6000" | "6240") => failed("set right what it names, and retry"),
        ("create Bill", "6140") => failed("give the other transaction another number, and retry"),
        ("create Bill", "the vendor is made inactive") => failed("make it active there and retry"),
        ("create Bill", "the number is typed in by hand") => failed("else give it another number; then retry"),
        ("create Bill", "the books are closed") => failed("open the period there"),
        ("read Vendor", "610") if play == Play::Named => failed("put it back there and retry"),
        _ => None,
    }
}

/// Every blow at every request of a play, and how many cells that is.
async fn plays(play: Play, cells: usize) {
    let (mut ran, mut n) = (0, 0);
    for (at, step) in play.struck() {
        let world = Plan::new().paid_in_quickbooks().start().await;
        // As it goes when nothing goes wrong.
        let cell = Cell::prepare(&world, play, n).await;
        world.system.quickbooks.watch(Vec::new());
        cell.act(&world).await;
        let steps: Vec<_> = world.system.quickbooks.seen().into_iter().map(|seen| seen.step).collect();
        assert_eq!(steps, play.steps(), "{play:?}");
        cell.has_ended_well(&world, "nothing goes wrong").await;
        let nth = play.steps()[..at].iter().filter(|before| **before == step).count();
        for number in 0..blows(step, &cell).len() {
            n += 1;
            let cell = Cell::prepare(&world, play, n).await;
            let (blow, strike) = blows(step, &cell).remove(number);
            let name = format!("{play:?}, request {at}, {step}: {blow}");
            world.system.quickbooks.watch(vec![Strike { step: step.to_owned(), nth, blow: strike }]);
            cell.act(&world).await;
            assert!(world.system.quickbooks.pending().is_empty(), "{name}: nothing was struck");
            if let Some(told) = told(play, step, blow) {
                cell.is_told(&world, &name, told).await;
                cell.mend(&world, told).await;
            }
            cell.has_ended_well(&world, &name).await;
            ran += 1;
        }
        world.audit_holds().await;
    }
    assert_eq!(ran, cells, "{play:?}");
}

#[tokio::test]
async fn a_first_payout_is_one_bill_whatever_befalls_any_request() {
    plays(Play::First, 121).await;
}

#[tokio::test]
async fn a_payout_to_a_named_vendor_is_one_bill_whatever_befalls_any_request() {
    plays(Play::Named, 58).await;
}

#[tokio::test]
async fn a_bill_whose_answer_was_lost_is_found_whatever_befalls_any_request() {
    plays(Play::Found, 36).await;
}

#[tokio::test]
async fn a_payment_is_seen_whatever_befalls_any_request() {
    plays(Play::Paid, 90).await;
}

#[tokio::test]
async fn a_voided_payment_is_seen_whatever_befalls_any_request() {
    plays(Play::Undone, 54).await;
}

#[tokio::test]
async fn a_deleted_bill_is_seen_whatever_befalls_any_request() {
    plays(Play::Deleted, 36).await;
}

#[tokio::test]
async fn a_merged_vendor_is_followed_whatever_befalls_any_request() {
    plays(Play::Merged, 18).await;
}

#[tokio::test]
async fn nights_find_what_nobody_told_whatever_befalls_any_request() {
    plays(Play::Nights, 90).await;
}
