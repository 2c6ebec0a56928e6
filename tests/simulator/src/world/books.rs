//! What people do with QuickBooks and in it, and what Intuit tells of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use domain::ids::PayoutId;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::{SignedDuration, Span, Timestamp};
use local::events::{http_event, schedule_event};
use local::{QUICKBOOKS, SUBMISSIONS};
use quickbooks_counterpart::company::{BANK_ACCOUNT, Company, EXPENSE_ACCOUNT, PAYABLE_ACCOUNT, WITHHOLDING_ACCOUNT};
use quickbooks_counterpart::{Counterpart, Settings, Webhook};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tests::sign::intuits;
use workflows::Clock;
use workflows::quickbooks::Pace;

use super::{Job, Outcome, World, broken, failure, text};
use crate::chance::Chance;
use crate::clock::WorldClock;
use crate::cloud::Sky;
use crate::ledgers::{self, Bill, Books};
use crate::script::has_books;
use crate::shop;
use crate::told::{About, Partner, SKEW_SECONDS, exponent};
use crate::way::{Way, WayToPaypal};

/// Where the chance of companies begins, which nothing else is decided by.
const COMPANIES: u64 = 1 << 40;
const PARTNERS: u64 = 1 << 41;
const CURRENCIES: u64 = 1 << 45;
/// Where people come back to from Intuit.
const REDIRECT: &str = "https://payouts.example/api/v1/quickbooks/callback";
const WEBHOOKS: &str = "/webhooks/quickbooks";
/// Intuit tells what changed for thirty days. Somebody sees to it that a night's comparison succeeds before that.
const SEEN_AT_LEAST: SignedDuration = SignedDuration::from_hours(20 * 24);
/// What waits longer than this is asked for again.
const QUEUED: i64 = 31 * 60;

/// How a partner is paid in QuickBooks.
pub struct There {
    /// The vendor that the payout details name.
    pub vendor: Option<String>,
}

/// How a world is with QuickBooks.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Dealings {
    pub(super) any: bool,
    counterpart: Counterpart,
    way: Way,
    pace: Pace,
    /// Companies are connected when somebody thinks of it.
    later: bool,
    /// What Intuit has yet to tell.
    unheard: Vec<Webhook>,
    /// Programs whose accounts are chosen.
    chosen: BTreeSet<usize>,
    compared_at: Timestamp,
    /// Whether something was done in a company since it was last looked at, and whether its books changed since they were audited.
    touched: bool,
    unaudited: bool,
    /// Whether companies know document numbers again, and requests.
    unique: bool,
    remembers: bool,
    /// Whether companies have vendors and Bills in other currencies than their own.
    multicurrency: bool,
}

impl Dealings {
    pub(super) fn new(seed: u64, clock: &WorldClock, sky: &Sky) -> Self {
        let mut chance = Chance::of(seed, COMPANIES);
        let (remembers, unique) = (chance.percent(60), chance.percent(60));
        let settings = Settings {
            limits: false,
            remembers_requests: remembers,
            legacy_webhooks: chance.percent(40),
            ..Settings::default()
        };
        let time = clock.clone();
        let counterpart = Counterpart::new(settings, Arc::new(move || time.now()));
        Self {
            any: has_books(seed),
            way: Way::new(counterpart.clone(), sky.clone(), unique),
            counterpart,
            pace: if chance.percent(50) { Pace::Limited } else { Pace::Unlimited },
            later: chance.percent(20),
            unheard: Vec::new(),
            chosen: BTreeSet::new(),
            compared_at: clock.now(),
            touched: false,
            unaudited: false,
            unique,
            remembers,
            multicurrency: Chance::of(seed, CURRENCIES - 1).percent(70),
        }
    }

    /// Whether companies forget all they were asked. Then one Bill is made because it is one function's at a time; that ends by time, some
    /// minutes after any function would have.
    pub(super) fn forget(&self) -> bool {
        !self.unique && !self.remembers
    }

    /// Whether books changed since this was last asked.
    pub(super) fn changed(&mut self) -> bool {
        std::mem::take(&mut self.unaudited)
    }

