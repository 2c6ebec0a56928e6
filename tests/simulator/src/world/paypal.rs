//! What becomes of payments at PayPal, what people do about them, and what PayPal tells of that.

use bytes::Bytes;
use domain::ids::PayoutId;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::{SignedDuration, Timestamp};
use local::SUBMISSIONS;
use local::events::{http_event, schedule_event};
use paypal_counterpart::{CLIENT_ID, CLIENT_SECRET, Counterpart, Item, WEBHOOK_ID};
use serde_json::{Value, json};
use workflows::Clock;

use super::{Job, Outcome, World, broken, failure, text};
use crate::chance::Chance;
use crate::cloud::Sky;
use crate::remitted::Sent;
use crate::script::has_paypal;
use crate::shop;
use crate::told::{About, Partner};
use crate::way::WayToPaypal;

/// Where the chance of connections begins, and that of partners who are paid through them, which nothing else is decided by.
const ACCOUNTS: u64 = 1 << 44;
const PARTNERS: u64 = 1 << 45;
/// PayPal forgets the name of a batch after so many days.
const KNOWN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Something that PayPal tells a program.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    program: usize,
    headers: HeaderMap,
    body: String,
}

/// How a world is with PayPal.
pub struct Account {
    pub(super) any: bool,
    counterpart: Counterpart,
    pub(super) way: WayToPaypal,
    /// What PayPal has yet to tell; and what was lost, which it tells once more at last.
    unheard: Vec<Notice>,
    lost: Vec<Notice>,
    /// Names of batches, and when they were first seen.
    named: Vec<(String, Timestamp)>,
    /// Whether something was done there since it was last looked at, and whether payments changed since they were audited.
    touched: bool,
    unaudited: bool,
}

impl Account {
    pub(super) fn new(seed: u64, sky: &Sky) -> Self {
        let counterpart = Counterpart::default();
        Self {
            any: has_paypal(seed),
            way: WayToPaypal::new(counterpart.clone(), sky.clone()),
            counterpart,
            unheard: Vec::new(),
            lost: Vec::new(),
            named: Vec::new(),
            touched: false,
            unaudited: false,
        }
    }

    /// Whether payments changed since this was last asked.
    pub(super) fn changed(&mut self) -> bool {
        std::mem::take(&mut self.unaudited)
    }
}

/// What may become of a payment that stands so, and why.
fn possible(status: &str) -> &'static [(u32, &'static str)] {
    match status {
        "PENDING" => &[
            (10, "SUCCESS"),
            (4, "UNCLAIMED"),
            (2, "ONHOLD"),
            (2, "FAILED"),
            (1, "BLOCKED"),
            (1, "DENIED"),
            (1, "CANCELED"),
        ],
        "UNCLAIMED" => &[(4, "SUCCESS"), (3, "RETURNED"), (2, "CANCELED")],
        "ONHOLD" => &[(4, "SUCCESS"), (2, "FAILED"), (2, "BLOCKED"), (1, "REVERSED")],
        "SUCCESS" => &[(1, "REFUNDED"), (1, "REVERSED")],
        _ => &[],
    }
}

impl World {
    // --- Setting up -----------------------------------------------------------------------------------------------

    /// Most programs have PayPal asked; the others' payouts wait for a file.
    pub(super) async fn connect_paypal(&mut self, n: usize) -> Outcome {
        let mut chance = Chance::of(self.seed, ACCOUNTS + n as u64);
        // PayPal pays out in no dinars: a few programs learn so.
        let odds = if self.told.programs[n].currency == "KWD" { 30 } else { 90 };
        if !self.paypal.any || !chance.percent(odds) {
            return Ok(());
        }
        let body = json!({
            "environment": "sandbox", "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "webhookId": WEBHOOK_ID,
        });
        let path = format!("/programs/{}/paypal", self.told.programs[n].id);
        let (status, answer) = self.ask("ann", Method::PUT, &path, &body).await?;
        if status != 200 {
            return Err(broken(format!("{path}: {status} {answer}")));
        }
        self.told.remitted.switched.insert(n, vec![(0, true)]);
        Ok(())
    }

    /// Whether a partner of a program is paid through its connection.
    pub(super) fn paid_by_paypal(&self, n: usize, number: usize) -> bool {
        self.told.remitted.switched.contains_key(&n) && Chance::of(self.seed, PARTNERS + number as u64).percent(75)
    }

