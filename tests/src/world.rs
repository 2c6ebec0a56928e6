//! A running system with a program and a partner, and what happens in it.

use std::sync::{Arc, Barrier};

use http::Uri;
use local::{Failed, HttpAnswer, System};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use workflows::Clock;

use crate::contract::Contract;
use crate::request::{Reply, Request, Who};
use crate::sign::Connection;
use crate::{ADMIN, SECOND_ADMIN};

#[derive(Debug, Clone)]
pub struct World {
    pub system: Arc<System>,
    /// The first program, and its first partner.
    pub program: String,
    pub partner: String,
}

/// The buckets of a balance, in the order a commission passes them.
const BUCKETS: [&str; 8] = ["pending", "approved", "payable", "held", "inPayout", "paid", "reversed", "rejected"];

impl World {
    /// Sends a request as it is.
    pub async fn send(&self, request: Request) -> Reply {
        answer(&self.system, &request).await.unwrap()
    }

    /// The same where the function may crash; `None` if it did.
    pub async fn try_send(&self, request: Request) -> Option<Reply> {
        answer(&self.system, &request).await.ok()
    }

    /// Sends requests at the same moment, each from a thread of its own. Needs a multi-threaded runtime.
    pub async fn together(&self, requests: Vec<Request>) -> Vec<Reply> {
        let barrier = Arc::new(Barrier::new(requests.len()));
        let threads: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let (system, barrier) = (Arc::clone(&self.system), Arc::clone(&barrier));
                tokio::task::spawn_blocking(move || {
                    barrier.wait();
                    Handle::current().block_on(answer(&system, &request)).unwrap()
                })
            })
            .collect();
        let mut replies = Vec::with_capacity(threads.len());
        for thread in threads {
            replies.push(thread.await.unwrap());
        }
        replies
    }

    pub async fn token(&self, who: Who<'_>) -> String {
        self.system.token(who.role, who.subject, None).await.unwrap()
    }

    /// The partner signs in, under their id as subject.
    pub async fn partner_signs_in<'a>(&self, partner: &'a str) -> Who<'a> {
        self.system.token("partner", partner, Some(partner)).await.unwrap();
        Who::new("partner", partner)
    }

    pub async fn by(&self, who: Who<'_>, request: Request) -> Request {
        request.token(&self.token(who).await)
    }

    pub async fn get(&self, who: Who<'_>, path: &str) -> Reply {
        self.send(self.by(who, Request::get(path)).await).await
    }

    pub async fn post(&self, who: Who<'_>, path: &str, body: &Value) -> Reply {
        self.send(self.by(who, Request::post(path, body)).await).await
    }

    /// Everything a list has, page by page.
    pub async fn all(&self, who: Who<'_>, path: &str) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(who, &format!("{path}{cursor}")).await.ok();
            found.extend(page["data"].as_array().unwrap().iter().cloned());
            let Some(next) = page["nextCursor"].as_str() else { return found };
            cursor = format!("{separator}cursor={next}");
        }
    }

    // --- Time -----------------------------------------------------------------------------------------------------

    /// Moves the clock on by a span like `30d`. Nothing fires by it.
    pub fn pass(&self, span: &str) {
        self.system.clock.advance(span).unwrap();
    }

    pub fn clock_at(&self, now: &str) {
        self.system.clock.set(now.parse().unwrap()).unwrap();
    }

    pub async fn settle(&self) {
        self.system.settle().await.unwrap();
    }

    pub async fn fire(&self, schedule: &str) -> Value {
        self.system.fire(schedule).await.unwrap()
    }

    /// What the two schedules do at this moment, to its end.
    pub async fn tick(&self) {
        self.fire("mature-commissions").await;
        self.fire("batch-payouts").await;
        self.settle().await;
    }

    // --- Conversions ----------------------------------------------------------------------------------------------

    /// An event of ours with everything filled in that it does not say: program, moment, partner, currency.
    pub fn event(&self, mut event: Value) -> Value {
        let fields = event.as_object_mut().unwrap();
        fields.entry("programId").or_insert_with(|| json!(self.program));
        fields.entry("occurredAt").or_insert_with(|| json!(self.system.clock.now()));
        if fields["type"] == "sale" {
            fields.entry("partner").or_insert_with(|| json!({"id": self.partner}));
        }
        fields["amount"].as_object_mut().unwrap().entry("currency").or_insert_with(|| json!("USD"));
        event
    }

    pub fn sale_event(&self, order: &str, total: &str) -> Value {
        self.event(json!({"id": order, "type": "sale", "amount": {"total": total}}))
    }

    pub fn refund_event(&self, refund: &str, order: &str, total: &str) -> Value {
        self.event(json!({"id": refund, "type": "refund", "conversion": order, "amount": {"total": total}}))
    }

    /// Reports an event by the API, whatever comes of it.
    pub async fn report(&self, event: &Value) -> Reply {
        self.post(ADMIN, "/conversions", event).await
    }

    /// A sale of this total, without tax and shipping. What it did: `applied`, `already_applied`, ...
    pub async fn sale(&self, order: &str, total: &str) -> String {
        outcome(&self.report(&self.sale_event(order, total)).await.ok())
    }

    pub async fn refund(&self, refund: &str, order: &str, total: &str) -> String {
        outcome(&self.report(&self.refund_event(refund, order, total)).await.ok())
    }

    // --- Storefronts ----------------------------------------------------------------------------------------------

    /// A connection to a storefront of this kind; a secret is made up where none is given.
    pub async fn connect(&self, kind: &'static str, secret: Option<&str>) -> Connection {
        let source = json!({"programId": self.program, "kind": kind, "name": "Shop", "secret": secret});
        let made = self.post(ADMIN, "/sources", &source).await.ok();
        Connection { id: text(&made["id"]), kind, secret: text(&made["secret"]) }
    }

    /// Posts a signed delivery and lets it be worked off.
    pub async fn deliver(&self, from: &Connection, topic: &str, body: &str) {
        let reply = self.send(from.delivery(topic, body)).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, ""), "{} {topic}", from.kind);
        self.settle().await;
    }

    // --- What came of it ------------------------------------------------------------------------------------------

    /// The sums of the partner's balance that are not zero, in minor units.
    pub async fn buckets(&self) -> Vec<(&'static str, i64)> {
        self.buckets_of(&self.partner).await
    }

    pub async fn buckets_of(&self, partner: &str) -> Vec<(&'static str, i64)> {
        let balance = self.balance_of(partner).await;
        let sums = BUCKETS.iter().map(|bucket| (*bucket, balance[bucket]["minor"].as_i64().unwrap()));
        sums.filter(|(_, sum)| *sum != 0).collect()
    }

    pub async fn balance(&self) -> Value {
        self.balance_of(&self.partner).await
    }

    pub async fn balance_of(&self, partner: &str) -> Value {
        self.get(ADMIN, &format!("/balances?partnerId={partner}")).await.ok()["data"][0].clone()
    }

    /// The reasons why the partner's money is not paid yet.
    pub async fn unpaid_because(&self) -> Vec<(String, i64)> {
        let balance = self.balance().await;
        let reasons = balance["notPayableBecause"].as_array().unwrap().iter();
        reasons.map(|reason| (text(&reason["code"]), reason["amount"]["minor"].as_i64().unwrap())).collect()
    }

    /// All commissions of the partner, oldest first.
    pub async fn lines(&self) -> Vec<Value> {
        let mut lines = self.all(ADMIN, &format!("/commissions?partnerId={}&limit=100", self.partner)).await;
        lines.reverse();
        lines
    }

    /// The commissions of one order.
    pub async fn lines_of(&self, order: &str) -> Vec<Value> {
        self.lines().await.into_iter().filter(|line| line["orderId"] == order).collect()
    }

    /// The one commission of an order.
    pub async fn line_of(&self, order: &str) -> Value {
        let mut lines = self.lines_of(order).await;
        lines.retain(|line| line["kind"] == "commission");
        assert_eq!(lines.len(), 1, "{order}");
        lines.remove(0)
    }

    pub async fn line_id(&self, order: &str) -> String {
        text(&self.line_of(order).await["id"])
    }

    /// The states and nets of an order's lines, as `("payable", 1000)`.
    pub async fn states_of(&self, order: &str) -> Vec<(String, i64)> {
        let lines = self.lines_of(order).await;
        lines.iter().map(|line| (text(&line["state"]), line["net"]["minor"].as_i64().unwrap())).collect()
    }

    pub async fn exceptions(&self) -> Vec<Value> {
        self.all(ADMIN, "/exceptions?status=open").await
    }

    /// The codes of open exceptions, newest first.
    pub async fn exception_codes(&self) -> Vec<String> {
        self.exceptions().await.iter().map(|exception| text(&exception["code"])).collect()
    }

    // --- Review and payouts ---------------------------------------------------------------------------------------

    /// One verdict about some commissions.
    pub async fn review(&self, who: Who<'_>, verdict: &str, ids: &[&str]) -> Reply {
        self.post(who, &format!("/commissions/{verdict}"), &json!({"ids": ids, "reason": "test"})).await
    }

    /// A verdict that must be taken for every one of them.
    pub async fn reviewed(&self, verdict: &str, ids: &[&str]) {
        let reply = self.review(crate::REVIEWER, verdict, ids).await;
        assert!(result_codes(&reply).iter().all(|code| *code == 200), "{verdict}: {}", reply.text);
    }

    /// Asks for everything payable, and returns the payout.
    pub async fn request_payout(&self) -> Value {
        self.request_payout_with(&json!({})).await.ok()
    }

    pub async fn request_payout_with(&self, fields: &Value) -> Reply {
        self.post(ADMIN, "/payouts", &self.payout_request(fields)).await
    }

    pub fn payout_request(&self, fields: &Value) -> Value {
        let mut request = json!({"partnerId": self.partner, "programId": self.program});
        for (name, value) in fields.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    }

    /// The partner's payouts, newest first.
    pub async fn payouts(&self) -> Vec<Value> {
        self.all(ADMIN, &format!("/payouts?partnerId={}", self.partner)).await
    }

    /// The only payout there is.
    pub async fn only_payout(&self) -> Value {
        let mut payouts = self.payouts().await;
        assert_eq!(payouts.len(), 1, "{payouts:?}");
        payouts.remove(0)
    }

    pub async fn payout(&self, id: &Value) -> Value {
        self.get(ADMIN, &format!("/payouts/{}", text(id))).await.ok()
    }

    /// State, amount in minor units, version, and number of approvals.
    pub async fn payout_stands(&self, id: &Value) -> (String, i64, u64, usize) {
        let payout = self.payout(id).await;
        (
            text(&payout["state"]),
            payout["amount"]["minor"].as_i64().unwrap(),
            payout["version"].as_u64().unwrap(),
            payout["approvals"].as_array().unwrap().len(),
        )
    }

    /// A call about one payout like `cancel` or `mark-paid`; what became of it.
    pub async fn payout_call(&self, who: Who<'_>, call: &str, id: &Value, fields: &Value) -> u16 {
        let mut one = json!({"id": id});
        for (name, value) in fields.as_object().unwrap() {
            one[name] = value.clone();
        }
        result_codes(&self.post(who, &format!("/payouts/{call}"), &json!({"payouts": [one]})).await)[0]
    }

    /// Takes commissions out of a payout; what became of each.
    pub async fn exclude(&self, who: Who<'_>, id: &Value, lines: &[&str]) -> Vec<u16> {
        let asked = json!({"id": id, "commissionIds": lines, "reason": "test"});
        result_codes(&self.post(who, "/payouts/exclude", &asked).await)
    }

    /// Gives the partner other payout methods.
    pub async fn change_methods(&self, who: Who<'_>, methods: &Value) {
        let change = Request::patch(&format!("/partners/{}", self.partner), &json!({"payoutMethods": methods}));
        self.send(self.by(who, change).await).await.ok();
    }

    /// One person's approval of what they see now.
    pub async fn approve_payout(&self, who: Who<'_>, id: &Value) -> u16 {
        let payout = self.payout(id).await;
        let seen = json!({"version": payout["version"], "amount": payout["amount"]["amount"], "linesHash": payout["linesHash"]});
        self.payout_call(who, "approve", id, &seen).await
    }

    /// Approves a payout by as many people as it takes, and marks it paid.
    pub async fn pay(&self, id: &Value) {
        for who in [ADMIN, SECOND_ADMIN] {
            if self.payout(id).await["state"] == "pending" {
                assert_eq!(self.approve_payout(who, id).await, 200);
            }
        }
        assert_eq!(self.payout_call(ADMIN, "mark-paid", id, &json!({"reference": "wire 1"})).await, 200);
        assert_eq!(self.payout(id).await["state"], "paid");
    }

    /// Asks for everything payable and pays it.
    pub async fn pay_everything(&self) -> Value {
        let id = self.request_payout().await["id"].clone();
        self.pay(&id).await;
        id
    }

    // --- Invariants -----------------------------------------------------------------------------------------------

    /// Recomputes every invariant from what is stored, and checks that each unpaid cent of each partner has a reason.
    pub async fn audit_holds(&self) {
        let invariants = workflows::audit::audit(&self.system.context.store).await.unwrap();
        let broken: Vec<_> = invariants.iter().filter(|invariant| !invariant.holds).collect();
        assert!(broken.is_empty(), "{broken:#?}");
        for program in self.all(ADMIN, "/programs").await {
            let balances = self.all(ADMIN, &format!("/balances?programId={}", text(&program["id"]))).await;
            balances.iter().for_each(every_unpaid_cent_has_a_reason);
        }
    }

    /// Domain events on the bus of one kind.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let events = self.system.embedded.events().into_iter().map(|accepted| accepted.event);
        events.filter(|event| event["detail-type"] == kind).collect()
    }
}