    /// The ways out of one process.
    pub(super) fn rails(&self, clock: WorldClock, paypal: &WayToPaypal) -> Arc<workflows::rails::Rails> {
        Arc::new(self.way.rails(clock, self.pace, paypal))
    }
}

fn decimal(minor: i128, exponent: u32) -> Decimal {
    Decimal::from_i128_with_scale(minor, exponent).normalize()
}

impl World {
    fn company<T>(&mut self, realm: &str, act: impl FnOnce(&mut Company, Timestamp) -> T) -> Outcome<T> {
        self.books.touched = true;
        let done = self.books.counterpart.company(realm, act);
        done.ok_or_else(|| broken(format!("there is no company {realm}")))
    }

    /// Notes how companies are, if anything there may have changed.
    pub(super) fn observe(&mut self) {
        let (wrote, refused) = {
            let mut traffic = self.books.way.traffic();
            (std::mem::take(&mut traffic.wrote), std::mem::take(&mut traffic.refused))
        };
        let tick = self.told.tick;
        self.told.ledgers.refused.extend(refused.into_iter().map(|body| (tick, body)));
        if !(wrote | std::mem::take(&mut self.books.touched)) {
            return;
        }
        let realms: BTreeSet<String> = self.told.ledgers.realms.values().cloned().collect();
        for realm in realms {
            let books = self.books.counterpart.company(&realm, |company, _| {
                let all = |entity: &str| company.all(entity).cloned().collect();
                ledgers::read(&company.currency, company.multi_currency, company.books_closed.is_some(), all)
            });
            if let Some(books) = books {
                self.books.unaudited |= self.told.ledgers.note(&realm, tick, books);
            }
        }
    }

    // --- Setting up -----------------------------------------------------------------------------------------------

    pub(super) async fn register(&self) -> Outcome {
        let settings = self.books.counterpart.settings();
        let body = json!({
            "environment": "sandbox", "clientId": settings.client_id, "clientSecret": settings.client_secret,
            "webhookVerifier": settings.verifier, "redirectUri": REDIRECT,
        });
        let (status, answer) = self.ask("ann", Method::PUT, "/quickbooks/app", &body).await?;
        if status == 200 { Ok(()) } else { Err(broken(format!("the registration: {status} {answer}"))) }
    }

    /// The company that a program's payouts are billed in: one of its own, or that of the program before.
    pub(super) async fn open_company(&mut self, n: usize) -> Outcome {
        let mut chance = Chance::of(self.seed, COMPANIES + 1 + n as u64);
        let currency = self.told.programs[n].currency;
        let first = self.told.ledgers.realms.get(&0).cloned();
        let mut money = Chance::of(self.seed, CURRENCIES + n as u64);
        let shared = self.told.programs[0].currency == currency || self.books.multicurrency && money.percent(50);
        let same = n > 0 && shared && chance.percent(60);
        let realm = first.filter(|_| same).unwrap_or_else(|| format!("91300000000001{n:02}"));
        if !self.told.ledgers.realms.values().any(|known| *known == realm) {
            let multicurrency = self.books.multicurrency;
            let elsewhere = chance.percent(4) || multicurrency && self.abroad && money.percent(35);
            self.books.counterpart.open_company(&realm, if elsewhere { "EUR" } else { currency });
            self.told.ledgers.realms.insert(n, realm.clone());
            let unique = self.books.unique;
            let mut people = chance.fork();
            self.company(&realm, |company, now| {
                company.unique_numbers = unique;
                company.multi_currency = multicurrency;
                inhabit(company, &mut people, now);
                if multicurrency {
                    inhabit_elsewhere(company, &mut money, now);
                }
            })?;
        }
        self.told.ledgers.realms.insert(n, realm);
        if chance.percent(10) {
            self.told.ledgers.untaxed.insert(n);
        }
        self.observe();
        if !self.books.later {
            self.connect().await?;
        }
        Ok(())
    }

