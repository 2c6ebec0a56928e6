//! The table of worked examples in `tests/examples/`: each is played through the HTTP API in a system of its own, and every line
//! that came of it is compared. `tests/examples/README.md` has the form.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Once;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tests::sign::Connection;
use tests::{ADMIN, Plan, REVIEWER, Reply, Request, SECOND_ADMIN, Who, World, result_codes};
use tokio::task::LocalSet;
use workflows::Clock as _;

/// Who changes money by hand, so that others may approve its payout.
const HAND: Who<'static> = Who::new("admin", "hal");

/// A test for each file, and the list of them.
macro_rules! files {
    ($($name:ident),* $(,)?) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(#[tokio::test]
        async fn $name() {
            play_all(stringify!($name)).await;
        })*
    };
}

files!(
    adjustments,
    attribution,
    bonus,
    by_hand,
    caps,
    currencies,
    defence,
    edits,
    hold_period,
    matching,
    minimum_sales,
    rates,
    recurrence,
    refunds,
    retroactive,
    review,
    settlement,
    slices,
    tiers,
    versions,
    withdrawals,
    withholding,
);

#[test]
fn every_file_is_played_and_every_example_has_a_name_of_its_own() {
    let found = std::fs::read_dir(directory()).unwrap().map(|file| file.unwrap().path());
    let json = found.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let stems: BTreeSet<String> = json.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(stems, FILES.iter().map(|name| (*name).to_owned()).collect());
    let mut names = BTreeSet::new();
    for example in FILES.iter().flat_map(|file| read(file)) {
        assert!(names.insert(example.name.clone()), "{:?} is there twice", example.name);
    }
    assert!(names.len() >= 80, "only {} examples", names.len());
}

// --- The form -----------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Example {
    /// The rule, in a sentence.
    name: String,
    /// Why this must come of it.
    from: String,
    #[serde(default)]
    program: Map<String, Value>,
    /// One version that has always been in force; or `rule_sets`.
    rules: Option<Vec<Value>>,
    rule_sets: Option<Vec<RuleSet>>,
    partners: Option<Vec<Map<String, Value>>>,
    clock: Option<String>,
    steps: Vec<Step>,
    expect: Option<Vec<Expected>>,
    among: Option<Vec<Expected>>,
    #[serde(default)]
    exceptions: Vec<String>,
    balance: Option<Sums>,
    unpaid: Option<Sums>,
}

/// Amounts by name, per partner's code.
type Sums = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSet {
    effective_from: String,
    rules: Vec<Value>,
}