fn every_unpaid_cent_has_a_reason(balance: &Value) {
    let minor = |value: &Value| value["minor"].as_i64().unwrap();
    let reasons: i64 =
        balance["notPayableBecause"].as_array().unwrap().iter().map(|reason| minor(&reason["amount"])).sum();
    let unpaid: i64 = BUCKETS[..5].iter().map(|bucket| minor(&balance[bucket])).sum();
    assert_eq!(reasons, unpaid, "{balance}");
}

async fn answer(system: &System, request: &Request) -> Result<Reply, Failed> {
    let uri: Uri = request.path.parse().unwrap();
    let answer: HttpAnswer = system.http(&request.method, &uri, &request.headers, &request.body).await?;
    let reply = Reply {
        status: answer.status.as_u16(),
        headers: answer.headers,
        text: String::from_utf8_lossy(&answer.body).into_owned(),
        body: serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
    };
    Contract::get().check(request, &reply);
    Ok(reply)
}

impl Reply {
    /// The id of what was made.
    #[track_caller]
    pub fn id(self) -> String {
        text(&self.ok()["id"])
    }
}

/// What became of each id of a bulk call: 200, or the status of its problem.
#[track_caller]
pub fn result_codes(reply: &Reply) -> Vec<u16> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let code = |result: &Value| if result["ok"] == true { 200 } else { result["problem"]["status"].as_u64().unwrap() };
    reply.body["results"].as_array().unwrap().iter().map(|result| u16::try_from(code(result)).unwrap()).collect()
}

fn outcome(body: &Value) -> String {
    text(&body["outcome"])
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