    // --- Playing --------------------------------------------------------------------------------------------------

    pub(super) async fn remit(&mut self, chance: &mut Chance) -> Outcome {
        match chance.below(100) {
            0..26 => self.settle_there(chance),
            26..38 => self.notice(chance),
            38..54 => self.deliver_from(chance, SUBMISSIONS).await,
            54..60 => {
                self.publish_range(chance, self.published, self.records.len());
                Ok(())
            }
            60..66 => self.approve(chance),
            66..70 => self.have_paid(chance, "paypal").await,
            70..80 => self.have_sent(chance).await,
            80..84 => {
                self.fire(chance, "batch-payouts");
                Ok(())
            }
            84..90 => self.about_payouts(chance, "retry", &["failed", "returned"]),
            90..92 => self.about_payouts(chance, "mark-failed", &["submitted"]),
            92..94 => self.about_payouts(chance, "void", &["failed", "returned"]),
            94 => {
                self.set_mood(chance);
                Ok(())
            }
            95..97 => self.switch(chance).await,
            _ => self.pretend(chance),
        }
    }

    /// A payout by PayPal is approved in fair weather, so that there is one; it is sent in whatever weather there is.
    async fn have_sent(&mut self, chance: &mut Chance) -> Outcome {
        self.see(chance).await?;
        let may = |partner: &&Partner| {
            let program = &self.told.programs[partner.program];
            let asked = self.told.remitted.switched.contains_key(&partner.program) && program.minimum_sales == 0;
            asked && partner.ways.last().is_some_and(|ways| ways.of("paypal").is_some())
        };
        let possible: Vec<_> = self.told.partners.iter().filter(may).collect();
        let Some(partner) = chance.pick(&possible).map(|partner| (*partner).clone()) else { return Ok(()) };
        let (id, program) = (partner.id.clone(), &self.told.programs[partner.program]);
        let (program_id, exponent) = (program.id.clone(), program.exponent);
        let lines = self.items.lines();
        let own = lines.iter().filter(|line| line["partner"] == id.as_str() && line["state"] == "payable");
        let net = |line: &&&Value| {
            line["amount"].as_i64().unwrap_or_default() - line["takenBack"].as_i64().unwrap_or_default()
        };
        // Whatever is owed besides.
        let amount = chance.from(1, 20_000) - own.map(|line| net(&line)).filter(|net| *net < 0).sum::<i64>();
        let body = json!({
            "partnerId": id, "programId": program_id, "amount": shop::decimal(amount, exponent), "reason": "the seed says so",
        });
        self.telling.amount = Some(amount);
        self.plainly("ann", About::Partners, "bonus", "/commissions", vec![id.clone()], &body).await?;
        let pending = |line: &&Value| line["partner"] == id.as_str() && line["state"] == "pending";
        let ids: Vec<_> =
            self.items.lines().into_iter().filter(pending).take(5).map(|line| text(&line["id"])).collect();
        if !ids.is_empty() {
            self.judge(chance, "approve", ids, false)?;
            self.see(chance).await?;
        }
        let mut body = json!({"partnerId": id, "programId": program_id, "override": "the seed says so"});
        if partner.method() != Some("paypal") {
            body["method"] = json!("paypal");
            self.telling.method = Some("paypal");
        }
        let drafted = self.plainly("cleo", About::Partners, "payouts", "/payouts", vec![id], &body).await?;
        let payout = text(&drafted["id"]);
        for by in ["dora", "eli"] {
            let waiting = self.payouts_in(&["pending"], false);
            let Some(item) = waiting.iter().find(|item| item["id"] == payout.as_str()) else { break };
            let version = item["contentVersion"].as_u64().unwrap_or_default();
            let amount = shop::decimal(item["amount"].as_i64().unwrap_or_default(), exponent);
            let seen = json!({"id": payout, "version": version, "amount": amount, "linesHash": item["linesHash"]});
            self.telling.versions = vec![(payout.clone(), version)];
            let body = json!({"payouts": [seen]});
            self.plainly(by, About::Payouts, "approve", "/payouts/approve", vec![payout.clone()], &body).await?;
        }
        self.publish_range(chance, self.published, self.records.len());
        self.see(chance).await?;
        for _ in 0..2 {
            self.deliver_from(chance, SUBMISSIONS).await?;
        }
        Ok(())
    }