/// What happens next: the clock moves to `at`, then the one thing the step is about, then what must be so.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Step {
    at: Option<String>,
    event: Option<Map<String, Value>>,
    times: Option<u32>,
    via: Option<String>,
    touch: Option<TouchStep>,
    /// A program that is only tried.
    program: Option<Map<String, Value>>,
    draft: Option<Vec<Value>>,
    /// Exchange rates, each like `2026-01-01 EUR USD 1.10`.
    rates: Option<Vec<String>>,
    replay: Option<bool>,
    approve: Option<Vec<Pick>>,
    hold: Option<Vec<Pick>>,
    release: Option<Vec<Pick>>,
    reject: Option<Vec<Pick>>,
    reinstate: Option<Vec<Pick>>,
    adjust: Option<Adjust>,
    bonus: Option<Bonus>,
    attribute: Option<Attribute>,
    mature: Option<bool>,
    payout: Option<String>,
    until: Option<String>,
    pay: Option<String>,
    paid: Option<String>,
    /// What the payout pays, like `90.00 EUR`.
    pays: Option<String>,
    cancel: Option<String>,
    turn: Option<Turn>,
    exclude: Option<Exclude>,
    /// A batch of this format takes what is approved.
    export: Option<String>,
    methods: Option<Methods>,
    tax_form: Option<TaxForm>,
    /// Both schedules fire.
    tick: Option<bool>,
    /// What is shown of a partner's latest payout.
    stands: Option<Sums>,
    /// By year, what is reported of partners.
    totals: Option<BTreeMap<u16, Sums>>,
    suspend: Option<String>,
    activate: Option<String>,
    status: Option<u16>,
    pointer: Option<String>,
    outcome: Option<String>,
    expect: Option<Vec<Expected>>,
    among: Option<Vec<Expected>>,
    balance: Option<Sums>,
    unpaid: Option<Sums>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TouchStep {
    link: String,
    /// Who follows it, by a name that later steps use as `$name`.
    visitor: String,
    /// What later steps call the click by.
    click: Option<String>,
    channel: Option<String>,
    campaign: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Adjust {
    line: Pick,
    amount: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bonus {
    partner: String,
    amount: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    order: String,
    partner: Option<String>,
    shares: Option<Vec<Share>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    partner: String,
    percent: String,
}

/// A call about a partner's latest payout, like `mark-failed`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    partner: String,
    call: String,
    #[serde(default)]
    fields: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exclude {
    partner: String,
    lines: Vec<Pick>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Methods {
    partner: String,
    methods: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaxForm {
    partner: String,
    form: Value,
}

/// Lines to do something to: the commissions of an order, or what has all these fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Pick {
    Order(String),
    Line(Expected),
}

/// A line; what is left out is not compared, except that the kind is then `commission` and the net the amount.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expected {
    order: Option<String>,
    partner: Option<String>,
    #[serde(default = "commission")]
    kind: String,
    amount: Option<String>,
    net: Option<String>,
    state: Option<String>,
    due_at: Option<String>,
    /// What the reason contains.
    reason: Option<String>,
    /// No line, or lines of nothing: where the rules do not say whether nothing is written down.
    #[serde(default)]
    nothing: bool,
}

fn commission() -> String {
    "commission".to_owned()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn read(file: &str) -> Vec<Example> {
    let text = std::fs::read_to_string(directory().join(format!("{file}.json"))).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}.json: {error}"))
}

// --- Playing ------------------------------------------------------------------------------------------------------------------

thread_local! {
    /// What the example that is played on this thread failed by, while one is.
    static FAILED_BY: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what an example panics with for the report of its file, instead of printing each with its stack.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let kept = FAILED_BY.with_borrow_mut(|kept| kept.as_mut().map(|kept| *kept = panic.to_string()));
            if kept.is_none() {
                usual(panic);
            }
        }));
    });
}

/// Plays every example of a file and tells of all that fail.
async fn play_all(file: &str) {
    keep_panics();
    let (mut failures, mut failed) = (String::new(), 0);
    let examples = read(file);
    let count = examples.len();
    let local = LocalSet::new();
    for example in examples {
        let (name, from) = (example.name.clone(), example.from.clone());
        FAILED_BY.set(Some(String::new()));
        // A task, so that what panics ends its own example only.
        let played = local.run_until(async { tokio::task::spawn_local(play(example)).await }).await;
        let why = FAILED_BY.take().unwrap_or_default().replace('\n', "\n    ");
        if played.is_err() {
            failed += 1;
            write!(failures, "\n--- {name}\n    because: {from}\n    {why}\n").unwrap();
        }
    }
    assert!(failures.is_empty(), "{failed} of {count} examples of {file}.json fail:\n{failures}");
}

async fn play(example: Example) {
    let mut player = Player::start(&example).await;
    for (n, step) in example.steps.iter().enumerate() {
        player.at = format!("step {}", n + 1);
        player.step(step).await;
    }
    "at the end".clone_into(&mut player.at);
    player.lines_are(example.expect.as_deref(), example.among.as_deref()).await;
    player.sums_are(example.balance.as_ref(), example.unpaid.as_ref()).await;
    player.exceptions_are(&example.exceptions).await;
    player.world.audit_holds().await;
}