    /// Whether a partner of a program is paid there, and how, who is paid in this currency.
    pub(super) fn paid_there(&self, n: usize, number: usize, currency: &str) -> Option<There> {
        let mut chance = Chance::of(self.seed, PARTNERS + number as u64);
        if !self.books.any || chance.percent(25) {
            return None;
        }
        let realm = self.told.ledgers.realms.get(&n)?;
        let books = self.told.ledgers.now().find(|(of, _)| *of == realm).map(|(_, books)| books)?;
        // Mostly of the right currency.
        let any = chance.clone().permille(120);
        let fits =
            |vendor: &ledgers::Vendor| vendor.name.starts_with("Supplier") && (any || vendor.currency == currency);
        let suppliers: Vec<_> = books.vendors.iter().filter(|(_, vendor)| fits(vendor)).map(|(id, _)| id).collect();
        let vendor = match chance.below(10) {
            0 | 1 => chance.pick(&suppliers).map(|id| (*id).clone()),
            2 if chance.percent(40) => Some("999".to_owned()),
            _ => None,
        };
        Some(There { vendor })
    }

    fn connection(&self, realm: &str) -> &Value {
        self.items.all().get(&(format!("QBO#{realm}"), "CON".to_owned())).unwrap_or(&Value::Null)
    }