    /// A command in fair weather, and what came of it is seen.
    async fn plainly(
        &mut self,
        by: &str,
        about: About,
        verb: &'static str,
        path: &str,
        ids: Vec<String>,
        body: &Value,
    ) -> Outcome<Value> {
        self.tell_command(by, about, verb, ids, body);
        let (status, answer) = self.ask(by, Method::POST, path, body).await?;
        self.note(|| format!("  {by}: {path} {body}: {status}"));
        self.audit()?;
        Ok(answer)
    }

    /// PayPal settles at once, or later; or has nothing to pay from.
    fn set_mood(&mut self, chance: &mut Chance) {
        let counterpart = &self.paypal.counterpart;
        match chance.below(3) {
            0 => counterpart.settle_at_once("SUCCESS"),
            1 => counterpart.settle_at_once("PENDING"),
            _ => counterpart.settle_at_once("UNCLAIMED"),
        }
    }

    /// Somebody switches a connection off, or on again. Processes know a connection for a minute: these are new ones, and whoever is under
    /// way goes on with what they know.
    async fn switch(&mut self, chance: &mut Chance) -> Outcome {
        let unknown = self.payouts_in(&["submitting"], false);
        let unknown = unknown.iter().any(|payout| payout["method"] == "paypal");
        if unknown && chance.percent(20) {
            // Nobody comes to it for so long that PayPal may know it no more.
            let seconds = chance.from(24 * 86_400, 40 * 86_400);
            self.before_passing(chance, seconds).await?;
            return self.pass(seconds).await;
        }
        let connections = self.told.remitted.switched.iter().map(|(n, switched)| (*n, is_on(switched)));
        let connections: Vec<_> = connections.collect();
        let Some((n, on)) = chance.pick(&connections).copied() else { return Ok(()) };
        let odds = if unknown { 90 } else { 40 };
        if on && !chance.percent(odds) { Ok(()) } else { self.switch_to(n, !on).await }
    }

    /// Whether somebody who looks at PayPal sees a payment of a payout that nobody here knows of: then they leave it as it is.
    pub(super) fn is_seen_there(&self, payout: &Value) -> bool {
        let of = |sent: &Sent| sent.of().is_some_and(|(of, _)| payout["id"] == of);
        let unknown = |batch: &String| payout["processor"] != batch.as_str();
        self.told.remitted.now().any(|(batch, sent)| of(sent) && sent.is_live() && unknown(batch))
    }

    async fn switch_to(&mut self, n: usize, on: bool) -> Outcome {
        let body = json!({"environment": "sandbox", "clientId": CLIENT_ID, "webhookId": WEBHOOK_ID, "enabled": on});
        let path = format!("/programs/{}/paypal", self.told.programs[n].id);
        let (status, answer) = self.ask("ann", Method::PUT, &path, &body).await?;
        self.note(|| format!("  {path} is switched on: {on}: {status}"));
        if status != 200 {
            return Err(broken(format!("{path}: {status} {answer}")));
        }
        self.start_processes();
        // Whoever began before may know of it, or not.
        let tick = self.told.tick + 1;
        self.told.remitted.switched.entry(n).or_default().push((tick, on));
        Ok(())
    }

    /// A payment goes on, or ends, or comes back.
    fn settle_there(&mut self, chance: &mut Chance) -> Outcome {
        let items = self.paypal.counterpart.items();
        let on: Vec<&Item> = items.iter().filter(|item| !possible(&item.transaction_status).is_empty()).collect();
        let Some(item) = chance.pick(&on).copied() else { return Ok(()) };
        if item.transaction_status == "SUCCESS" && chance.percent(60) {
            return Ok(());
        }
        let Some(status) = chance.weighted(possible(&item.transaction_status)) else { return Ok(()) };
        let why = (status == "FAILED").then_some(("RECEIVER_UNREGISTERED", "Receiver is unregistered"));
        let name = item.sender_item_id.clone();
        match self.program_of_payment(&name) {
            Some(program) => self.change_there(&name, program, status, why),
            None => Ok(()),
        }
    }

    fn program_of_payment(&self, name: &str) -> Option<usize> {
        let payout: PayoutId = name.rsplit_once('-')?.0.parse().ok()?;
        let partner = payout.partner().to_string();
        self.told.partners.iter().find(|told| told.id == partner).map(|partner| partner.program)
    }