struct Player {
    world: World,
    currency: String,
    /// Ids by code, the first partner's code, and codes by id.
    partners: BTreeMap<String, String>,
    first: String,
    codes: BTreeMap<String, String>,
    /// What `$name` stands for.
    names: BTreeMap<String, String>,
    sources: BTreeMap<String, Connection>,
    /// Conversion ids by order.
    conversions: BTreeMap<String, String>,
    /// The latest payout of each partner.
    payouts: BTreeMap<String, Value>,
    /// Where in the example we are.
    at: String,
}

impl Player {
    async fn start(example: &Example) -> Self {
        let clock = example.clock.as_deref().unwrap_or("2026-01-01T00:00:00Z");
        let world =
            World { system: Plan::new().at(clock).system().await, program: String::new(), partner: String::new() };
        let mut program = json!({
            "name": "Program", "approval": "automatic", "holdDays": 0, "minimumPayout": "0",
            "largePayoutLimit": "1000000.00", "landingPage": "https://shop.example/",
        });
        fill(&mut program, &example.program);
        let currency = example.program.get("currency").and_then(Value::as_str).unwrap_or("USD").to_owned();
        let mut player = Self {
            world,
            currency,
            partners: BTreeMap::new(),
            first: String::new(),
            codes: BTreeMap::new(),
            names: BTreeMap::new(),
            sources: BTreeMap::new(),
            conversions: BTreeMap::new(),
            payouts: BTreeMap::new(),
            at: "at the start".to_owned(),
        };
        player.world.program = player.world.post(ADMIN, "/programs", &program).await.id();
        for partner in
            example.partners.clone().unwrap_or_else(|| vec![Map::from_iter([("code".into(), json!("ANNA"))])])
        {
            player.add_partner(&partner).await;
        }
        player.world.partner = player.partners[&player.first].clone();
        match (&example.rules, &example.rule_sets) {
            (Some(rules), None) => player.publish("2020-01-01T00:00:00Z", rules).await,
            (None, Some(sets)) => {
                for set in sets {
                    player.publish(&set.effective_from, &set.rules).await;
                }
            }
            _ => panic!("an example has either rules or ruleSets"),
        }
        player
    }

    async fn add_partner(&mut self, fields: &Map<String, Value>) {
        let code = fields["code"].as_str().unwrap().to_owned();
        let mut partner = json!({"name": code, "email": format!("{}@partners.example", code.to_lowercase())});
        fill(&mut partner, fields);
        let id = self.world.add_partner(&partner).await;
        if self.first.is_empty() {
            self.first.clone_from(&code);
        }
        self.names.insert(code.clone(), id.clone());
        self.codes.insert(id.clone(), code.clone());
        self.partners.insert(code, id);
    }

    async fn publish(&self, effective_from: &str, rules: &[Value]) {
        let reply = self.draft(effective_from, rules).await;
        let sets = self.rule_sets();
        let version = self.answered(reply)["version"].clone();
        let sign_off = self.world.post(SECOND_ADMIN, &format!("{sets}/{version}/sign-off"), &json!({})).await;
        self.answered(sign_off);
        let publish = self.world.post(ADMIN, &format!("{sets}/{version}/publish"), &json!({})).await;
        self.answered(publish);
    }

    async fn draft(&self, effective_from: &str, rules: &[Value]) -> Reply {
        let named = rules.iter().enumerate().map(|(n, rule)| {
            let mut named = json!({"name": format!("Rule {}", n + 1)});
            fill(&mut named, rule.as_object().unwrap());
            self.resolved(&named)
        });
        let rules: Vec<_> = named.collect();
        let draft = json!({"rationale": "example", "effectiveFrom": effective_from, "rules": rules});
        self.world.post(ADMIN, &self.rule_sets(), &draft).await
    }

    fn rule_sets(&self) -> String {
        format!("/programs/{}/rule-sets", self.world.program)
    }

    #[track_caller]
    fn answered(&self, reply: Reply) -> Value {
        assert!((200..300).contains(&reply.status), "{}: {} {}", self.at, reply.status, reply.text);
        reply.body
    }