    /// Somebody goes to Intuit, consents, and comes back: of every company that is not connected.
    pub(super) async fn connect(&mut self) -> Outcome {
        self.audit()?;
        let realms: BTreeMap<usize, String> = self.told.ledgers.realms.clone();
        for realm in realms.values().collect::<BTreeSet<_>>() {
            if self.connection(realm)["state"] == "connected" {
                continue;
            }
            let (_, begun) = self.ask("ann", Method::GET, "/quickbooks/connect", &Value::Null).await?;
            let url = text(&begun["url"]);
            let state = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("state=")).unwrap_or_default();
            let code = self.books.counterpart.consent(realm, REDIRECT);
            let path = format!("/quickbooks/callback?code={code}&state={state}&realmId={realm}");
            let (status, answer) = self.ask("ann", Method::GET, &path, &Value::Null).await?;
            self.note(|| format!("  connecting {realm}: {status} {answer}"));
            if status != 200 {
                return Err(broken(format!("connecting {realm}: {status} {answer}")));
            }
            self.audit()?;
        }
        for (n, realm) in realms {
            if self.books.chosen.insert(n) {
                let body = json!({
                    "realmId": realm, "expenseAccount": EXPENSE_ACCOUNT, "payableAccount": PAYABLE_ACCOUNT,
                    "withholdingAccount": (!self.told.ledgers.untaxed.contains(&n)).then_some(WITHHOLDING_ACCOUNT),
                });
                let path = format!("/programs/{}/quickbooks", self.told.programs[n].id);
                let (status, answer) = self.ask("ann", Method::PUT, &path, &body).await?;
                if status != 200 {
                    return Err(broken(format!("{path}: {status} {answer}")));
                }
            }
        }
        Ok(())
    }

    // --- Playing --------------------------------------------------------------------------------------------------

    pub(super) async fn deal(&mut self, chance: &mut Chance) -> Outcome {
        match chance.below(100) {
            0..26 => self.work_there(chance),
            26..38 => self.hear(chance),
            38..53 => self.deliver_from(chance, SUBMISSIONS).await,
            53..64 => self.deliver_from(chance, QUICKBOOKS).await,
            64..70 => {
                self.publish_range(chance, self.published, self.records.len());
                Ok(())
            }
            70..77 => self.approve(chance),
            77..85 => self.have_paid(chance, "quickbooks").await,
            85..88 => {
                self.fire(chance, "reconcile");
                Ok(())
            }
            88..92 => self.about_payouts(chance, "retry", &["failed"]),
            92..94 => self.about_payouts(chance, "void", &["failed"]),
            94..97 => self.interrupt(chance).await,
            _ => self.forge(chance),
        }
    }

    /// Somebody who is paid so is given something, and a payout of it.
    pub(super) async fn have_paid(&mut self, chance: &mut Chance, method: &str) -> Outcome {
        let has = |partner: &&Partner| partner.ways.last().is_some_and(|ways| ways.of(method).is_some());
        let there: Vec<_> = self.told.partners.iter().filter(has).collect();
        let Some(partner) = chance.pick(&there).map(|partner| (*partner).clone()) else { return Ok(()) };
        let program = &self.told.programs[partner.program];
        let amount = chance.from(1, 20_000);
        let mut body = json!({"partnerId": partner.id, "programId": program.id});
        body["amount"] = json!(shop::decimal(amount, program.exponent));
        body["reason"] = json!("the seed says so");
        let mut request = json!({"partnerId": partner.id, "programId": program.id, "override": "the seed says so"});
        self.telling.amount = Some(amount);
        self.command(chance, About::Partners, "bonus", "/commissions", vec![partner.id.clone()], &body)?;
        self.see(chance).await?;
        let pending = |line: &&Value| line["partner"] == partner.id.as_str() && line["state"] == "pending";
        let ids: Vec<_> =
            self.items.lines().into_iter().filter(pending).take(5).map(|line| text(&line["id"])).collect();
        if !ids.is_empty() {
            self.judge(chance, "approve", ids, false)?;
            self.see(chance).await?;
        }
        if let Some(way) = partner.ways.last().and_then(|ways| ways.of(method)).filter(|way| !way.preferred) {
            request["method"] = json!(way.kind);
            self.telling.method = Some(way.kind);
        }
        self.command(chance, About::Partners, "payouts", "/payouts", vec![partner.id], &request)?;
        self.see(chance).await?;
        for _ in 0..2 {
            self.approve(chance)?;
            self.see(chance).await?;
        }
        self.publish_range(chance, self.published, self.records.len());
        self.see(chance).await?;
        for _ in 0..2 {
            self.deliver_from(chance, SUBMISSIONS).await?;
        }
        Ok(())
    }

    /// What was begun comes to its end, and is seen.
    pub(super) async fn see(&mut self, chance: &mut Chance) -> Outcome {
        self.take_turns(chance, usize::MAX).await?;
        self.audit()
    }

    /// What happens to connections.
    async fn interrupt(&mut self, chance: &mut Chance) -> Outcome {
        let realms: Vec<String> = self.told.ledgers.realms.values().cloned().collect();
        let Some(realm) = chance.pick(&realms).cloned() else { return Ok(()) };
        match chance.below(10) {
            0 => {
                let path = format!("/quickbooks/connections/{realm}/disconnect");
                let (status, answer) = self.ask("ann", Method::POST, &path, &Value::Null).await?;
                self.note(|| format!("  {path}: {status} {answer}"));
            }
            1 => self.books.counterpart.revoke_all(),
            2..5 => self.books.counterpart.expire_all(),
            _ => self.connect().await?,
        }
        Ok(())
    }

    /// Somebody sits before a company's books.
    fn work_there(&mut self, chance: &mut Chance) -> Outcome {
        let all: Vec<(String, Books)> =
            self.told.ledgers.now().map(|(realm, books)| (realm.clone(), books.clone())).collect();
        let Some((realm, books)) = chance.pick(&all) else { return Ok(()) };
        let ours: Vec<(&String, &Bill)> = books.bills.iter().filter(|(_, bill)| bill.payout().is_some()).collect();
        let what = chance.below(20);
        let bill = chance.pick(&ours).map(|(id, bill)| ((*id).clone(), (*bill).clone()));
        let digits = bill.as_ref().map_or(0, |(_, bill)| exponent(&bill.currency));
        let vendors: Vec<&String> = books.vendors.keys().collect();
        let vendor = chance.pick(&vendors).map(|id| (*id).clone());
        let part = chance.number();
        let done = match (what, bill, vendor) {
            (0, Some((id, bill)), _) if part % 100 < 60 && bill.open > 0 => {
                let kind = if (part >> 8).is_multiple_of(2) { "VendorCredit" } else { "JournalEntry" };
                let credit = 1 + i128::from(part >> 10) % bill.open;
                let cash = if (part >> 9).is_multiple_of(2) { bill.open - credit } else { 0 };
                let settled = self.company(realm, |company, now| {
                    let owed = company.owe(kind, &bill.vendor, decimal(credit, digits), now);
                    company.settle(&id, decimal(cash, digits), (kind, &owed, decimal(credit, digits)), now)
                })?;
                format!("pays {cash} of Bill {id}, and {credit} by {kind}: {settled:?}")
            }
            (0, Some((_, bill)), _) => {
                let of_vendor = books.bills.iter().filter(|(_, other)| other.vendor == bill.vendor);
                let open: Vec<_> =
                    of_vendor.map(|(id, bill)| (id.clone(), bill.open)).filter(|(_, open)| *open > 0).collect();
                let paid = self.company(realm, |company, now| pay_all(company, &bill.vendor, &open, digits, now))?;
                format!("pays {open:?} at once: {paid}")
            }
            (1..9, Some((id, bill)), _) => {
                let open = bill.open;
                let all = open <= 1 || part % 100 < 55;
                let amount = (!all).then(|| decimal(1 + i128::from(part >> 8) % (open - 1).max(1), digits));
                let paid = self.company(realm, |company, now| company.pay(&id, amount, now))?;
                format!("pays {amount:?} of Bill {id}: {paid:?}")
            }
            (9..11, Some((_, bill)), _) => {
                let Some((payment, ..)) = Chance::new(part).pick(&bill.payments) else { return Ok(()) };
                let void = part % 100 < 60;
                let done = self.company(realm, |company, now| {
                    if void { company.void_payment(payment, now) } else { delete_payment(company, payment, now) }
                })?;
                format!("takes back payment {payment}, void {void}: {done}")
            }
            (11, Some((id, _)), _) => {
                let done = self.company(realm, |company, now| company.delete_bill(&id, now))?;
                format!("deletes Bill {id}: {done}")
            }
            (12..14, Some((id, bill)), _) => {
                let first = self.told.ledgers.first(realm, &id).map_or(bill.total, |first| first.total);
                let to = match part % 10 {
                    _ if bill.total != first => first,
                    0..4 => 0,
                    4 => bill.total - 1,
                    _ => bill.total + 1 + i128::from(part >> 8) % 1_000,
                };
                let done = self.company(realm, |company, now| company.edit_bill(&id, decimal(to, digits), now))?;
                format!("edits Bill {id} to {to}: {done}")
            }
            (14, _, Some(from)) => {
                let Some(into) = chance.pick(&vendors).map(|id| (*id).clone()) else { return Ok(()) };
                let done = self.company(realm, |company, now| company.merge_vendors(&from, &into, now))?;
                if done {
                    self.told.ledgers.merged.push((realm.clone(), from.clone(), into.clone()));
                }
                format!("merges vendor {from} into {into}: {done}")
            }
            (15..17, _, Some(id)) => {
                // What was made inactive is mostly made active again.
                let inactive = books.vendors.iter().find(|(_, vendor)| !vendor.active).map(|(id, _)| id.clone());
                if let Some(id) = inactive.filter(|_| part % 100 < 70) {
                    let done = self.company(realm, |company, now| reactivate(company, &id, now))?;
                    format!("makes vendor {id} active again: {done}")
                } else {
                    let done = self.company(realm, |company, now| company.deactivate(&id, now))?;
                    format!("makes vendor {id} inactive: {done}")
                }
            }
            (17..19, _, Some(vendor)) => self.bill_by_hand(chance, realm, &vendor, &books.vendors[&vendor].currency)?,
            // It is noticed when the company is compared, or connected again.
            (19, ..) if !books.multicurrency && (part >> 16) % 100 < 40 => {
                self.company(realm, |company, _| company.multi_currency = true)?;
                "switches on multicurrency".to_owned()
            }
            (19, ..) => {
                let back = Span::new().days(i64::try_from(part % 40).unwrap_or_default());
                let reopens = books.closed || part % 100 < 30;
                self.company(realm, |company, now| {
                    let day = now.to_zoned(jiff::tz::TimeZone::UTC).date().checked_sub(back).ok();
                    company.books_closed = day.filter(|_| !reopens);
                    format!("closes the books: {:?}", company.books_closed)
                })?
            }
            _ => return Ok(()),
        };
        self.note(|| format!("  in {realm}, somebody {done}"));
        self.observe();
        Ok(())
    }

    /// Somebody makes a Bill: under a payout's number without its mark, or with its mark and another number.
    fn bill_by_hand(&mut self, chance: &mut Chance, realm: &str, vendor: &str, currency: &str) -> Outcome<String> {
        let digits = exponent(currency);
        let marked = chance.percent(50);
        let payouts = self.payouts_in(&["pending", "approved", "submitting"], marked);
        let Some(payout) = chance.pick(&payouts).map(|payout| text(&payout["id"])) else {
            return Ok("looks".to_owned());
        };
        self.orders += 1;
        let number = if marked {
            format!("BY-HAND-{}", self.orders)
        } else {
            payout.parse::<PayoutId>().map_err(broken)?.number()
        };
        let body = json!({
            "VendorRef": {"value": vendor}, "DocNumber": number, "CurrencyRef": {"value": currency},
            "PrivateNote": if marked { format!("typed in [{payout}]") } else { "typed in".to_owned() },
            "Line": [{
                "Amount": decimal(chance.from(1, 5_000).into(), digits).to_string(), "DetailType": "AccountBasedExpenseLineDetail",
                "AccountBasedExpenseLineDetail": {"AccountRef": {"value": EXPENSE_ACCOUNT}},
            }],
        });
        let made = self.company(realm, |company, now| company.write("bill", &body, None, None, now))?;
        if let Ok(made) = &made {
            self.told.ledgers.by_hand.insert((realm.to_owned(), text(&made["Bill"]["Id"])));
        }
        Ok(format!("makes a Bill {number} for {payout}: {made:?}"))
    }

    // --- Webhooks -------------------------------------------------------------------------------------------------

    /// Intuit tells something: in any order, perhaps again, perhaps never.
    fn hear(&mut self, chance: &mut Chance) -> Outcome {
        self.books.unheard.extend(self.books.counterpart.webhooks(1 + chance.below(6)));
        if self.books.unheard.is_empty() {
            return Ok(());
        }
        let n = chance.below(self.books.unheard.len());
        if n > 0 {
            self.sky.weather().note("webhook_overtaken");
        }
        let webhook = self.books.unheard[n].clone();
        if chance.percent(80) {
            self.books.unheard.remove(n);
        } else {
            self.sky.weather().note("webhook_again");
        }
        if chance.percent(12) {
            self.sky.weather().note("webhook_lost");
            return Ok(());
        }
        self.note(|| format!("  {}", webhook.body));
        let event = webhook_event(&webhook.body, &webhook.signature)?;
        self.http(chance, Job::Webhook(webhook), event);
        Ok(())
    }

    /// A delivery was not taken.
    pub(super) fn not_heard(&mut self, webhook: Webhook) {
        self.books.unheard.push(webhook);
    }

    /// What is not Intuit's is turned away; what is signed and untrue, or no event, is taken and moves nothing.
    fn forge(&mut self, chance: &mut Chance) -> Outcome {
        let verifier = self.books.counterpart.settings().verifier;
        let all: Vec<_> = self
            .told
            .ledgers
            .now()
            .flat_map(|(realm, books)| books.bills.iter().map(move |(id, bill)| (realm, id, bill)))
            .collect();
        let body = match chance.pick(&all) {
            Some((realm, id, bill)) => {
                let payment = bill.payments.first().map(|(id, ..)| id);
                let (name, id) = payment.filter(|_| part_of(chance)).map_or(("Bill", *id), |id| ("BillPayment", id));
                let operation = *chance.pick(&["Delete", "Void", "Update", "Create"]).unwrap_or(&"Delete");
                let entity = json!({"name": name, "id": id, "operation": operation, "lastUpdated": self.clock.now().to_string()});
                json!({"eventNotifications": [{"realmId": realm, "dataChangeEvent": {"entities": [entity]}}]})
            }
            None => json!({"eventNotifications": []}),
        };
        // However it is written, the signature is of these very bytes.
        let pretty = serde_json::to_string_pretty(&body).map_err(broken)?;
        let (body, signature, expected) = match chance.below(6) {
            0 => (body.to_string(), intuits("another verifier", &body.to_string()), 401),
            1 => (pretty, intuits(&verifier, &body.to_string()), 401),
            2 => (body.to_string(), String::new(), 401),
            3 => ("{\"no\": \"event\"}".to_owned(), intuits(&verifier, "{\"no\": \"event\"}"), 200),
            _ => (pretty.clone(), intuits(&verifier, &pretty), 200),
        };
        self.note(|| format!("  forged, to be answered {expected}: {body}"));
        let event = webhook_event(&body, &signature)?;
        self.http(chance, Job::Look(WEBHOOKS.to_owned(), expected), event);
        Ok(())
    }

    // --- Nights, and the end --------------------------------------------------------------------------------------

    /// Before so much time passes that Intuit would not tell any more what changed before it, somebody has companies compared.
    pub(super) async fn before_long(&mut self, chance: &mut Chance, seconds: i64) -> Outcome {
        let then = self.clock.now() + SignedDuration::from_secs(seconds);
        if !self.books.any || then < self.books.compared_at + SEEN_AT_LEAST {
            return Ok(());
        }
        self.take_turns(chance, usize::MAX).await?;
        for _ in 0..3 {
            // Whoever was killed while renewing tokens holds the lease for a minute.
            self.pass(60 + 2 * SKEW_SECONDS).await?;
            self.connect().await?;
            let begun = self.clock.now();
            self.compare(chance).await?;
            // What waits for its turn has it.
            self.pass(60 + 2 * SKEW_SECONDS).await?;
            self.collect().await?;
            self.hand_out(chance, SUBMISSIONS).await?;
            let seen = |realm: &String| {
                text(&self.connection(realm)["seenUntil"])
                    .parse()
                    .is_ok_and(|at: Timestamp| at >= begun - SignedDuration::from_mins(15))
            };
            if self.told.ledgers.realms.values().all(seen) {
                break;
            }
        }
        Ok(())
    }

    /// Companies are compared, and nothing comes in between.
    pub(super) async fn compare(&mut self, chance: &mut Chance) -> Outcome {
        let event = schedule_event("reconcile", self.clock.now());
        self.calmly(chance, Job::Schedule, "reconcile", event).await?;
        self.books.compared_at = self.clock.now();
        self.audit()
    }

    /// From here on nothing strikes: whatever waited for its turn or for a connection goes on. Of what Intuit has to tell, half arrives.
    pub(super) async fn put_in_order(&mut self, chance: &mut Chance) -> Outcome {
        self.pass(QUEUED + 2 * SKEW_SECONDS).await?;
        self.connect().await?;
        self.renew_at_once(chance).await?;
        let mut unheard = std::mem::take(&mut self.books.unheard);
        unheard.extend(self.books.counterpart.webhooks(3));
        for webhook in unheard {
            if chance.percent(50) {
                let event = webhook_event(&webhook.body, &webhook.signature)?;
                self.api.http(event).await.map_err(broken)?;
            }
        }
        Ok(())
    }

    /// Several processes find their tokens ended at the same moment. One renews them, all go on, and nobody is locked out.
    async fn renew_at_once(&mut self, chance: &mut Chance) -> Outcome {
        for round in 0..3 {
            self.books.counterpart.expire_all();
            // Leases are by clocks, so these agree: first three at once, then another that has to take what they left.
            for n in [0, 0, 0, 1] {
                let event = schedule_event("reconcile", self.clock.now());
                if n > 0 {
                    self.take_turns(chance, usize::MAX).await?;
                }
                self.start_calmly(chance, n, Job::Schedule, "reconcile", event);
            }
            self.take_turns(chance, usize::MAX).await?;
            self.audit()?;
            // Tokens that were given out and lost in bad weather are missed now, and by nobody after that.
            if round == 0 {
                self.connect().await?;
                continue;
            }
            for realm in self.told.ledgers.realms.values() {
                let connection = self.connection(realm);
                if connection["state"] != "connected" {
                    let what = format!("{realm} is lost by renewing tokens in fair weather: {connection}");
                    return Err(failure("10: a connection is lost only where somebody ends it", what));
                }
            }
        }
        Ok(())
    }

    /// Whether somebody renews tokens, or was killed while they did: others wait in vain for a while.
    pub(super) fn renews_tokens(&self) -> bool {
        let until = |item: &Value| text(&item["until"]).parse::<Timestamp>().ok();
        let leases = self.items.all().iter().filter(|((pk, sk), _)| pk.starts_with("QBO#") && sk == "LEASE");
        leases.into_iter().any(|(_, lease)| until(lease).is_some_and(|until| until > self.clock.now()))
    }
}

