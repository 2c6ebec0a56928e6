//! One world: merchants, partners, people and the cloud, played from a script.

mod books;
mod calls;
mod details;
mod paypal;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use bytes::Bytes;
use embedded::Embedded;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use local::events::{http_event, schedule_event, sqs_event, stream_event};
use local::token::claims;
use local::{CONVERSIONS, DRAFTS, Failed, Functions, HttpAnswer, QUICKBOOKS, SUBMISSIONS, Stream};
use quickbooks_counterpart::Webhook;
use serde_json::{Value, json};
use store::{Membership, Transaction};
use tests::sign::Connection;
use workflows::Clock;
use workflows::files::Files;

use crate::auditor::{Auditor, in_order};
use crate::chance::Chance;
use crate::clock::WorldClock;
use crate::cloud::{Sky, context_under};
use crate::items::{Items, plain};
use crate::ledgers::Bill;
use crate::script::{Act, Step};
use crate::shop;
use crate::tasks::{Ended, Lot, Tasks};
use crate::told::{
    About, Answer, ByHand, Call, Command, Customer, ENGINE, Edit, Model, Partner, Payment, RuleSet, SKEW_SECONDS, Sale,
    Told, Touch, exponent,
};
use crate::ways::{KINDS, Way, Ways};

/// Why a world failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The invariant that broke, in a few words.
    pub invariant: String,
    pub what: String,
}

fn failure(invariant: &str, what: impl Into<String>) -> Failure {
    Failure { invariant: invariant.to_owned(), what: what.into() }
}

type Outcome<T = ()> = Result<T, Failure>;

/// What a storefront or a script has to tell.
#[derive(Debug, Clone)]
enum Telling {
    Sale(usize),
    Refund(usize),
    Edit(usize),
    Withdrawal(usize),
}

/// A message taken from a queue, until its function is done with it.
#[derive(Debug, Clone)]
struct Mail {
    queue: &'static str,
    message: Message,
    failures: u32,
    /// No function can ever read it.
    poison: bool,
}

#[derive(Debug)]
enum Job {
    Tell(Telling),
    Mail(Vec<Mail>),
    /// Stream records from one position up to another.
    Records(usize, usize),
    Schedule,
    Webhook(Webhook),
    Notice(paypal::Notice),
    /// A delivery that is not PayPal's.
    Pretended,
    /// Which of the told commands, and of the told calls.
    Command(usize),
    Call(usize),
    /// What is looked at, and which status it must have.
    Look(String, u16),
}

#[derive(Debug)]
enum Reply {
    Http(HttpAnswer),
    Value(Value),
}

type Answered = Result<Reply, Failed>;

/// What a command says besides whom it is about, in the auditor's terms.
#[derive(Debug, Default)]
struct Besides {
    amount: Option<i64>,
    /// Payouts with the versions that were seen.
    versions: Vec<(String, u64)>,
    payments: Vec<Payment>,
    format: Option<&'static str>,
    run: Option<ByHand>,
    method: Option<&'static str>,
    ways: Vec<Way>,
}

pub struct World {
    seed: u64,
    clock: WorldClock,
    embedded: Embedded,
    /// The services without weather, for setting up and for looking.
    plain: workflows::Context,
    api: Functions,
    /// The same functions in bad weather, on machines whose clocks differ.
    instances: Vec<Functions>,
    under: workflows::Context,
    /// By so many seconds.
    off: i64,
    files: Files,
    sky: Sky,
    tasks: Tasks<Job, Answered>,
    told: Told,
    connections: Vec<Connection>,
    untold: Vec<Telling>,
    mail: Vec<Mail>,
    stream: Stream,
    records: Vec<Value>,
    published: usize,
    items: Items,
    auditor: Auditor,
    /// How many things may happen at once: a few, or now and then so many that payouts have several pages.
    crowd: usize,
    /// Whether people buy and are paid in several currencies.
    abroad: bool,
    orders: u64,
    books: books::Dealings,
    paypal: paypal::Account,
    /// Nothing strikes any more.
    calm: bool,
    /// Files of exports, as they were when they were first asked for.
    downloads: BTreeMap<String, String>,
    /// What else the next command says.
    telling: Besides,
    pub steps: u64,
    written: BTreeMap<String, u64>,
    trace: Option<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).field("steps", &self.steps).finish_non_exhaustive()
    }
}

const QUEUES: [&str; 4] = [CONVERSIONS, DRAFTS, SUBMISSIONS, QUICKBOOKS];
/// How partners are paid.
const METHODS: [&str; 6] = ["manual", "manual", "bank", "bank", "wise", "paypal"];
/// Of the files that have them paid.
const FORMATS: [&str; 4] = ["bank", "wise", "paypal", "masspay"];
/// Where the chance of partners begins, which nothing else is decided by.
const PARTNERS: u64 = 1 << 32;
const LIMITS: u64 = (1 << 32) - 1;
/// Where the chance of other currencies begins: of the world, its partners, and what is sold.
const MONEY: u64 = 1 << 35;
const SOLD: u64 = 1 << 36;
/// And that of what is paid with store credit, and of the rules that say so or keep renewals.
const CREDIT: u64 = 1 << 37;
const RULES: u64 = 1 << 38;
/// For so many days before a world begins rates are known.
const DAYS_BEFORE: i64 = 40;

/// Who works for the merchants; any of them may do everything.
const PEOPLE: [&str; 3] = ["ann", "ben", "cleo"];
/// Who besides them decides about payouts, and has no hand in what is paid.
const CASHIERS: [&str; 5] = ["ann", "ben", "cleo", "dora", "eli"];

/// How a world is made.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub seed: u64,
    pub trace: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Played {
    pub result: Outcome,
    pub steps: u64,
    pub struck: BTreeMap<&'static str, u64>,
    /// Journal entries written, by what they tell of.
    pub written: BTreeMap<String, u64>,
    pub trace: Option<String>,
}