    /// A reply that must be a success, or what the step says it is.
    fn judged(&self, step: &Step, reply: Reply) -> Value {
        match step.status {
            None => self.answered(reply),
            Some(status) => {
                assert_eq!(reply.status, status, "{}: {}", self.at, reply.text);
                if let Some(pointer) = &step.pointer {
                    let named = reply.pointers().iter().any(|named| named.starts_with(pointer.as_str()));
                    assert!(named, "{}: {pointer} is not named by {}", self.at, reply.text);
                }
                reply.body
            }
        }
    }

    /// The same with what `$name` stands for.
    fn resolved(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => {
                    json!(self.names.get(name).unwrap_or_else(|| panic!("{}: nothing is called {text}", self.at)))
                }
                None => value.clone(),
            },
            Value::Array(values) => values.iter().map(|value| self.resolved(value)).collect(),
            Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), self.resolved(value))).collect(),
            other => other.clone(),
        }
    }

    #[track_caller]
    fn partner(&self, code: &str) -> &str {
        self.partners.get(code).unwrap_or_else(|| panic!("{}: no partner {code}", self.at))
    }

    /// The world as seen by one partner.
    fn of(&self, code: &str) -> World {
        World { partner: self.partner(code).to_owned(), ..self.world.clone() }
    }

    async fn step(&mut self, step: &Step) {
        if let Some(at) = &step.at {
            self.world.clock_at(at);
        }
        for n in 1..=step.times.unwrap_or(1) {
            if let Some(event) = &step.event {
                self.report(step, event, n).await;
            }
        }
        if let Some(touch) = &step.touch {
            self.touch(touch).await;
        }
        if let Some(fields) = &step.program {
            let mut program = json!({"name": "Another"});
            fill(&mut program, fields);
            let reply = self.world.post(ADMIN, "/programs", &program).await;
            self.judged(step, reply);
        }
        if let Some(rates) = &step.rates {
            self.rates(rates).await;
        }
        if step.replay == Some(true) {
            for exception in self.world.exceptions().await {
                let path = format!("/exceptions/{}/replay", exception["id"].as_str().unwrap());
                let reply = self.world.post(ADMIN, &path, &json!({})).await;
                self.judged(step, reply);
            }
        }
        if let Some(rules) = &step.draft {
            let now = self.world.system.clock.now().to_string();
            let reply = self.draft(&now, rules).await;
            self.judged(step, reply);
        }
        for (verdict, picks) in [
            ("approve", &step.approve),
            ("hold", &step.hold),
            ("release", &step.release),
            ("reject", &step.reject),
            ("reinstate", &step.reinstate),
        ] {
            if let Some(picks) = picks {
                self.review(step, verdict, picks).await;
            }
        }
        self.money_by_hand(step).await;
        if let Some(TaxForm { partner, form }) = &step.tax_form {
            let put = Request::new(http::Method::PUT, &format!("/partners/{}/tax-form", self.partner(partner)));
            let put = put.header("content-type", "application/json").body(form.to_string());
            let reply = self.world.send(self.world.by(HAND, put).await).await;
            self.judged(step, reply);
        }
        if let Some(Methods { partner, methods }) = &step.methods {
            self.of(partner).change_methods(HAND, &json!(methods)).await;
        }
        self.payout_step(step).await;
        self.settlement(step).await;
        if step.tick == Some(true) {
            self.world.tick().await;
        }
        if step.mature == Some(true) {
            self.world.fire("mature-commissions").await;
            self.world.settle().await;
        }
        for (call, code) in [("suspend", &step.suspend), ("activate", &step.activate)] {
            if let Some(code) = code {
                let path = format!("/partners/{}/{call}", self.partner(code));
                let reply = self.world.post(ADMIN, &path, &json!({"reason": "example"})).await;
                self.answered(reply);
            }
        }
        self.lines_are(step.expect.as_deref(), step.among.as_deref()).await;
        self.sums_are(step.balance.as_ref(), step.unpaid.as_ref()).await;
        self.stands(step).await;
    }

    // --- Events -------------------------------------------------------------------------------------------------------

    async fn report(&mut self, step: &Step, fields: &Map<String, Value>, n: u32) {
        let event = self.event(fields, n);
        if let Some(source) = &step.via {
            let source = self.source(source).await;
            return self.world.deliver(&source, "", &event.to_string()).await;
        }
        let reply = self.world.report(&event).await;
        let body = self.judged(step, reply);
        if let Some(id) = body["id"].as_str() {
            let order = event.get("conversion").unwrap_or(&event["id"]).as_str().unwrap();
            self.conversions.insert(order.to_owned(), id.to_owned());
        }
        if let Some(outcome) = &step.outcome {
            assert_eq!(body["outcome"], json!(outcome), "{}: {body}", self.at);
        }
    }

    /// An event in full: a sale of the first partner now, unless it says otherwise.
    fn event(&self, fields: &Map<String, Value>, n: u32) -> Value {
        let mut event =
            json!({"type": "sale", "occurredAt": self.world.system.clock.now(), "programId": self.world.program});
        fill(&mut event, fields);
        event["id"] = json!(event["id"].as_str().unwrap().replace("{n}", &n.to_string()));
        let accrues = ["sale", "lead", "sign_up", "renewal", "custom"].contains(&event["type"].as_str().unwrap());
        let evidence = ["partner", "coupon", "clickId", "visitorId"].iter().any(|field| fields.contains_key(*field));
        if accrues && !evidence {
            event["partner"] = json!({"id": self.partners[&self.first]});
        }
        if let Some(code) = fields.get("partner").and_then(Value::as_str) {
            event["partner"] = json!({"code": code});
        }
        if let Some(total) = fields.get("amount").and_then(Value::as_str) {
            event["amount"] = json!({"total": total});
        }
        if event["amount"].is_object() && event["amount"].get("currency").is_none() {
            event["amount"]["currency"] = json!(self.currency);
        }
        self.resolved(&event)
    }

    async fn rates(&self, rates: &[String]) {
        let rows: Vec<_> = rates.iter().map(|rate| format!("{},example\n", rate.replace(' ', ","))).collect();
        let file = Request::new(http::Method::POST, "/exchange-rates/import").header("content-type", "text/csv");
        let file = file.body(format!("date,from,to,rate,source\n{}", rows.concat()));
        let report = self.world.send(self.world.by(ADMIN, file).await).await;
        let report = self.answered(report);
        assert_eq!(report["applied"], json!(rates.len()), "{}: {report}", self.at);
    }

    async fn source(&mut self, name: &str) -> Connection {
        if !self.sources.contains_key(name) {
            let connection = self.world.connect("standard", None).await;
            self.sources.insert(name.to_owned(), connection);
        }
        self.sources[name].clone()
    }

    async fn touch(&mut self, touch: &TouchStep) {
        let given = [("channel", &touch.channel), ("campaign", &touch.campaign)];
        let query: Vec<_> =
            given.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))).collect();
        let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        let mut request =
            Request::get("").at(&format!("/r/{}?{}", touch.link, query.join("&"))).header("user-agent", browser);
        if let Some(visitor) = self.names.get(&touch.visitor) {
            request = request.header("cookie", &format!("pp_visitor={visitor}"));
        }
        let reply = self.world.send(request).await.refused(302);
        let location = reply.headers["location"].to_str().unwrap().to_owned();
        let (_, query) = location.split_once('?').unwrap_or_else(|| panic!("{}: {location}", self.at));
        let sent: BTreeMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        self.names.insert(touch.visitor.clone(), sent["visitor_id"].to_owned());
        if let Some(click) = &touch.click {
            self.names.insert(click.clone(), sent["click_id"].to_owned());
        }
    }

    // --- People -------------------------------------------------------------------------------------------------------

    async fn ids(&self, picks: &[Pick]) -> Vec<String> {
        let lines = self.lines().await;
        let mut ids = Vec::new();
        for pick in picks {
            let before = ids.len();
            let wanted = |line: &&Value| match pick {
                Pick::Order(order) => line["orderId"] == json!(order) && line["kind"] == "commission",
                Pick::Line(fields) => self.differs(fields, line).is_empty(),
            };
            ids.extend(lines.iter().filter(wanted).map(|line| line["id"].as_str().unwrap().to_owned()));
            assert!(ids.len() > before, "{}: nothing is {pick:?} among\n{}", self.at, self.told(&lines));
        }
        ids
    }

    async fn review(&self, step: &Step, verdict: &str, picks: &[Pick]) {
        let ids = self.ids(picks).await;
        let body = json!({"ids": ids, "reason": "example"});
        let reply = self.world.post(REVIEWER, &format!("/commissions/{verdict}"), &body).await;
        let expected = step.status.unwrap_or(200);
        assert!(result_codes(&reply).iter().all(|code| *code == expected), "{}: {verdict}: {}", self.at, reply.text);
    }

    async fn money_by_hand(&self, step: &Step) {
        if let Some(adjust) = &step.adjust {
            let ids = self.ids(std::slice::from_ref(&adjust.line)).await;
            assert_eq!(ids.len(), 1, "{}: {:?} is more than one line", self.at, adjust.line);
            let body = json!({"id": ids[0], "amount": adjust.amount, "reason": "example"});
            let reply = self.world.post(HAND, "/commissions/adjust", &body).await;
            self.judged(step, reply);
        }
        if let Some(bonus) = &step.bonus {
            let partner = self.partner(&bonus.partner);
            let body = json!({
                "partnerId": partner, "programId": self.world.program, "amount": bonus.amount, "reason": "example",
            });
            let reply = self.world.post(HAND, "/commissions", &body).await;
            self.judged(step, reply);
        }
        if let Some(attribute) = &step.attribute {
            let mut body = json!({"reason": "example"});
            if let Some(code) = &attribute.partner {
                body["partnerId"] = json!(self.partner(code));
            }
            if let Some(shares) = &attribute.shares {
                let shares = shares.iter();
                let shares =
                    shares.map(|share| json!({"partnerId": self.partner(&share.partner), "percent": share.percent}));
                body["shares"] = shares.collect();
            }
            let conversion = &self.conversions[&attribute.order];
            let reply = self.world.post(HAND, &format!("/conversions/{conversion}/attribute"), &body).await;
            self.judged(step, reply);
        }
    }

    /// Asks for everything payable, and takes the payout as far as the step says: by itself, until it is paid.
    async fn payout_step(&mut self, step: &Step) {
        if let Some(code) = &step.payout {
            let world = self.of(code);
            let reply = world.request_payout_with(&json!({})).await;
            let id = self.judged(step, reply)["id"].clone();
            if step.status.is_some() {
                return;
            }
            self.pays(step, &id).await;
            match step.until.as_deref() {
                Some("pending") => {}
                Some("approved") => assert_eq!(world.approve_payout(ADMIN, &id).await, 200, "{}", self.at),
                Some("partially_paid") => {
                    assert_eq!(world.approve_payout(ADMIN, &id).await, 200, "{}", self.at);
                    let attested = json!({"reference": "wire 1", "amount": step.paid});
                    assert_eq!(world.payout_call(ADMIN, "mark-paid", &id, &attested).await, 200, "{}", self.at);
                }
                None => world.pay(&id).await,
                Some(other) => panic!("{}: until {other}", self.at),
            }
            self.payouts.insert(code.clone(), id);
        }
        if let Some(code) = &step.pay {
            let id = &self.payouts[code];
            self.pays(step, id).await;
            self.world.pay(id).await;
        }
        if let Some(code) = &step.cancel {
            let asked = json!({"reason": "example"});
            assert_eq!(self.world.payout_call(ADMIN, "cancel", &self.payouts[code], &asked).await, 200, "{}", self.at);
        }
    }

    /// What becomes of a payout that was drafted.
    async fn settlement(&self, step: &Step) {
        let code = step.status.unwrap_or(200);
        if let Some(Turn { partner, call, fields }) = &step.turn {
            let id = &self.payouts[partner];
            let mut form = json!({"reason": "example"});
            fill(&mut form, fields);
            let answered = match call.as_str() {
                "approve" => self.world.approve_payout(ADMIN, id).await,
                _ => self.world.payout_call(ADMIN, call, id, &form).await,
            };
            assert_eq!(answered, code, "{}: {call}", self.at);
        }
        if let Some(Exclude { partner, lines }) = &step.exclude {
            let ids = self.ids(lines).await;
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            let answered = self.world.exclude(ADMIN, &self.payouts[partner], &ids).await;
            assert!(answered.iter().all(|answered| *answered == code), "{}: exclude: {answered:?}", self.at);
        }
        if let Some(format) = &step.export {
            let asked = json!({"format": format, "programId": self.world.program});
            let reply = self.world.post(ADMIN, "/exports", &asked).await;
            self.answered(reply);
        }
    }

    /// Payouts as they are shown, and what is reported of a year.
    async fn stands(&self, step: &Step) {
        let compared = |found: &Value, fields: &BTreeMap<String, String>, what: &str| {
            for (name, expected) in fields {
                let value = found.pointer(&format!("/{name}")).unwrap_or(&Value::Null);
                let shown = value.get("amount").unwrap_or(value);
                assert_eq!(shown.as_str().unwrap_or_default(), expected, "{}: {name} of {what}: {found}", self.at);
            }
        };
        for (code, fields) in step.stands.iter().flatten() {
            compared(&self.world.payout(&self.payouts[code]).await, fields, "the payout");
        }
        for (year, partners) in step.totals.iter().flatten() {
            let payees = self.world.all(ADMIN, &format!("/tax/totals?year={year}")).await;
            for (code, fields) in partners {
                let id = json!(self.partner(code));
                let of = payees.iter().find(|payee| payee["partnerIds"].as_array().unwrap().contains(&id));
                // Nothing is reported of who was paid nothing.
                compared(of.unwrap_or(&Value::Null), fields, "the year");
            }
        }
    }

    async fn pays(&self, step: &Step, payout: &Value) {
        if let Some(pays) = &step.pays {
            let found = &self.world.payout(payout).await["pays"];
            let found = [&found["amount"], &found["currency"]].map(|text| text.as_str().unwrap());
            assert_eq!(found.join(" "), *pays, "{}", self.at);
        }
    }

    // --- What must be so ----------------------------------------------------------------------------------------------

    async fn lines(&self) -> Vec<Value> {
        self.world.all(ADMIN, &format!("/commissions?programId={}&limit=100", self.world.program)).await
    }

    /// `all`: exactly these lines; `some`: these among others.
    async fn lines_are(&self, all: Option<&[Expected]>, some: Option<&[Expected]>) {
        let (Some(expected), complete) = (all.or(some), all.is_some()) else { return };
        let lines = self.lines().await;
        let mut left: Vec<&Value> = lines.iter().collect();
        let mut missing = Vec::new();
        // What says more is matched first, so that what says less cannot take its line.
        let mut expected: Vec<_> = expected.iter().collect();
        expected.sort_by_key(|line| std::cmp::Reverse(line.told()));
        for line in &expected {
            if line.nothing {
                let order = json!(line.order);
                left.retain(|left| left["orderId"] != order || left["amount"]["minor"] != 0);
            } else if let Some(n) = left.iter().position(|left| self.differs(line, left).is_empty()) {
                left.remove(n);
            } else {
                missing.push(*line);
            }
        }
        let nothing = |line: &&&Expected| line.nothing;
        let silent: Vec<_> = expected.iter().filter(nothing).map(|line| json!(line.order)).collect();
        left.retain(|line| complete || silent.contains(&line["orderId"]));
        if missing.is_empty() && left.is_empty() {
            return;
        }
        let missing = missing.iter().map(|line| format!("  missing: {}", line.words()));
        let left = left.iter().map(|line| format!("  not expected: {}", self.words(line)));
        let differences: Vec<_> = missing.chain(left).collect();
        panic!("{}, the lines differ:\n{}\nof\n{}", self.at, differences.join("\n"), self.told(&lines));
    }

    /// Which fields of a line are not as expected.
    fn differs(&self, expected: &Expected, line: &Value) -> Vec<&'static str> {
        let net = expected.net.as_ref().or(expected.amount.as_ref());
        let code = self.codes.get(line["partnerId"].as_str().unwrap()).map(String::as_str);
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let same =
            |wanted: Option<&String>, found: Option<&str>| wanted.is_none_or(|wanted| Some(wanted.as_str()) == found);
        let mut differs = vec![
            ("order", !same(expected.order.as_ref(), line["orderId"].as_str())),
            ("partner", !same(expected.partner.as_ref(), code)),
            ("kind", line["kind"] != json!(expected.kind)),
            ("amount", !same(expected.amount.as_ref(), line["amount"]["amount"].as_str())),
            ("net", !same(net, line["net"]["amount"].as_str())),
            ("state", !same(expected.state.as_ref(), line["state"].as_str())),
        ];
        if let Some(due_at) = &expected.due_at {
            differs.push(("dueAt", time(due_at) != time(line["dueAt"].as_str().unwrap())));
        }
        if let Some(reason) = &expected.reason {
            differs.push(("reason", !line["reason"].as_str().unwrap_or_default().contains(reason.as_str())));
        }
        differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }

    fn words(&self, line: &Value) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let code = self.codes.get(line["partnerId"].as_str().unwrap()).map_or("?", String::as_str);
        format!(
            "{} {code} {} {} net {} {} due {} {}",
            text(&line["orderId"]),
            text(&line["kind"]),
            text(&line["amount"]["amount"]),
            text(&line["net"]["amount"]),
            text(&line["state"]),
            text(&line["dueAt"]),
            line["reason"].as_str().unwrap_or_default(),
        )
    }

    fn told(&self, lines: &[Value]) -> String {
        let lines: Vec<_> = lines.iter().rev().map(|line| format!("  {}", self.words(line))).collect();
        lines.join("\n")
    }

    async fn sums_are(&self, balance: Option<&Sums>, unpaid: Option<&Sums>) {
        for (code, sums) in balance.into_iter().flatten() {
            let found = self.world.balance_of(self.partner(code)).await;
            for (name, amount) in sums {
                assert_eq!(found[name]["amount"], json!(amount), "{}: {code}: {name} of {found}", self.at);
            }
        }
        for (code, reasons) in unpaid.into_iter().flatten() {
            let found = self.world.balance_of(self.partner(code)).await["notPayableBecause"].clone();
            let told = found.as_array().unwrap().iter();
            let told = told.map(|reason| {
                (reason["code"].as_str().unwrap().to_owned(), reason["amount"]["amount"].as_str().unwrap().to_owned())
            });
            assert_eq!(
                told.collect::<BTreeMap<_, _>>(),
                *reasons,
                "{}: {code} is not paid because of {found}",
                self.at
            );
        }
    }

    async fn exceptions_are(&self, codes: &[String]) {
        let mut found = self.world.exception_codes().await;
        let mut codes = codes.to_vec();
        found.sort();
        codes.sort();
        assert_eq!(found, codes, "open exceptions");
    }
}

impl Expected {
    /// How much it says.
    fn told(&self) -> usize {
        let said = [&self.order, &self.partner, &self.amount, &self.net, &self.state, &self.due_at, &self.reason];
        said.iter().filter(|field| field.is_some()).count()
    }

    fn words(&self) -> String {
        let say = |name: &str, field: &Option<String>| {
            field.as_ref().map_or_else(String::new, |text| format!(" {name} {text}"))
        };
        [
            say("order", &self.order),
            say("of", &self.partner),
            format!(" {}", self.kind),
            say("amount", &self.amount),
            say("net", &self.net),
            say("state", &self.state),
            say("due", &self.due_at),
            say("reason", &self.reason),
        ]
        .concat()
    }
}

fn fill(value: &mut Value, fields: &Map<String, Value>) {
    for (name, field) in fields {
        value[name] = field.clone();
    }
}