fn part_of(chance: &mut Chance) -> bool {
    chance.percent(50)
}

fn webhook_event(body: &str, signature: &str) -> Outcome<Value> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("intuit-signature", signature.parse().map_err(broken)?);
    Ok(http_event(&Method::POST, &Uri::from_static(WEBHOOKS), &headers, &Bytes::from(body.to_owned()), None))
}

/// Who is in a company before anybody here is: some have the names of partners.
fn inhabit(company: &mut Company, chance: &mut Chance, now: Timestamp) {
    for number in 0..6 {
        let name = format!("Partner {number}");
        let (entity, body) = match chance.below(8) {
            0 => ("customer", json!({"DisplayName": name})),
            1 => ("vendor", json!({"DisplayName": name})),
            2 => ("vendor", json!({"DisplayName": name, "PrimaryEmailAddr": {"Address": "somebody@else.example"}})),
            3 => ("employee", json!({"DisplayName": name})),
            _ => ("vendor", json!({"DisplayName": format!("Supplier {number}")})),
        };
        // Nobody has these names yet.
        let _ = company.write(entity, &body, None, None, now);
    }
}

/// Some are paid in other currencies, and may have the names of partners, with the currency or without.
fn inhabit_elsewhere(company: &mut Company, chance: &mut Chance, now: Timestamp) {
    for number in 0..6 {
        let currency = *chance.pick(&["EUR", "JPY", "KWD", "USD"]).unwrap_or(&"EUR");
        let name = match chance.below(6) {
            0 => format!("Partner {number} {currency}"),
            1 => format!("Partner {}", number + 1),
            _ => format!("Supplier {number} {currency}"),
        };
        // Perhaps somebody has the name.
        let _ =
            company.write("vendor", &json!({"DisplayName": name, "CurrencyRef": {"value": currency}}), None, None, now);
    }
}