/// Plays a whole script.
pub async fn play(terms: Terms, script: &[Step]) -> Played {
    let mut world = match World::start(terms).await {
        Ok(world) => world,
        Err(failure) => {
            return Played {
                result: Err(failure),
                steps: 0,
                struck: BTreeMap::new(),
                written: BTreeMap::new(),
                trace: None,
            };
        }
    };
    let result = world.run(script).await;
    if let Err(failure) = &result {
        world.note(|| format!("FAILED {}: {}", failure.invariant, failure.what));
    }
    let struck = world.sky.weather().struck.clone();
    Played {
        result,
        steps: world.steps,
        struck,
        written: std::mem::take(&mut world.written),
        trace: world.trace.take(),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    failure("the simulator itself", error.to_string())
}

impl World {
    async fn start(terms: Terms) -> Outcome<Self> {
        let mut chance = Chance::of(terms.seed, 0);
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().map_err(broken)?;
        let start = start + SignedDuration::from_secs(chance.from(0, 365 * 86_400));
        let clock = WorldClock::new(start, chance.fork());
        let time = clock.clone();
        let embedded = Embedded::memory(Arc::new(move || time.system_time())).map_err(broken)?;
        let plain = local::provision(&embedded.sdk_config(), Arc::new(clock.clone())).await.map_err(broken)?;
        let stream = Stream::open(&embedded, None).map_err(broken)?;
        let sky = Sky::new();
        let under = context_under(&sky, &embedded, &plain);
        let books = books::Dealings::new(terms.seed, &clock, &sky);
        let paypal = paypal::Account::new(terms.seed, &sky);
        let files = local::files(&embedded.sdk_config(), None);
        let off = chance.from(1, SKEW_SECONDS);
        let mut world = Self {
            seed: terms.seed,
            api: Functions::new(plain.clone(), files.clone(), books.rails(clock.clone(), &paypal.way)),
            instances: Vec::new(),
            under,
            off,
            files,
            books,
            paypal,
            calm: false,
            tasks: Tasks::new(sky.clone()),
            clock,
            embedded,
            plain,
            sky,
            told: Told::default(),
            connections: vec![],
            untold: vec![],
            mail: vec![],
            stream,
            records: vec![],
            published: 0,
            items: Items::default(),
            auditor: Auditor::default(),
            abroad: Chance::of(terms.seed, MONEY).percent(60),
            crowd: if chance.percent(12) { 25 } else { 3 },
            orders: 0,
            telling: Besides::default(),
            downloads: BTreeMap::new(),
            steps: 0,
            written: BTreeMap::new(),
            trace: terms.trace.then(String::new),
        };
        world.start_processes();
        world.set_limits().await?;
        world.publish_rates(start - SignedDuration::from_hours(DAYS_BEFORE * 24)).await?;
        if world.books.any {
            world.register().await?;
        }
        let programs = if world.crowd > 3 { 1 } else { 1 + chance.below(2) };
        for n in 0..programs {
            world.found_program(&mut chance, n).await?;
        }
        world.audit()?;
        Ok(world)
    }

    /// New ones, which know nothing that others remember. Whoever is under way goes on.
    fn start_processes(&mut self) {
        let functions = |context: &workflows::Context, off: i64| {
            let time = self.clock.off_by(off);
            let rails = self.books.rails(time.clone(), &self.paypal.way);
            let context = workflows::Context { clock: Arc::new(time), ..context.clone() };
            Functions::new(context, self.files.clone(), rails)
        };
        let api = functions(&self.plain, 0);
        self.instances = [0, self.off, -self.off].map(|off| functions(&self.under, off)).into();
        self.api = api;
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{} {}", self.clock.now(), line());
        }
    }

    // --- Setting up, in fair weather ------------------------------------------------------------------------------

    async fn ask(&self, who: &str, method: Method, path: &str, body: &Value) -> Outcome<(u16, Value)> {
        let event = api_event(who, "admin", &method, path, Some(body))?;
        let answer = self.api.http(event).await.map_err(broken)?;
        Ok((answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    async fn made(&self, who: &str, path: &str, body: &Value) -> Outcome<Value> {
        let (status, answer) = self.ask(who, Method::POST, path, body).await?;
        if (200..300).contains(&status) { Ok(answer) } else { Err(broken(format!("POST {path}: {status} {answer}"))) }
    }

    async fn found_program(&mut self, chance: &mut Chance, n: usize) -> Outcome {
        let mut program = shop::program(chance);
        program.id = text(&self.made("ann", "/programs", &shop::program_body(&program, n)).await?["id"]);
        self.told.programs.push(program);
        if self.books.any {
            self.open_company(n).await?;
        }
        self.connect_paypal(n).await?;
        let partners = if self.crowd > 3 { 1 } else { 1 + chance.below(3) };
        for _ in 0..partners {
            self.found_partner(chance, n).await?;
        }
        self.publish_rules(chance, n).await?;
        let body = json!({"programId": self.told.programs[n].id, "kind": "standard", "name": "Shop"});
        let made = self.made("ann", "/sources", &body).await?;
        self.connections.push(Connection { id: text(&made["id"]), kind: "standard", secret: text(&made["secret"]) });
        Ok(())
    }

    async fn found_partner(&mut self, chance: &mut Chance, n: usize) -> Outcome {
        let program = &self.told.programs[n];
        let number = self.told.partners.len();
        let (id, exponent) = (program.id.clone(), program.exponent);
        let mut besides = Chance::of(self.seed, PARTNERS + number as u64);
        let method = *besides.pick(&METHODS).unwrap_or(&"manual");
        let mut money = Chance::of(self.seed, MONEY + 1 + number as u64);
        let elsewhere = self.abroad && money.percent(35);
        let paid_in = elsewhere.then(|| shop::other_currency(&mut money, program));
        let by_paypal = self.paid_by_paypal(n, number);
        let there = if by_paypal { None } else { self.paid_there(n, number, paid_in.unwrap_or(program.currency)) };
        let method = match there {
            Some(_) => "quickbooks",
            None if by_paypal => "paypal",
            None => method,
        };
        let mut partner = Partner {
            id: String::new(),
            program: n,
            code: format!("CODE{number}"),
            group: if ENGINE && chance.percent(60) { chance.pick(&shop::GROUPS).copied() } else { None },
            country: *besides.pick(&[None, None, None, Some("US"), Some("DE")]).unwrap_or(&None),
            email_hash: shop::email_hash(&format!("partner{number}@partners.example")),
            minimum_payout: chance.percent(20).then(|| chance.from(0, 100) * 10_i64.pow(exponent)),
            quiet: besides.clone().permille(180),
            trusted: besides.clone().percent(75),
            ways: Vec::new(),
            paid_in,
            suspended: Vec::new(),
        };
        let method = chance.percent(90).then_some(method);
        let vendor = there.and_then(|there| there.vendor).filter(|_| method.is_some());
        let ways = self.first_ways(method, number, vendor.as_deref());
        let body = json!({
            "programId": id, "name": format!("Partner {number}"), "email": format!("partner{number}@partners.example"),
            "code": partner.code, "group": partner.group, "country": partner.country, "minimumPayout": partner.minimum_payout.map(|amount| shop::decimal(amount, exponent)),
            "payoutMethods": ways.iter().map(Way::body).collect::<Vec<_>>(), "payoutCurrency": partner.paid_in,
            "trusted": partner.trusted,
        });
        partner.ways.push(Ways { since: 0, all: ways });
        partner.id = text(&self.made("ann", "/partners", &body).await?["id"]);
        self.told.ledgers.named.extend(vendor.map(|vendor| (partner.id.clone(), vendor)));
        let mut transaction = Transaction::new("membership");
        let membership =
            Membership { subject: format!("partner{number}"), partner: partner.id.parse().map_err(broken)? };
        transaction.set_membership(&membership).map_err(broken)?;
        self.plain.store.commit(transaction).await.map_err(broken)?;
        self.told.partners.push(partner);
        if self.told.partners[number].quiet {
            self.leave_owing(&mut besides, number).await?;
        }
        if besides.percent(40) { self.give_form(&mut besides, number).await } else { Ok(()) }
    }

    /// Takes something from a partner who has nothing.
    async fn leave_owing(&mut self, chance: &mut Chance, number: usize) -> Outcome {
        let partner = self.told.partners[number].id.clone();
        let program = &self.told.programs[self.told.partners[number].program];
        let (amount, exponent) = (-chance.from(1, 3_000), program.exponent);
        let body = json!({
            "partnerId": partner, "programId": program.id, "amount": shop::decimal(amount, exponent),
            "reason": "the seed says so",
        });
        self.telling.amount = Some(amount);
        self.tell_command("ann", About::Partners, "bonus", vec![partner], &body);
        self.made("ann", "/commissions", &body).await.map(drop)
    }

    /// A partner's tax form, or word that theirs does not hold; in fair weather, so that it is known from when on it is known.
    async fn give_form(&mut self, chance: &mut Chance, number: usize) -> Outcome {
        let partner = &self.told.partners[number];
        let Some(id) = self.told.programs[partner.program].withholds.map(|_| partner.id.clone()) else { return Ok(()) };
        let last = self.told.forms.iter().rfind(|form| form.partner == id && !form.revoked).cloned();
        if let Some(form) = last.filter(|_| chance.percent(40)) {
            let path = format!("/partners/{id}/tax-form/revoke");
            self.made("ann", &path, &json!({"reason": "the seed says so"})).await?;
            self.told.forms.push(shop::revoked(&form, self.told.tick));
            return Ok(());
        }
        let (form, body) = shop::form(chance, &id, number, self.clock.now(), self.told.tick);
        let (status, answer) = self.ask("ann", Method::PUT, &format!("/partners/{id}/tax-form"), &body).await?;
        // One that was signed long enough ago has ended.
        if status == 422 && answer["detail"].as_str().is_some_and(|why| why.contains("signed then ended on")) {
            return Ok(());
        }
        if status != 200 {
            return Err(broken(format!("the tax form {body}: {status} {answer}")));
        }
        self.note(|| format!("  {form:?}"));
        self.told.forms.push(form);
        Ok(())
    }

    /// From how much on the payer must report, so that partners come near it.
    /// Time passes, and what is published on the days that begin is told before anything else happens on them.
    async fn pass(&mut self, seconds: i64) -> Outcome {
        let before = self.clock.now();
        self.clock.pass(seconds);
        self.forget_names();
        self.publish_rates(before).await
    }

    /// The rates of the days after that of a moment, up to today's.
    async fn publish_rates(&mut self, after: Timestamp) -> Outcome {
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        let days = std::iter::successors(day(after).tomorrow().ok(), |day| day.tomorrow().ok());
        let today = day(self.clock.now());
        let days = days.take_while(|day| self.abroad && *day <= today);
        let rates: Vec<_> = days.flat_map(|day| shop::rates(self.seed, day, self.told.tick)).collect();
        if rates.is_empty() {
            return Ok(());
        }
        let uri: Uri = "/api/v1/exchange-rates/import".parse().map_err(broken)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/csv"))]);
        let event = http_event(
            &Method::POST,
            &uri,
            &headers,
            &shop::rates_file(&rates).into(),
            Some(&claims("finance", "ann")),
        );
        let answer = self.api.http(event).await.map_err(broken)?;
        let report: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if report["applied"] != rates.len() {
            return Err(broken(format!("rates were not taken: {} {report}", answer.status)));
        }
        self.told.rates.extend(rates);
        Ok(())
    }

    async fn set_limits(&mut self) -> Outcome {
        let mut chance = Chance::of(self.seed, LIMITS);
        let mut years = Vec::new();
        for year in [2026_i16, 2027] {
            if let Some(limit) = *chance.pick(&[None, Some(1_000), Some(3_000), Some(10_000)]).unwrap_or(&None) {
                self.told.limits.insert(year, limit);
                years.push(json!({"year": year, "reportingLimit": shop::decimal(limit, 2)}));
            } else if let Some(limit) = self.told.limits.get(&2026).filter(|_| year == 2027).copied() {
                years.push(json!({"year": year, "reportingLimit": shop::decimal(limit, 2)}));
                self.told.limits.insert(year, limit);
            }
        }
        let (status, answer) = self.ask("ann", Method::PUT, "/tax/payer", &json!({"years": years})).await?;
        if status == 200 { Ok(()) } else { Err(broken(format!("the payer's limits: {status} {answer}"))) }
    }

    async fn publish_rules(&mut self, chance: &mut Chance, n: usize) -> Outcome {
        let partners = self.partners_of(n);
        let program = &self.told.programs[n];
        let mut rules = shop::rules(chance, program, &partners.iter().collect::<Vec<_>>());
        let mut besides = Chance::of(self.seed, RULES + ((n as u64) << 16) + program.rule_sets.len() as u64);
        for rule in &mut rules {
            rule.excludes_credit = ENGINE && besides.percent(20);
            rule.keeps_renewals = ENGINE && besides.percent(40);
        }
        let first = program.rule_sets.is_empty();
        let effective_from = if first {
            "2020-01-01T00:00:00Z".parse().map_err(broken)?
        } else {
            self.clock.now() + SignedDuration::from_secs(chance.from(400, 4 * 86_400))
        };
        let body = json!({
            "rationale": "the seed says so", "effectiveFrom": effective_from,
            "rules": rules.iter().map(|rule| shop::rule_body(rule, program.exponent)).collect::<Vec<_>>(),
        });
        let path = format!("/programs/{}/rule-sets", program.id);
        let version = self.made("ann", &path, &body).await?["version"].as_u64().unwrap_or_default();
        self.made("ann", &format!("{path}/{version}/publish"), &json!({})).await?;
        let version = u32::try_from(version).map_err(broken)?;
        self.note(|| format!("  version {version} of program {n} from {effective_from}: {rules:?}"));
        self.told.programs[n].rule_sets.push(RuleSet { version, effective_from, rules });
        Ok(())
    }

    /// A partner may earn nothing for a while: in fair weather, and before anything else happens they may again.
    async fn suspend(&mut self, chance: &mut Chance) -> Outcome {
        let n = chance.below(self.told.partners.len());
        let path = format!("/partners/{}", self.told.partners[n].id);
        let seconds = chance.from(60, 10 * 86_400);
        self.before_passing(chance, seconds).await?;
        self.pass(1).await?;
        self.made("ann", &format!("{path}/suspend"), &json!({})).await?;
        self.pass(seconds).await?;
        let shown = self.made("ben", &format!("{path}/activate"), &json!({})).await?;
        let last = shown["suspensions"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        let at = |end: &str| text(&last[end]).parse::<Timestamp>().map_err(broken);
        let (from, until) = (at("from")?, at("until")?);
        self.note(|| format!("  partner {n} was suspended from {from} to {until}"));
        self.told.partners[n].suspended.push((from, until));
        Ok(())
    }

    /// What has to come before so much time passes.
    async fn before_passing(&mut self, chance: &mut Chance, seconds: i64) -> Outcome {
        self.before_long(chance, seconds).await?;
        if self.books.forget() {
            self.take_turns(chance, usize::MAX).await?;
        }
        Ok(())
    }

    fn partners_of(&self, n: usize) -> Vec<Partner> {
        self.told.partners.iter().filter(|partner| partner.program == n).cloned().collect()
    }

    // --- Playing --------------------------------------------------------------------------------------------------

    async fn run(&mut self, script: &[Step]) -> Outcome {
        for step in script {
            let mut chance = Chance::of(self.seed, step.chance);
            self.note(|| format!("{:?}", step.act));
            self.act(step, &mut chance).await?;
            let turns = match chance.below(10) {
                0 | 1 => chance.below(8),
                2 => chance.below(60),
                _ => usize::MAX,
            };
            self.take_turns(&mut chance, turns).await?;
            self.steps += 1;
            self.audit()?;
        }
        self.come_to_rest().await
    }

    async fn take_turns(&mut self, chance: &mut Chance, turns: usize) -> Outcome {
        for _ in 0..turns {
            let Some((job, ended, struck)) = self.tasks.turn(chance).await else {
                if self.tasks.len() == 0 {
                    break;
                }
                continue;
            };
            self.ended(job, ended, struck)?;
        }
        Ok(())
    }

    fn lot(chance: &mut Chance) -> Lot {
        let odds = chance.pick(&[0, 0, 20, 60, 150]).copied().unwrap_or(0);
        let mortal = chance.pick(&[0, 0, 0, 15, 60]).copied().unwrap_or(0);
        Lot { chance: chance.fork(), odds, mortal }
    }

    fn instance(&self, chance: &mut Chance) -> Functions {
        let n = chance.below(self.instances.len());
        if n > 0 {
            self.sky.weather().note("clock_off");
        }
        self.instances[n].clone()
    }

    fn http(&mut self, chance: &mut Chance, job: Job, event: Value) {
        let (functions, lot) = (self.instance(chance), Self::lot(chance));
        self.tasks.start(job, lot, Box::pin(async move { functions.http(event).await.map(Reply::Http) }));
    }

    fn invoke(&mut self, chance: &mut Chance, job: Job, function: &'static str, payload: Value) {
        let (functions, lot) = (self.instance(chance), Self::lot(chance));
        // Now and then a function finds its time already over.
        let in_time = chance.percent(90);
        if !in_time {
            self.sky.weather().note("out_of_time");
        }
        let deadline = if in_time { SystemTime::now() + Duration::from_hours(1) } else { SystemTime::UNIX_EPOCH };
        let invocation = async move { functions.invoke(function, payload, deadline).await.map(Reply::Value) };
        self.tasks.start(job, lot, Box::pin(invocation));
    }

    #[allow(clippy::too_many_lines, reason = "one arm per act")]
    async fn act(&mut self, step: &Step, chance: &mut Chance) -> Outcome {
        match step.act {
            Act::Sell => {
                for _ in 0..=chance.below(self.crowd).min(step.most) {
                    self.sell(chance);
                }
            }
            Act::Click => self.click(chance).await?,
            Act::Refund => self.refund(chance),
            Act::Edit => self.edit(chance),
            Act::Withdraw => self.withdraw(chance),
            Act::Adjust => self.adjust(chance)?,
            Act::Bonus => self.bonus(chance)?,
            Act::Attribute => self.attribute(chance)?,
            Act::Together => self.together(chance)?,
            Act::Contradict => self.contradict(chance),
            Act::Tell => {
                for _ in 0..=chance.below(self.crowd).min(step.most) {
                    self.tell(chance)?;
                }
            }
            Act::Garbage => self.garbage(chance)?,
            Act::Poison => self.poison(chance).await?,
            Act::Deliver => self.deliver(chance).await?,
            Act::Publish => self.publish(chance),
            Act::Mature => self.fire(chance, "mature-commissions"),
            Act::Batch => self.fire(chance, "batch-payouts"),
            Act::Review => self.review(chance)?,
            Act::Run => self.start_run(chance)?,
            Act::Request => self.request(chance)?,
            Act::Approve => self.approve(chance)?,
            Act::SendBack => self.about_payouts(chance, "send-back", &["approved"])?,
            Act::Cancel => self.about_payouts(chance, "cancel", &["pending", "approved"])?,
            Act::Settle => {
                for _ in 0..=chance.below(3).min(step.most) {
                    self.settle(chance).await?;
                }
            }
            Act::Rules => {
                let n = chance.below(self.told.programs.len());
                self.publish_rules(chance, n).await?;
            }
            Act::Partner => {
                let n = chance.below(self.told.programs.len());
                self.found_partner(chance, n).await?;
            }
            Act::Suspend => self.suspend(chance).await?,
            Act::Details => self.change_details(chance)?,
            Act::Look if chance.percent(25) => self.own_audit().await?,
            Act::Look if chance.percent(25) => self.download().await?,
            Act::Look => self.look(chance)?,
            Act::Pass => {
                let seconds = match chance.below(4) {
                    0 => chance.from(1, 300),
                    1 => chance.from(60, 86_400),
                    2 => chance.from(86_400, 10 * 86_400),
                    _ => chance.from(10 * 86_400, 40 * 86_400),
                };
                self.before_passing(chance, seconds).await?;
                self.pass(seconds).await?;
            }
            Act::Books => {
                for _ in 0..=chance.below(3).min(step.most) {
                    self.deal(chance).await?;
                }
            }
            Act::Remit => {
                for _ in 0..=chance.below(3).min(step.most) {
                    self.remit(chance).await?;
                }
            }
            Act::Finish => self.take_turns(chance, usize::MAX).await?,
        }
        Ok(())
    }

    fn sell(&mut self, chance: &mut Chance) {
        let at = chance.below(self.told.programs.len());
        let mut partners = self.partners_of(at);
        partners.retain(|partner| !partner.quiet);
        let program = &self.told.programs[at];
        self.orders += 1;
        let source = if chance.percent(40) { api_source(&program.id) } else { self.connections[at].id.clone() };
        let order = format!("order-{}", self.orders);
        let partners: Vec<_> = partners.iter().collect();
        let known = |sale: &&Sale| sale.program == at && sale.customer != Customer::default();
        let earlier: Vec<_> = self.told.sales.iter().filter(known).collect();
        let mut sale = match chance.pick(&earlier) {
            Some(sale) if ENGINE && chance.percent(8) => {
                shop::duplicate(chance, sale, &source, order, self.clock.now())
            }
            _ => shop::sale(chance, (at, program), &source, order, &partners, self.clock.now()),
        };
        let mut money = Chance::of(self.seed, SOLD + self.orders);
        if self.abroad && money.percent(30) {
            sale.currency = shop::other_currency(&mut money, program);
        }
        let mut credit = Chance::of(self.seed, CREDIT + self.orders);
        if ENGINE && credit.percent(25) {
            sale.store_credit = credit.from(0, sale.total);
        }
        let of_program = |touch: &&Touch| self.told.partners[touch.partner].program == at;
        let touches: Vec<_> = self.told.touches.iter().filter(of_program).collect();
        if let Some(touch) = chance.pick(&touches)
            && chance.percent(40)
        {
            shop::touched(chance, &mut sale, touch);
        }
        self.note(|| format!("  {sale:?}"));
        self.told.sales.push(sale);
        self.untold.push(Telling::Sale(self.told.sales.len() - 1));
    }

    /// In fair weather, since nobody else would know of a touch whose answer was lost.
    async fn click(&mut self, chance: &mut Chance) -> Outcome {
        let Some(n) = (!self.told.partners.is_empty()).then(|| chance.below(self.told.partners.len())) else {
            return Ok(());
        };
        let partner = &self.told.partners[n];
        if partner.quiet {
            return Ok(());
        }
        let of_program = |touch: &&Touch| self.told.partners[touch.partner].program == partner.program;
        let known: Vec<_> = self.told.touches.iter().filter(of_program).map(|touch| touch.visitor.clone()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"),
        );
        let again = chance.percent(70);
        if let Some(visitor) = chance.pick(&known).filter(|_| again) {
            headers.insert(COOKIE, format!("pp_visitor={visitor}").parse().map_err(broken)?);
        }
        let channel = if chance.percent(80) { chance.pick(&shop::CHANNELS).copied() } else { None };
        let query = channel.map(|channel| format!("?channel={channel}")).unwrap_or_default();
        let uri: Uri = format!("/r/{}{query}", partner.code).parse().map_err(broken)?;
        let answer =
            self.api.http(http_event(&Method::GET, &uri, &headers, &Bytes::new(), None)).await.map_err(broken)?;
        let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
        let named = |name: &str| {
            let (_, value) = location.split_once(&format!("{name}="))?;
            value.split('&').next().map(str::to_owned)
        };
        let (code, click, visitor) = (named("ref"), named("click_id"), named("visitor_id"));
        // Only where the last touch takes all may the shop learn whose it was.
        let last_touch = self.told.programs[partner.program].attribution.model == Model::LastTouch;
        let told = (code.as_ref() == Some(&partner.code), click.is_some()) == (last_touch, last_touch);
        let Some(visitor) = visitor.filter(|_| told) else {
            return Err(failure("a link leads on, and is remembered", format!("{uri}: {} {location}", answer.status)));
        };
        let touch = Touch { visitor, click, partner: n, at: self.clock.now(), channel };
        self.note(|| format!("  {touch:?}"));
        self.told.touches.push(touch);
        // Two touches at one moment would have no order.
        self.pass(1).await
    }

    fn refund(&mut self, chance: &mut Chance) {
        let Some(sale) = chance.pick(&self.told.sales).cloned() else { return };
        self.orders += 1;
        let mut refund = shop::refund(chance, &sale, format!("refund-{}", self.orders), self.clock.now());
        let rejected = self.items.lines().into_iter().filter(|line| line["state"] == "rejected" && line["amount"] == 0);
        let orders: Vec<_> = rejected.map(|line| text(&line["order"])).collect();
        // Hardly ever by chance alone: what earned nothing, was rejected, and goes back whole.
        if let Some(sale) =
            chance.pick(&orders).and_then(|order| self.told.sales.iter().find(|sale| sale.order == *order))
            && ENGINE
            && chance.percent(30)
        {
            (refund.program, refund.source, refund.order) = (sale.program, sale.source.clone(), sale.order.clone());
            (refund.occurred_at, refund.total) = (refund.occurred_at.max(sale.occurred_at), sale.total);
            (refund.tax, refund.shipping, refund.items) = (None, None, None);
        }
        self.note(|| format!("  {refund:?}"));
        self.told.refunds.push(refund);
        self.untold.push(Telling::Refund(self.told.refunds.len() - 1));
    }

    fn edit(&mut self, chance: &mut Chance) {
        let Some(sale) = chance.pick(&self.told.sales).cloned() else { return };
        self.orders += 1;
        let of_order = |edit: &&Edit| (&edit.source, &edit.order) == (&sale.source, &sale.order);
        let earlier = self.told.edits.iter().rfind(of_order);
        let edit = shop::edit(chance, &sale, earlier, format!("edit-{}", self.orders), self.clock.now());
        self.note(|| format!("  {edit:?}"));
        self.told.edits.push(edit);
        self.untold.push(Telling::Edit(self.told.edits.len() - 1));
    }

    fn withdraw(&mut self, chance: &mut Chance) {
        let Some(refund) = chance.pick(&self.told.refunds).cloned() else { return };
        self.orders += 1;
        let withdrawal = shop::withdrawal(chance, &refund, format!("withdrawal-{}", self.orders), self.clock.now());
        self.note(|| format!("  {withdrawal:?}"));
        self.told.withdrawals.push(withdrawal);
        self.untold.push(Telling::Withdrawal(self.told.withdrawals.len() - 1));
    }

    /// The same id with another amount: whichever comes first is the one.
    fn contradict(&mut self, chance: &mut Chance) {
        if ENGINE && chance.percent(30) {
            self.contradict_later(chance);
        } else if chance.percent(50) {
            let Some(mut sale) = chance.pick(&self.told.sales).cloned() else { return };
            let more = chance.from(1, 1_000);
            sale.total += more;
            if let Some(item) = sale.items.first_mut() {
                item.amount += more;
            }
            sale.accepted = false;
            let mut money = Chance::of(self.seed, SOLD + self.told.sales.len() as u64);
            if self.abroad && money.percent(30) {
                sale.currency = shop::other_currency(&mut money, &self.told.programs[sale.program]);
            }
            self.note(|| format!("  {sale:?}"));
            self.told.sales.push(sale);
            self.untold.push(Telling::Sale(self.told.sales.len() - 1));
        } else {
            let Some(mut refund) = chance.pick(&self.told.refunds).cloned() else { return };
            refund.total += chance.from(1, 1_000);
            refund.accepted = false;
            self.note(|| format!("  {refund:?}"));
            self.told.refunds.push(refund);
            self.untold.push(Telling::Refund(self.told.refunds.len() - 1));
        }
    }

    fn contradict_later(&mut self, chance: &mut Chance) {
        if chance.percent(60) {
            let Some(mut edit) = chance.pick(&self.told.edits).cloned() else { return };
            let more = chance.from(1, 1_000);
            edit.total += more;
            if let Some(item) = edit.items.first_mut() {
                item.amount += more;
            }
            edit.accepted = false;
            self.note(|| format!("  {edit:?}"));
            self.told.edits.push(edit);
            self.untold.push(Telling::Edit(self.told.edits.len() - 1));
        } else {
            let Some(mut withdrawal) = chance.pick(&self.told.withdrawals).cloned() else { return };
            let Some(refund) = chance.pick(&self.told.refunds) else { return };
            withdrawal.refund.clone_from(&refund.id);
            withdrawal.accepted = false;
            self.note(|| format!("  {withdrawal:?}"));
            self.told.withdrawals.push(withdrawal);
            self.untold.push(Telling::Withdrawal(self.told.withdrawals.len() - 1));
        }
    }

    fn tell(&mut self, chance: &mut Chance) -> Outcome {
        if self.untold.is_empty() {
            return Ok(());
        }
        // Any of them, so refunds may come before their sale; and some stay to be told again.
        let n = chance.below(self.untold.len());
        if n > 0 {
            self.sky.weather().note("reordered");
        }
        let telling = self.untold[n].clone();
        if chance.percent(75) {
            self.untold.remove(n);
        } else {
            self.sky.weather().note("told_again");
        }
        let event = self.telling_event(&telling)?;
        self.note(|| format!("  {telling:?}"));
        self.http(chance, Job::Tell(telling), event);
        Ok(())
    }

    fn telling_event(&self, telling: &Telling) -> Outcome<Value> {
        let (program, source, body) = match telling {
            Telling::Sale(n) => {
                let sale = &self.told.sales[*n];
                let program = &self.told.programs[sale.program];
                (sale.program, &sale.source, shop::sale_body(sale, program))
            }
            Telling::Refund(n) => {
                let refund = &self.told.refunds[*n];
                let program = &self.told.programs[refund.program];
                (refund.program, &refund.source, shop::refund_body(refund, program))
            }
            Telling::Edit(n) => {
                let edit = &self.told.edits[*n];
                (edit.program, &edit.source, shop::edit_body(edit, &self.told.programs[edit.program]))
            }
            Telling::Withdrawal(n) => {
                let withdrawal = &self.told.withdrawals[*n];
                let program = &self.told.programs[withdrawal.program];
                (withdrawal.program, &withdrawal.source, shop::withdrawal_body(withdrawal, program))
            }
        };
        let connection = &self.connections[program];
        if *source == connection.id {
            let request = connection.delivery("", &body.to_string());
            let uri: Uri = request.path.parse().map_err(broken)?;
            Ok(http_event(&request.method, &uri, &request.headers, &request.body, None))
        } else {
            api_event("ann", "admin", &Method::POST, "/conversions", Some(&body))
        }
    }

    /// What is well signed but no event is taken and filed; what is not signed, or comes from nowhere, is turned away.
    fn garbage(&mut self, chance: &mut Chance) -> Outcome {
        let Some(connection) = chance.pick(&self.connections) else { return Ok(()) };
        let event = shop::sale_body(&shop::worthless(self.clock.now()), &self.told.programs[0]).to_string();
        let (mut request, mut expected) = match chance.below(3) {
            0 => (connection.delivery("", "{\"no\": \"event\"}"), 200),
            1 => (connection.delivery("", "\u{0}not json"), 200),
            _ => (connection.unsigned("", &event), 401),
        };
        if chance.percent(20) {
            (request.path, expected) = ("/webhooks/src_00000000000000000000000000".to_owned(), 401);
        }
        let uri: Uri = request.path.parse().map_err(broken)?;
        let event = http_event(&request.method, &uri, &request.headers, &request.body, None);
        self.http(chance, Job::Look(request.path, expected), event);
        Ok(())
    }

    async fn poison(&mut self, chance: &mut Chance) -> Outcome {
        self.sky.weather().note("poison");
        let queues = &self.plain.queues;
        let url = if chance.percent(50) { &queues.conversions_url } else { &queues.drafts_url };
        let sent = queues.sqs.send_message().queue_url(url).message_body("no message of ours").send().await;
        sent.map(drop).map_err(broken)
    }

    /// Takes everything that waits in the queues.
    async fn collect(&mut self) -> Outcome {
        for queue in QUEUES {
            let queues = &self.plain.queues;
            let url = match queue {
                CONVERSIONS => &queues.conversions_url,
                DRAFTS => &queues.drafts_url,
                QUICKBOOKS => &queues.quickbooks_url,
                _ => &queues.submissions_url,
            };
            loop {
                let received = queues
                    .sqs
                    .receive_message()
                    .queue_url(url)
                    .max_number_of_messages(10)
                    .message_system_attribute_names(MessageSystemAttributeName::All)
                    .send()
                    .await
                    .map_err(broken)?;
                let messages = received.messages.unwrap_or_default();
                if messages.is_empty() {
                    break;
                }
                for message in messages {
                    let handle = message.receipt_handle().unwrap_or_default();
                    queues.sqs.delete_message().queue_url(url).receipt_handle(handle).send().await.map_err(broken)?;
                    let poison = message.body() == Some("no message of ours");
                    self.mail.push(Mail { queue, message, failures: 0, poison });
                }
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, chance: &mut Chance) -> Outcome {
        let queue = match chance.below(20) {
            0..12 => CONVERSIONS,
            12..19 => DRAFTS,
            _ => SUBMISSIONS,
        };
        self.deliver_from(chance, queue).await
    }

    async fn deliver_from(&mut self, chance: &mut Chance, queue: &'static str) -> Outcome {
        self.collect().await?;
        let mut batch = Vec::new();
        let most = chance.below(6);
        for _ in 0..=most {
            let waiting: Vec<usize> = (0..self.mail.len()).filter(|n| self.mail[*n].queue == queue).collect();
            let Some(n) = chance.pick(&waiting).copied() else { break };
            if n != waiting[0] {
                self.sky.weather().note("overtaken");
            }
            if chance.percent(15) {
                // At least once: it stays, and comes again.
                self.sky.weather().note("duplicated");
                batch.push(self.mail[n].clone());
            } else {
                batch.push(self.mail.remove(n));
            }
        }
        self.hand_over(chance, queue, batch);
        Ok(())
    }

    fn hand_over(&mut self, chance: &mut Chance, queue: &'static str, batch: Vec<Mail>) {
        if batch.is_empty() {
            return;
        }
        let messages: Vec<_> = batch.iter().map(|mail| mail.message.clone()).collect();
        let function = consumer(queue);
        self.note(|| format!("  {} message(s) to {function}", messages.len()));
        self.invoke(chance, Job::Mail(batch), function, sqs_event(queue, &messages));
    }

    fn publish(&mut self, chance: &mut Chance) {
        if chance.percent(20) && self.published > 0 {
            self.sky.weather().note("redelivered");
            self.published -= 1 + chance.below(self.published.min(10));
        }
        let from = self.published;
        let to = (from + 1 + chance.below(60)).min(self.records.len());
        self.publish_range(chance, from, to);
    }

    /// What the mapping's filter lets through of a part of the stream.
    fn entries_within(&self, from: usize, to: usize) -> Vec<Value> {
        self.records[from..to].iter().filter(|record| Stream::is_inserted_entry(record)).cloned().collect()
    }

    fn publish_range(&mut self, chance: &mut Chance, from: usize, to: usize) {
        let matching = self.entries_within(from, to);
        if matching.is_empty() {
            self.published = self.published.max(to);
        } else {
            self.invoke(chance, Job::Records(from, to), "publish-changes", stream_event("stream", matching));
        }
    }

    fn fire(&mut self, chance: &mut Chance, function: &'static str) {
        let times = if chance.percent(25) {
            self.sky.weather().note("fired_twice");
            2
        } else {
            1
        };
        for _ in 0..times {
            let event = schedule_event(function, self.clock.now());
            self.invoke(chance, Job::Schedule, function, event);
        }
    }

    // --- People ---------------------------------------------------------------------------------------------------

    fn command(
        &mut self,
        chance: &mut Chance,
        about: About,
        verb: &'static str,
        path: &str,
        ids: Vec<String>,
        body: &Value,
    ) -> Outcome {
        let people: &[&str] = if about == About::Payouts { &CASHIERS } else { &PEOPLE };
        let by = chance.pick(people).copied().unwrap_or("ann");
        self.note(|| format!("  {by}: {path} {body}"));
        self.tell_command(by, about, verb, ids, body);
        let event = api_event(by, "admin", &Method::POST, path, Some(body))?;
        self.http(chance, Job::Command(self.told.commands.len() - 1), event);
        Ok(())
    }

    fn tell_command(&mut self, by: &str, about: About, verb: &'static str, ids: Vec<String>, body: &Value) {
        let reason = body["reason"].as_str().map(str::to_owned);
        let Besides { amount, versions, payments, format, run, method, ways } = std::mem::take(&mut self.telling);
        self.told.commands.push(Command {
            by: by.to_owned(),
            about,
            verb,
            ids,
            reason,
            amount,
            versions,
            payments,
            format,
            run,
            method,
            ways,
            at: self.clock.now(),
            answer: None,
        });
    }

    fn bonus(&mut self, chance: &mut Chance) -> Outcome {
        let Some(partner) = chance.pick(&self.told.partners).cloned() else { return Ok(()) };
        let program = &self.told.programs[partner.program];
        let amount = if chance.percent(30) { -chance.from(1, 3_000) } else { chance.from(1, 10_000) };
        self.telling.amount = Some(amount);
        let body = json!({
            "partnerId": partner.id, "programId": program.id, "amount": shop::decimal(amount, program.exponent),
            "reason": "the seed says so",
        });
        self.command(chance, About::Partners, "bonus", "/commissions", vec![partner.id], &body)
    }

    fn payouts_in(&self, states: &[&str], anything: bool) -> Vec<Value> {
        let payouts = self.items.payouts().into_iter();
        payouts.filter(|payout| anything || states.iter().any(|state| payout["state"] == *state)).cloned().collect()
    }

    /// A run by hand: about everybody, or only some, and up to now or an earlier moment.
    fn start_run(&mut self, chance: &mut Chance) -> Outcome {
        let n = chance.below(self.told.programs.len());
        let program = self.told.programs[n].id.clone();
        let partners: Vec<String> = self.partners_of(n).into_iter().map(|partner| partner.id).collect();
        let (mut run, about) = (ByHand::default(), chance.below(10));
        for partner in partners {
            match about {
                0 | 1 if chance.percent(60) => run.include.push(partner),
                2 if chance.percent(60) => run.exclude.push(partner),
                3 if chance.percent(40) => run.include.push(partner),
                3 if chance.percent(60) => run.exclude.push(partner),
                _ => {}
            }
        }
        let back = SignedDuration::from_secs(SKEW_SECONDS + chance.from(0, 20 * 86_400));
        run.cut_off = chance.percent(25).then(|| self.clock.now() - back);
        let body = json!({
            "programId": program, "preview": chance.percent(15), "include": run.include, "exclude": run.exclude,
            "cutOff": run.cut_off,
        });
        let verb = if body["preview"] == true { "preview" } else { "runs" };
        self.telling.run = Some(run);
        self.command(chance, About::Partners, verb, "/runs", vec![program], &body)
    }

    /// A payout on demand.
    fn request(&mut self, chance: &mut Chance) -> Outcome {
        let Some(partner) = chance.pick(&self.told.partners).cloned() else { return Ok(()) };
        let program = &self.told.programs[partner.program];
        let mut body = json!({"partnerId": partner.id, "programId": program.id});
        if chance.percent(30) {
            body["amount"] = json!(shop::decimal(chance.from(1, 20_000), program.exponent));
        }
        let mut besides = chance.fork();
        // Mostly a way that the partner has.
        let kinds: Vec<_> = partner.ways.last().into_iter().flat_map(|ways| &ways.all).map(|way| way.kind).collect();
        let kind = if besides.percent(90) { besides.pick(&kinds) } else { besides.pick(&KINDS) };
        if let Some(kind) = kind.copied().filter(|_| besides.percent(45)) {
            body["method"] = json!(kind);
            self.telling.method = Some(kind);
        }
        if besides.percent(25) {
            return self.request_own(chance, &partner, &body);
        }
        if chance.percent(20) {
            body["override"] = json!("the seed says so");
        }
        self.command(chance, About::Partners, "payouts", "/payouts", vec![partner.id], &body)
    }

    /// A partner asks for what is their own.
    fn request_own(&mut self, chance: &mut Chance, partner: &Partner, body: &Value) -> Outcome {
        let number = self.told.partners.iter().position(|told| told.id == partner.id).unwrap_or_default();
        let by = format!("partner{number}");
        let other =
            chance.pick(&self.told.partners).filter(|other| other.id != partner.id).map(|other| other.id.clone());
        if let Some(other) = other.filter(|_| chance.percent(15)) {
            // Of others, there is nothing to be had, and nothing to be told.
            self.telling.method = None;
            let body = json!({"partnerId": other, "programId": body["programId"]});
            let event = api_event(&by, "partner", &Method::POST, "/payouts", Some(&body))?;
            self.http(chance, Job::Look(format!("{by} /payouts {body}"), 404), event);
            return Ok(());
        }
        self.note(|| format!("  {by}: /payouts {body}"));
        self.tell_command(&by, About::Partners, "payouts", vec![partner.id.clone()], body);
        let event = api_event(&by, "partner", &Method::POST, "/payouts", Some(body))?;
        self.http(chance, Job::Command(self.told.commands.len() - 1), event);
        Ok(())
    }

    fn approve(&mut self, chance: &mut Chance) -> Outcome {
        let anything = chance.percent(5);
        let payouts = self.payouts_in(&["pending"], anything);
        let mut chosen: Vec<&Value> = Vec::new();
        for _ in 0..=chance.below(3) {
            if let Some(payout) = chance.pick(&payouts)
                && !chosen.contains(&payout)
            {
                chosen.push(payout);
            }
        }
        if chosen.is_empty() {
            return if chance.percent(50) { self.request(chance) } else { Ok(()) };
        }
        let ids: Vec<String> = chosen.iter().map(|payout| text(&payout["id"])).collect();
        let body = if chance.percent(30) {
            json!({"payoutIds": ids})
        } else {
            let stale = u64::from(chance.percent(10));
            let seen = |payout: &&Value| {
                json!({
                    "id": payout["id"], "version": payout["contentVersion"].as_u64().unwrap_or_default() + stale,
                    "amount": shop::decimal(payout["amount"].as_i64().unwrap_or_default(), self.exponent_of(payout)),
                    "linesHash": payout["linesHash"],
                })
            };
            let version = |payout: &&Value| payout["contentVersion"].as_u64().unwrap_or_default() + stale;
            let body = json!({"payouts": chosen.iter().map(seen).collect::<Vec<_>>()});
            self.telling.versions = chosen.iter().map(|payout| (text(&payout["id"]), version(payout))).collect();
            body
        };
        self.command(chance, About::Payouts, "approve", "/payouts/approve", ids, &body)
    }

    fn exponent_of(&self, payout: &Value) -> u32 {
        let program = self.told.programs.iter().find(|program| payout["program"] == program.id.as_str());
        program.map_or(2, |program| program.exponent)
    }

    fn about_payouts(&mut self, chance: &mut Chance, verb: &'static str, states: &[&str]) -> Outcome {
        let anything = chance.percent(10);
        let mut payouts = self.payouts_in(states, anything);
        if matches!(verb, "retry" | "void") {
            payouts.retain(|payout| !self.is_seen_there(payout));
        }
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..=chance.below(3) {
            let id = chance.pick(&payouts).map(|payout| text(&payout["id"]));
            ids.extend(id.filter(|id| !ids.contains(id)));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let one = |id: &String| json!({"id": id, "reason": "the seed says so"});
        let body = json!({"payouts": ids.iter().map(one).collect::<Vec<_>>()});
        self.command(chance, About::Payouts, verb, &format!("/payouts/{verb}"), ids, &body)
    }

    /// What became of money, as people tell it, and files that have it sent.
    async fn settle(&mut self, chance: &mut Chance) -> Outcome {
        match chance.below(20) {
            18 | 19 => {
                let number = chance.below(self.told.partners.len());
                self.give_form(chance, number).await
            }
            0 => self.about_payouts(chance, "mark-failed", &["submitted", "partially_paid"]),
            1 | 2 => self.about_payouts(chance, "mark-returned", &["submitted", "partially_paid", "paid"]),
            3 | 4 => self.about_payouts(chance, "retry", &["failed", "returned"]),
            5 => self.about_payouts(chance, "void", &["submitted", "partially_paid", "failed", "returned"]),
            6 | 7 => self.exclude(chance),
            8..=10 => self.export(chance),
            _ => self.pay(chance),
        }
    }

    /// Payments of all that is open, of parts, of too much, and now and then one that was told before.
    fn pay(&mut self, chance: &mut Chance) -> Outcome {
        let anything = chance.percent(10);
        let payouts = self.payouts_in(&["approved", "submitted", "partially_paid"], anything);
        let mut payments: Vec<Payment> = Vec::new();
        let mut bodies = Vec::new();
        for _ in 0..=chance.below(3) {
            let Some(payout) = chance.pick(&payouts) else { break };
            let id = text(&payout["id"]);
            if payments.iter().any(|payment| payment.payout == id) {
                continue;
            }
            self.orders += 1;
            let Some((open, currency)) = self.auditor.open(&id) else { continue };
            let open = i64::try_from(open).unwrap_or_default();
            let amount = match chance.below(10) {
                0..=3 if open > 1 => Some(chance.from(1, open - 1)),
                4 => Some(open),
                5 => Some(chance.from(0, 2 * open.max(1))),
                _ => None,
            };
            let back = SignedDuration::from_secs(chance.from(0, 40 * 86_400));
            let mut payment = Payment {
                payout: id.clone(),
                reference: chance.percent(90).then(|| format!("wire {}", self.orders)),
                amount,
                at: chance.percent(20).then(|| self.clock.now() - back - SignedDuration::from_secs(SKEW_SECONDS)),
            };
            let earlier = self.told.commands.iter().flat_map(|command| &command.payments);
            let earlier: Vec<_> = earlier.filter(|payment| payment.payout == id && payment.amount.is_some()).collect();
            let again = chance.percent(45);
            if let Some(said) = chance.pick(&earlier).filter(|_| again) {
                payment = (*said).clone();
            }
            bodies.push(json!({
                "id": id, "reference": payment.reference, "paidAt": payment.at,
                "amount": payment.amount.map(|amount| shop::decimal(amount, exponent(currency))),
            }));
            payments.push(payment);
        }
        if payments.is_empty() {
            return Ok(());
        }
        let ids = payments.iter().map(|payment| payment.payout.clone()).collect();
        self.telling.payments = payments;
        self.command(chance, About::Payouts, "mark-paid", "/payouts/mark-paid", ids, &json!({"payouts": bodies}))
    }

    /// Some commissions are to wait for another payout.
    fn exclude(&mut self, chance: &mut Chance) -> Outcome {
        let payouts = self.payouts_in(&["pending", "approved"], false);
        let Some(id) = chance.pick(&payouts).map(|payout| text(&payout["id"])) else { return Ok(()) };
        let lines: Vec<_> = self.items.lines().into_iter().filter(|line| line["payout"] == id.as_str()).collect();
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..=chance.below(2) {
            let line = chance.pick(&lines).map(|line| text(&line["id"]));
            ids.extend(line.filter(|line| !ids.contains(line)));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let body = json!({"id": id, "commissionIds": ids, "reason": "the seed says so"});
        ids.push(id);
        self.command(chance, About::Payouts, "exclude", "/payouts/exclude", ids, &body)
    }

    fn export(&mut self, chance: &mut Chance) -> Outcome {
        let Some(program) = chance.pick(&self.told.programs).map(|program| program.id.clone()) else { return Ok(()) };
        let format = *chance.pick(&FORMATS).unwrap_or(&"bank");
        let body = json!({"programId": program, "format": format});
        self.telling.format = Some(format);
        self.command(chance, About::Programs, "exports", "/exports", vec![program], &body)
    }

    fn exports(&self) -> Vec<String> {
        let complete = |((pk, sk), item): (&(String, String), &Value)| {
            let whole = pk.starts_with("EXP#") && sk == "EXP" && item["state"] == "complete";
            whole.then(|| text(&item["id"]))
        };
        self.items.all().iter().filter_map(complete).collect()
    }

    /// Some batch's files, which are the same whenever somebody asks.
    async fn download(&mut self) -> Outcome {
        for export in self.exports() {
            let count = self.items.all().get(&(format!("EXP#{export}"), "EXP".to_owned()));
            let count = count.and_then(|item| item["files"].as_array()).map_or(0, Vec::len);
            let mut files = Vec::new();
            for number in 0..count {
                let path = format!("/exports/{export}/files/{number}");
                let event = api_event("ann", "admin", &Method::GET, &path, None)?;
                let answer = self.api.http(event).await.map_err(broken)?;
                let file = String::from_utf8_lossy(&answer.body).into_owned();
                let first = self.downloads.entry(path.clone()).or_insert_with(|| file.clone());
                if answer.status.as_u16() != 200 || *first != file {
                    let what = format!("{path}: {} {file:?}, which was {first:?}", answer.status);
                    return Err(failure("a batch's file is the same whenever it is asked for", what));
                }
                files.push(file);
            }
            let checked = self.auditor.files(self.items.all(), &export, &files);
            checked.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
        }
        Ok(())
    }

    /// Everything that waits for a file, in fair weather.
    async fn export_all(&mut self, chance: &mut Chance) -> Outcome {
        let programs: Vec<_> = self.told.programs.iter().map(|program| program.id.clone()).collect();
        for program in programs {
            for format in FORMATS {
                let path = "/exports";
                let body = json!({"programId": program, "format": format});
                self.telling.format = Some(format);
                self.tell_command("ann", About::Programs, "exports", vec![program.clone()], &body);
                let event = api_event("ann", "admin", &Method::POST, path, Some(&body))?;
                let functions = self.instances[0].clone();
                let lot = Lot { chance: chance.fork(), odds: 0, mortal: 0 };
                let answer = async move { functions.http(event).await.map(Reply::Http) };
                self.tasks.start(Job::Command(self.told.commands.len() - 1), lot, Box::pin(answer));
                self.take_turns(chance, usize::MAX).await?;
            }
        }
        self.audit()?;
        let left = self.auditor.left_out_of_files(self.items.all());
        left.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
        self.download().await
    }

    fn look(&mut self, chance: &mut Chance) -> Outcome {
        let Some(n) = (!self.told.partners.is_empty()).then(|| chance.below(self.told.partners.len())) else {
            return Ok(());
        };
        let other = chance.below(self.told.partners.len());
        let id = |n: usize| self.told.partners[n].id.clone();
        let lists = ["/balances?partnerId=", "/commissions?limit=5&partnerId=", "/payouts?partnerId="];
        let list = chance.pick(&lists).copied().unwrap_or(lists[0]);
        let who = format!("partner{n}");
        let (path, role, status) = match chance.below(4) {
            0 if other != n => (format!("{list}{}", id(other)), "partner", 404),
            1 => (format!("{list}{}", id(n)), "partner", 200),
            2 => ("/exceptions?status=open".to_owned(), "partner", 403),
            _ => (format!("{list}{}", id(n)), "admin", 200),
        };
        let event = api_event(&who, role, &Method::GET, &path, None)?;
        self.http(chance, Job::Look(format!("{role} {path}"), status), event);
        Ok(())
    }

    // --- What came of it ------------------------------------------------------------------------------------------

    #[allow(clippy::too_many_lines, reason = "one arm per job")]
    fn ended(&mut self, job: Job, ended: Ended<Answered>, struck: u32) -> Outcome {
        self.note(|| {
            let how = match &ended {
                Ended::Answered(Ok(Reply::Http(answer))) => {
                    format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body))
                }
                Ended::Answered(Ok(Reply::Value(value))) => value.to_string(),
                Ended::Answered(Err(failed)) => failed.to_string(),
                Ended::Killed => "killed".to_owned(),
                Ended::Panicked(why) => format!("panicked: {why}"),
            };
            let job = match &job {
                Job::Mail(batch) => format!("{} message(s)", batch.len()),
                other => format!("{other:?}"),
            };
            format!("  = {job}, struck {struck} time(s): {how}")
        });
        if let Ended::Panicked(why) = &ended {
            return Err(failure("no function panics", format!("{job:?}: {why}")));
        }
        let status = match &ended {
            Ended::Answered(Ok(Reply::Http(answer))) => Some(answer.status.as_u16()),
            _ => None,
        };
        if struck == 0 && status.is_some_and(|status| status >= 500) {
            let what = format!("{job:?} was answered {status:?} in fair weather: {ended:?}");
            return Err(failure("no request fails by itself", what));
        }
        match (job, ended) {
            (Job::Tell(telling), _) => match status {
                Some(status) if status < 300 => match telling {
                    Telling::Sale(n) => self.told.sales[n].accepted = true,
                    Telling::Refund(n) => self.told.refunds[n].accepted = true,
                    Telling::Edit(n) => self.told.edits[n].accepted = true,
                    Telling::Withdrawal(n) => self.told.withdrawals[n].accepted = true,
                },
                Some(status) if status < 500 && status != 429 => {}
                // Whoever was not answered tells again.
                _ => self.untold.push(telling),
            },
            (Job::Schedule, _) => {}
            (Job::Webhook(webhook), _) => {
                if status != Some(200) {
                    self.not_heard(webhook);
                }
            }
            (Job::Notice(notice), _) => {
                if status != Some(200) {
                    self.not_noticed(notice);
                }
            }
            (Job::Pretended, _) => Self::pretended(status)?,
            (Job::Mail(batch), Ended::Answered(Ok(Reply::Value(answer)))) => {
                let failed = |mail: &Mail| {
                    let failures = answer["batchItemFailures"].as_array().into_iter().flatten();
                    failures.into_iter().any(|failure| failure["itemIdentifier"].as_str() == mail.message.message_id())
                };
                for mut mail in batch {
                    if failed(&mail) {
                        mail.failures += 1;
                        // Of the same payout, another may have had the last word.
                        let races = matches!(mail.queue, SUBMISSIONS | QUICKBOOKS) && !self.calm;
                        if struck == 0 && !mail.poison && self.tasks.len() == 0 && !races && !self.renews_tokens() {
                            let what = format!("{:?} failed in fair weather", mail.message.body());
                            return Err(failure("each queue record ends somewhere", what));
                        }
                        // Poison goes to the dead letters after five tries, everything else comes again.
                        if !mail.poison || mail.failures < 5 {
                            self.mail.push(mail);
                        }
                    } else if mail.poison {
                        return Err(failure(
                            "each queue record ends somewhere",
                            "an unreadable message was acknowledged",
                        ));
                    }
                }
            }
            (Job::Mail(batch), _) => self.mail.extend(batch),
            (Job::Records(from, to), Ended::Answered(Ok(Reply::Value(answer)))) => {
                let failed = answer["batchItemFailures"][0]["itemIdentifier"].as_str();
                let at = failed.and_then(|failed| {
                    (from..to).find(|n| self.records[*n]["dynamodb"]["SequenceNumber"].as_str() == Some(failed))
                });
                // Only on from where it stood, in case a later batch was delivered meanwhile.
                if from <= self.published {
                    self.published = self.published.max(at.unwrap_or(to));
                }
            }
            (Job::Records(..), _) => {}
            (Job::Call(n), Ended::Answered(Ok(Reply::Http(answer)))) => self.said(n, &answer),
            (Job::Command(n), Ended::Answered(Ok(Reply::Http(answer)))) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let results = body["results"].as_array().into_iter().flatten();
                let done = results.filter(|result| result["ok"] == true).map(|result| text(&result["id"])).collect();
                self.told.commands[n].answer = Some(Answer { status: answer.status.as_u16(), done });
            }
            (Job::Command(_) | Job::Call(_), _) => {}
            (Job::Look(what, expected), Ended::Answered(Ok(Reply::Http(answer)))) => {
                let found = answer.status.as_u16();
                if found != expected && found < 500 && found != 429 {
                    let what = format!("{what} was answered {found} instead of {expected}");
                    return Err(failure("nothing is seen by the wrong role or partner", what));
                }
            }
            (Job::Look(..), _) => {}
        }
        Ok(())
    }

    /// Shows the auditor what was written since it last looked.
    fn audit(&mut self) -> Outcome {
        self.observe();
        let mut entries = Vec::new();
        self.observe_payments();
        loop {
            let page = self.stream.next(&self.embedded).map_err(broken)?;
            let Some(last) = page.last() else { break };
            self.stream.delivered(&text(&last["dynamodb"]["SequenceNumber"])).map_err(broken)?;
            for record in page {
                let change = &record["dynamodb"];
                let key = (text(&change["Keys"]["pk"]["S"]), text(&change["Keys"]["sk"]["S"]));
                let item =
                    record["eventName"].as_str().filter(|name| *name != "REMOVE").map(|_| plain(&change["NewImage"]));
                if let Some(item) = &item {
                    if key.1.starts_with("PAY#") {
                        self.auditor.note_place(item);
                    } else if key.1 == "PAR" {
                        self.see_details(item)?;
                    }
                }
                if key.0.starts_with("JRN#") {
                    if record["eventName"] != "INSERT" {
                        return Err(failure("entries are written once", format!("{key:?} was changed")));
                    }
                    if let Some(entry) = &item {
                        let told: Value =
                            serde_json::from_str(entry["text"].as_str().unwrap_or_default()).unwrap_or_default();
                        *self.written.entry(text(&told["what"])).or_default() += 1;
                        let objection = text(&told["circumstances"]["objection"]);
                        if let Some(rule) = objection.strip_prefix("anomaly: ").and_then(|why| why.split(':').next()) {
                            *self.written.entry(format!("unusual: {rule}")).or_default() += 1;
                        }
                        entries.push((entry.clone(), told));
                    }
                }
                if key.1 == "RUN" && record["eventName"] == "INSERT" {
                    let kind = item.as_ref().map(|run| text(&run["kind"])).unwrap_or_default();
                    *self.written.entry(format!("run: {kind}")).or_default() += 1;
                }
                self.items.change(key, item);
                self.records.push(record);
            }
        }
        for (entry, told) in in_order(&self.told.calls, entries) {
            if let Err(violation) = self.auditor.read(&self.told, self.clock.now(), &entry) {
                self.note(|| format!("  against {told}"));
                return Err(failure(violation.invariant.as_str(), violation.what));
            }
        }
        let answered = self.auditor.calls(&self.told);
        answered.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
        let decided = self.auditor.decided(&self.told, self.clock.now(), self.items.all());
        decided.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
        self.told.tick += 1;
        self.tasks.now = (self.told.tick, self.clock.now());
        self.told.since = self.tasks.oldest();
        let mut compared = self.auditor.compare(&self.told, self.items.all());
        if self.books.changed() {
            compared = compared.and_then(|()| self.auditor.companies(&self.told));
        }
        if self.paypal.changed() {
            compared = compared.and_then(|()| self.auditor.payments(&self.told));
        }
        compared.map_err(|violation| failure(violation.invariant.as_str(), violation.what))
    }

    /// Fair weather from here on: everything that was told arrives, everything under way ends.
    async fn come_to_rest(&mut self) -> Outcome {
        self.note(|| "coming to rest".to_owned());
        let mut chance = Chance::of(self.seed, 2);
        self.take_turns(&mut chance, usize::MAX).await?;
        self.calm = true;
        if self.books.any {
            self.put_in_order(&mut chance).await?;
        }
        self.put_payments_in_order(&mut chance).await?;
        let calm = |chance: &mut Chance| Lot { chance: chance.fork(), odds: 0, mortal: 0 };
        // Twice through, since what comes to rest last may set something else in motion; and once more where something waits for its turn.
        let mut quiet = 0;
        for round in 0..40 {
            let before = self.entries();
            for telling in std::mem::take(&mut self.untold) {
                let event = self.telling_event(&telling)?;
                let functions = self.instances[0].clone();
                let lot = calm(&mut chance);
                let answer = async move { functions.http(event).await.map(Reply::Http) };
                self.tasks.start(Job::Tell(telling), lot, Box::pin(answer));
                self.take_turns(&mut chance, usize::MAX).await?;
            }
            for function in ["mature-commissions", "batch-payouts"] {
                let event = schedule_event(function, self.clock.now());
                self.calmly(&mut chance, Job::Schedule, function, event).await?;
            }
            if self.books.any {
                // What waits for its turn has it.
                self.pass(60).await?;
                self.compare(&mut chance).await?;
            }
            self.collect().await?;
            let mut waiting = self.is_news_waiting();
            for queue in QUEUES {
                self.hand_out(&mut chance, queue).await?;
            }
            self.audit()?;
            self.publish_all(&mut chance).await?;
            self.collect().await?;
            waiting |= self.is_news_waiting() || self.entries() != before;
            quiet = if waiting { 0 } else { quiet + 1 };
            if round > 0 && quiet > usize::from(self.books.any || self.paypal.any) && self.untold.is_empty() {
                self.export_all(&mut chance).await?;
                return self.at_rest(&mut chance).await;
            }
        }
        Err(failure("everything comes to rest", format!("{} messages still wait", self.mail.len())))
    }

    /// All that waits in a queue, to the end, while nothing strikes.
    async fn hand_out(&mut self, chance: &mut Chance, queue: &'static str) -> Outcome {
        let (batch, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mail).into_iter().partition(|mail| mail.queue == queue);
        self.mail = rest;
        for batch in batch.chunks(10) {
            let messages: Vec<_> = batch.iter().map(|mail| mail.message.clone()).collect();
            let event = sqs_event(queue, &messages);
            self.calmly(chance, Job::Mail(batch.to_vec()), consumer(queue), event).await?;
        }
        Ok(())
    }

    fn entries(&self) -> u64 {
        self.written.values().sum()
    }

    /// Payouts that must wait are asked for again by every tick, and so is what cannot be paid instantly: they are no news.
    fn is_news_waiting(&self) -> bool {
        let instant = |mail: &Mail| mail.message.body().is_some_and(|body| body.starts_with("{\"line\":"));
        self.mail.iter().any(|mail| !mail.poison && mail.queue != SUBMISSIONS && !instant(mail))
    }

    async fn publish_all(&mut self, chance: &mut Chance) -> Outcome {
        while self.published < self.records.len() {
            let (from, to) = (self.published, (self.published + 100).min(self.records.len()));
            let matching = self.entries_within(from, to);
            if matching.is_empty() {
                self.published = to;
            } else {
                let event = stream_event("stream", matching);
                self.calmly(chance, Job::Records(from, to), "publish-changes", event).await?;
            }
        }
        Ok(())
    }

    async fn calmly(&mut self, chance: &mut Chance, job: Job, function: &'static str, payload: Value) -> Outcome {
        self.start_calmly(chance, 0, job, function, payload);
        self.take_turns(chance, usize::MAX).await
    }

    /// On the instance with this number.
    fn start_calmly(&mut self, chance: &mut Chance, n: usize, job: Job, function: &'static str, payload: Value) {
        let functions = self.instances[n].clone();
        let deadline = SystemTime::now() + Duration::from_hours(1);
        let invocation = async move { functions.invoke(function, payload, deadline).await.map(Reply::Value) };
        let lot = Lot { chance: chance.fork(), odds: 0, mortal: 0 };
        self.tasks.start(job, lot, Box::pin(invocation));
    }

    async fn at_rest(&mut self, chance: &mut Chance) -> Outcome {
        self.publish_all(chance).await?;
        if self.books.any {
            self.compare(chance).await?;
        }
        self.read_statements(chance).await?;
        let published: Vec<Value> = self.embedded.events().into_iter().map(|accepted| json!(accepted.event)).collect();
        let finished = self.auditor.finish(&self.told, self.clock.now(), self.items.all(), &published);
        finished.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
        self.count();
        self.own_audit().await
    }

    /// What else there was in this world, to be told at the end.
    fn count(&mut self) {
        let bill = |bill: &Bill| if bill.rate.is_some() { "Bill: in another currency" } else { "Bill" };
        let bills: Vec<_> = self.told.ledgers.made().map(|(_, made)| bill(made)).collect();
        let call = |call: &Call| {
            let done = call.said.as_ref()?.iter().all(|said| said.status == 200);
            let several = call.atomic && call.asked.len() > 1;
            several.then_some(if done { "together: all" } else { "together: nothing" })
        };
        let calls: Vec<_> = self.told.calls.iter().filter_map(call).collect();
        for what in bills.into_iter().chain(calls) {
            *self.written.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Each partner's statement of this month, and of another.
    async fn read_statements(&mut self, chance: &mut Chance) -> Outcome {
        for n in 0..self.told.partners.len() {
            let (partner, program) = (self.told.partners[n].id.clone(), self.told.partners[n].program);
            let zone = TimeZone::get(self.told.programs[program].time_zone).map_err(broken)?;
            let this = self.clock.now().to_zoned(zone).date().first_of_month();
            let before = i64::try_from(chance.below(8)).unwrap_or_default();
            let other = this.checked_sub(Span::new().months(before)).map_err(broken)?;
            for month in [this, other] {
                let path = format!("/partners/{partner}/statements/{}", month.strftime("%Y-%m"));
                let (status, statement) = self.ask("ann", Method::GET, &path, &Value::Null).await?;
                // Nobody had joined yet.
                if status == 404 && month != this {
                    continue;
                }
                if status != 200 {
                    return Err(broken(format!("{path}: {status} {statement}")));
                }
                let checked = self.auditor.statement(&self.told, &partner, month, &statement);
                checked.map_err(|violation| failure(violation.invariant.as_str(), violation.what))?;
            }
        }
        Ok(())
    }

    /// The product's own audit, which an operator would trust, must hold at every moment.
    async fn own_audit(&self) -> Outcome {
        let invariants = workflows::audit::audit(&self.plain.store).await.map_err(broken)?;
        match invariants.iter().find(|invariant| !invariant.holds) {
            Some(invariant) => Err(failure("the product's own audit holds", format!("{invariant:?}"))),
            None => Ok(()),
        }
    }
}

/// The function that a queue's messages are for.
fn consumer(queue: &str) -> &'static str {
    match queue {
        CONVERSIONS => "ingest-conversions",
        DRAFTS => "draft-payout",
        QUICKBOOKS => "apply-qbo-events",
        _ => "submit-payouts",
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The source that stands for a program's API.
fn api_source(program: &str) -> String {
    program.parse().map(|id| domain::ids::SourceId::of_api(&id).to_string()).unwrap_or_default()
}

fn api_event(who: &str, role: &str, method: &Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
    let uri: Uri = format!("/api/v1{path}").parse().map_err(broken)?;
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("content-type"), HeaderValue::from_static("application/json"));
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    Ok(http_event(method, &uri, &headers, &body, Some(&claims(role, who))))
}