    /// Payments of these payouts that arrived or may yet: their names and programs, and whether they did.
    fn live_payments(&self, payouts: &[Value]) -> Vec<(String, usize, bool)> {
        let of = |sent: &Sent| payouts.iter().any(|payout| sent.of().is_some_and(|(of, _)| payout["id"] == of));
        let live = self.told.remitted.now().filter(|(_, sent)| sent.is_live() && of(sent));
        let named = |sent: &Sent| Some((sent.name.clone(), self.program_of_payment(&sent.name)?, sent.is_paid()));
        live.filter_map(|(_, sent)| named(sent)).collect()
    }

    fn change_there(&mut self, name: &str, program: usize, status: &str, why: Option<(&str, &str)>) -> Outcome {
        self.note(|| format!("  at PayPal, {name} becomes {status}"));
        let (headers, body) = self.paypal.counterpart.set(name, status, why).ok_or_else(|| broken("no such item"))?;
        self.paypal.touched = true;
        self.paypal.unheard.push(Notice { program, headers, body });
        self.observe_payments();
        Ok(())
    }

    /// Notes how payments are, if anything there may have changed.
    pub(super) fn observe_payments(&mut self) {
        let (wrote, refused) = {
            let mut traffic = self.paypal.way.traffic();
            (std::mem::take(&mut traffic.wrote), std::mem::take(&mut traffic.refused))
        };
        let tick = self.told.tick;
        self.told.remitted.refused.extend(refused.into_iter().map(|body| (tick, body)));
        if !(wrote | std::mem::take(&mut self.paypal.touched)) {
            return;
        }
        for item in self.paypal.counterpart.items() {
            if !self.paypal.named.iter().any(|(name, _)| *name == item.sender_batch_id) {
                self.paypal.named.push((item.sender_batch_id.clone(), self.clock.now()));
            }
            let batch = item.payout_batch_id.clone();
            self.paypal.unaudited |= self.told.remitted.note(&batch, tick, sent(item));
        }
    }

    /// After so many days PayPal knows a name no more.
    pub(super) fn forget_names(&mut self) {
        let now = self.clock.now();
        let (old, kept) = std::mem::take(&mut self.paypal.named).into_iter().partition(|(_, at)| now > *at + KNOWN);
        self.paypal.named = kept;
        for (name, _) in old {
            self.paypal.counterpart.forget(&name);
        }
    }

    // --- Webhooks -------------------------------------------------------------------------------------------------

    /// PayPal tells something: in any order, perhaps again, perhaps never.
    fn notice(&mut self, chance: &mut Chance) -> Outcome {
        if self.paypal.unheard.is_empty() {
            return Ok(());
        }
        let n = chance.below(self.paypal.unheard.len());
        if n > 0 {
            self.sky.weather().note("paypal_overtaken");
        }
        let notice = self.paypal.unheard[n].clone();
        if chance.percent(80) {
            self.paypal.unheard.remove(n);
        } else {
            self.sky.weather().note("paypal_again");
        }
        if chance.percent(15) {
            self.sky.weather().note("paypal_untold");
            self.paypal.lost.push(notice);
            return Ok(());
        }
        self.note(|| format!("  PayPal tells: {}", notice.body));
        let event = self.notice_event(notice.program, &notice.headers, &notice.body)?;
        self.http(chance, Job::Notice(notice), event);
        Ok(())
    }

    fn notice_event(&self, program: usize, headers: &HeaderMap, body: &str) -> Outcome<Value> {
        let uri: Uri = format!("/webhooks/paypal/{}", self.told.programs[program].id).parse().map_err(broken)?;
        Ok(http_event(&Method::POST, &uri, headers, &Bytes::from(body.to_owned()), None))
    }

    /// It was not taken, and is told again.
    pub(super) fn not_noticed(&mut self, notice: Notice) {
        self.paypal.unheard.push(notice);
    }