fn delete_payment(company: &mut Company, id: &str, now: Timestamp) -> bool {
    let token = company.all("BillPayment").find(|payment| payment["Id"] == id).map(|one| one["SyncToken"].clone());
    let body = json!({"Id": id, "SyncToken": token});
    company.write("billpayment", &body, Some("delete"), None, now).is_ok()
}

/// One payment of several Bills of a vendor.
fn pay_all(company: &mut Company, vendor: &str, open: &[(String, i128)], digits: u32, now: Timestamp) -> bool {
    let line = |(bill, amount): &(String, i128)| {
        let linked = json!([{"TxnId": bill, "TxnType": "Bill"}]);
        json!({"Amount": decimal(*amount, digits).to_string(), "LinkedTxn": linked})
    };
    let total: i128 = open.iter().map(|(_, amount)| amount).sum();
    let body = json!({
        "VendorRef": {"value": vendor}, "PayType": "Check", "TotalAmt": decimal(total, digits).to_string(),
        "CheckPayment": {"BankAccountRef": {"value": BANK_ACCOUNT}}, "Line": open.iter().map(line).collect::<Vec<_>>(),
    });
    !open.is_empty() && company.write("billpayment", &body, None, None, now).is_ok()
}

fn reactivate(company: &mut Company, id: &str, now: Timestamp) -> bool {
    let Some(vendor) = company.all("Vendor").find(|vendor| vendor["Id"] == id).cloned() else { return false };
    let name = text(&vendor["DisplayName"]);
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    let body = json!({"Id": id, "SyncToken": vendor["SyncToken"], "sparse": true, "Active": true, "DisplayName": name});
    company.write("vendor", &body, None, None, now).is_ok()
}