    /// What is not PayPal's is turned away, whatever it says.
    fn pretend(&mut self, chance: &mut Chance) -> Outcome {
        let connected: Vec<usize> = self.told.remitted.switched.keys().copied().collect();
        let (items, Some(program)) = (self.paypal.counterpart.items(), chance.pick(&connected).copied()) else {
            return Ok(());
        };
        let Some(item) = chance.pick(&items) else { return Ok(()) };
        // As it would be signed if it stood so: then it says something else, or is signed by nobody.
        let (name, status) = (&item.sender_item_id, &item.transaction_status);
        let why = item.error.as_ref().map(|(name, message)| (name.as_str(), message.as_str()));
        let signed = self.paypal.counterpart.set(name, status, why);
        let Some((mut headers, mut body)) = signed else { return Ok(()) };
        match chance.below(3) {
            0 => drop(headers.insert("paypal-transmission-sig", HeaderValue::from_static("AAAA"))),
            1 => drop(headers.remove("paypal-transmission-id")),
            _ => body = body.replacen("\"summary\":\"A", "\"summary\":\"Another", 1),
        }
        self.note(|| format!("  not PayPal's: {body}"));
        let event = self.notice_event(program, &headers, &body)?;
        self.http(chance, Job::Pretended, event);
        Ok(())
    }

    /// Whoever is not PayPal was answered so, while PayPal could be asked.
    pub(super) fn pretended(status: Option<u16>) -> Outcome {
        match status {
            Some(401) | None => Ok(()),
            Some(status) if status == 429 || status >= 500 => Ok(()),
            Some(status) => {
                let what = format!("a delivery that is not PayPal's was answered {status}");
                Err(failure("12: nobody but PayPal is believed about payments", what))
            }
        }
    }

    // --- The end --------------------------------------------------------------------------------------------------

    /// From here on nothing strikes. What PayPal has yet to tell arrives; what was lost is read by and by, or told once more.
    pub(super) async fn put_payments_in_order(&mut self, chance: &mut Chance) -> Outcome {
        let off = self.told.remitted.switched.iter().filter(|(_, switched)| !is_on(switched));
        let off: Vec<usize> = off.map(|(n, _)| *n).collect();
        for n in off {
            self.switch_to(n, true).await?;
        }
        // Some of what was given up arrives all the same, and PayPal tells so, if it did not yet.
        let over = self.payouts_in(&["failed", "returned", "void"], false);
        for (name, program, paid) in self.live_payments(&over) {
            if paid || chance.percent(60) {
                self.change_there(&name, program, "SUCCESS", None)?;
            }
        }
        let mut notices = std::mem::take(&mut self.paypal.unheard);
        notices.append(&mut self.paypal.lost);
        let reads = self.paypal.any && chance.percent(50);
        if reads {
            self.let_be_read(chance).await?;
        }
        // Of payouts that are paid, or were given up, only PayPal tells that they are not.
        let waits: Vec<_> = self.payouts_in(&["submitted", "partially_paid"], false);
        let waits: Vec<_> = waits.iter().map(|payout| text(&payout["id"])).collect();
        for notice in notices {
            if reads && waits.iter().any(|id| notice.body.contains(id)) {
                continue;
            }
            let event = self.notice_event(notice.program, &notice.headers, &notice.body)?;
            let answer = self.api.http(event).await.map_err(broken)?;
            if answer.status.as_u16() != 200 {
                let what = format!("{} to {}", answer.status, notice.body);
                return Err(failure("12: PayPal is believed about payments", what));
            }
        }
        // It may have been told before it was known that PayPal had taken a payout.
        if self.paypal.any && !reads {
            self.let_be_read(chance).await?;
        }
        Ok(())
    }

    /// What is not told is read, at the latest within a day.
    async fn let_be_read(&mut self, chance: &mut Chance) -> Outcome {
        for _ in 0..=24 {
            self.pass(3_600).await?;
            let event = schedule_event("batch-payouts", self.clock.now());
            self.calmly(chance, Job::Schedule, "batch-payouts", event).await?;
            self.collect().await?;
            self.hand_out(chance, SUBMISSIONS).await?;
        }
        self.audit()
    }
}

fn is_on(switched: &[(usize, bool)]) -> bool {
    switched.last().is_some_and(|(_, on)| *on)
}

fn sent(item: Item) -> Sent {
    Sent {
        name: item.sender_batch_id,
        recipient: (item.recipient_type, item.receiver, item.recipient_wallet),
        value: item.value,
        currency: item.currency,
        status: item.transaction_status,
        transaction: item.transaction_id,
    }
}
