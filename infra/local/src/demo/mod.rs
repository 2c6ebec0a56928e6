//! The demo: three months of a program, told as it happens. Everything goes through the functions as in the cloud: signed
//! webhooks in, schedules fired, people acting by the API.

mod account;
mod books;
mod payloads;

use std::io::Write;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use workflows::Clock;

use crate::functions::Failed;
use crate::system::System;
use payloads::{Order, Post};

type Result<T> = std::result::Result<T, Failed>;

/// When the story begins.
pub fn start() -> std::result::Result<Timestamp, jiff::Error> {
    "2026-01-01T08:00:00Z".parse()
}

fn failed(error: impl std::fmt::Display) -> Failed {
    Failed(error.to_string())
}

/// A storefront connection.
struct Source {
    id: String,
    secret: String,
}

struct Story<'a, W> {
    system: &'a System,
    out: &'a mut W,
    program: String,
}

/// Plays it all. Fails if anything does not come out as told, or the books do not balance in the end.
pub async fn play(system: &System, out: &mut impl Write) -> Result<()> {
    let mut story = Story { system, out, program: String::new() };
    story.chapter("Setting up")?;
    let partners = story.set_up().await?;
    let shopify = story.source("shopify", "Demo store").await?;
    let woo = story.source("woocommerce", "Demo shop").await?;
    let stripe = story.source("stripe", "Demo checkout").await?;
    story.january(&shopify, &woo, &stripe).await?;
    story.february(&shopify, &woo, &stripe).await?;
    story.march(&woo, &stripe).await?;
    story.chapter("Accounts on April 1")?;
    for partner in &partners {
        let balance = story.get(&format!("/balances?partnerId={partner}")).await?;
        let shown = story.get(&format!("/partners/{partner}")).await?;
        let lines = story.get(&format!("/commissions?partnerId={partner}&limit=100")).await?;
        account::print(story.out, &shown, &balance["data"][0], &lines["data"]).map_err(failed)?;
    }
    story.explain(&partners[0]).await?;
    story.bills().await?;
    story.balance_the_books().await
}

/// Where to look once it has been played.
pub fn what_next(out: &mut impl Write, port: u16) -> std::io::Result<()> {
    let base = format!("http://127.0.0.1:{port}");
    writeln!(out, "\nIt stays up, with its clock standing on April 1. To look around:\n")?;
    writeln!(
        out,
        "  TOKEN=$(curl -s {base}/_local/token -d '{{\"role\":\"admin\"}}' | sed 's/.*:\"\\(.*\\)\".*/\\1/')"
    )?;
    for path in ["/api/v1/commissions?status=approved", "/api/v1/payouts?status=paid", "/api/v1/exceptions"] {
        writeln!(out, "  curl -s -H \"Authorization: Bearer $TOKEN\" '{base}{path}'")?;
    }
    for path in ["/_local/audit", "/_local/events", "/_local/capacity"] {
        writeln!(out, "  curl -s {base}{path}")?;
    }
    writeln!(out, "  curl -s {base}/_local/clock -d '{{\"advance\":\"30d\"}}'     moves time on; README has a tour\n")
}

impl<W: Write> Story<'_, W> {
    fn say(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.out, "  {text}").map_err(failed)?;
        self.out.flush().map_err(failed)
    }

    fn chapter(&mut self, title: &str) -> Result<()> {
        writeln!(self.out, "\n{title}\n{}", "-".repeat(title.chars().count())).map_err(failed)
    }

    async fn call(&self, method: Method, path: &str, role: &str, subject: &str, body: Option<Value>) -> Result<Value> {
        let token = self.system.token(role, subject, None).await?;
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().map_err(failed)?);
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        let uri: Uri = format!("/api/v1{path}").parse().map_err(failed)?;
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answer = self.system.http(&method, &uri, &headers, &body).await?;
        let shown: Value = serde_json::from_slice(&answer.body).map_err(failed)?;
        if answer.status.is_success() { Ok(shown) } else { Err(Failed(format!("{method} {path}: {shown}"))) }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, "analyst", "analyst", None).await
    }

    /// A bulk call in which every id must succeed.
    async fn bulk(&self, path: &str, role: &str, subject: &str, body: Value) -> Result<()> {
        let results = self.call(Method::POST, path, role, subject, Some(body)).await?;
        let all =
            results["results"].as_array().is_some_and(|results| results.iter().all(|result| result["ok"] == true));
        if all { Ok(()) } else { Err(Failed(format!("{path}: {results}"))) }
    }

    async fn set_up(&mut self) -> Result<Vec<String>> {
        let manager = "program-manager";
        let program = json!({
            "name": "Demo program", "currency": "USD", "timeZone": "America/New_York", "holdDays": 14,
            "approval": "manual", "minimumPayout": "50.00",
            "landingPage": "https://shop.example/",
        });
        let program = self.call(Method::POST, "/programs", manager, "manager-1", Some(program)).await?;
        program["id"].as_str().unwrap_or_default().clone_into(&mut self.program);
        self.say("A program in US dollars: 14 days hold, review by hand, paid monthly on the 1st from 50.00 USD.")?;
        let rules = json!({
            "rationale": "Launch terms", "effectiveFrom": "2026-01-01T00:00:00Z",
            "rules": [
                {"name": "Standard", "reward": {"kind": "percent", "rate": "20"}},
                {"name": "Annual plans", "match": {"products": ["PLAN-ANNUAL"]}, "reward": {"kind": "percent", "rate": "30"},
                 "slices": [{"share": "40", "days": 0}, {"share": "60", "days": 60}]},
                {"name": "Starter kit", "match": {"products": ["KIT"]}, "reward": {"kind": "tiered", "metric": "count",
                 "window": "lifetime", "shape": "marginal_by_order", "tiers": [{"after": "0", "rate": "10"}, {"after": "2", "rate": "15"}]}},
            ],
            "examples": [{
                "input": {"id": "example", "type": "sale", "occurredAt": "2026-01-01T00:00:00Z",
                          "amount": {"total": "118.00", "tax": "18.00", "currency": "USD"}},
                "expect": ["20.00"],
            }],
        });
        let sets = format!("/programs/{}/rule-sets", self.program);
        self.call(Method::POST, &sets, manager, "manager-1", Some(rules)).await?;
        self.call(Method::POST, &format!("{sets}/1/sign-off"), manager, "manager-2", Some(json!({}))).await?;
        self.call(Method::POST, &format!("{sets}/1/publish"), manager, "manager-1", Some(json!({}))).await?;
        self.say("Rules, version 1: 20 %; annual plans 30 % in two parts (40 % now, 60 % after 60 days);")?;
        self.say(
            "  the starter kit 10 % for the first two, 15 % after. Signed off by a second person, then published.",
        )?;
        let mut partners = Vec::new();
        for (name, code) in [("Coffee blog", "COFFEE"), ("Travel letter", "TRAVEL"), ("Code school", "CODE")] {
            let partner = json!({
                "programId": self.program, "name": name, "email": format!("{}@partner.example", code.to_lowercase()),
                "code": code,
                "payoutMethods": [{"kind": "bank", "preferred": true,
                                   "details": {"name": name, "accountNumber": "12345678", "routingNumber": "021000021"}}],
            });
            let partner = self.call(Method::POST, "/partners", manager, "manager-1", Some(partner)).await?;
            partners.push(partner["id"].as_str().unwrap_or_default().to_owned());
            self.say(format!("Partner {name}, code {code}."))?;
        }
        Ok(partners)
    }

    async fn source(&mut self, kind: &str, name: &str) -> Result<Source> {
        let input = json!({"programId": self.program, "kind": kind, "name": name});
        let source = self.call(Method::POST, "/sources", "program-manager", "manager-1", Some(input)).await?;
        self.say(format!("Storefront {name} ({kind}) posts to {}", source["url"].as_str().unwrap_or_default()))?;
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        Ok(Source { id: text("id"), secret: text("secret") })
    }

    /// Moves to a day, 12:00 UTC.
    fn day(&mut self, date: &str) -> Result<Timestamp> {
        let moment: Timestamp = format!("{date}T12:00:00Z").parse().map_err(failed)?;
        self.system.clock.set(moment).map_err(failed)
    }

    async fn deliver(&mut self, source: &Source, post: &Post, told: &str) -> Result<()> {
        let uri: Uri = format!("/webhooks/{}", source.id).parse().map_err(failed)?;
        let body = Bytes::from(post.body.clone());
        let answer = self.system.http(&Method::POST, &uri, &post.headers, &body).await?;
        if !answer.status.is_success() {
            return Err(Failed(format!("{told}: answered {}", answer.status)));
        }
        self.system.settle().await?;
        self.say(format!("{}  {told}", self.system.clock.now().strftime("%b %d")))
    }

    /// The reviewer approves everything that waits for review, except orders named here.
    async fn review(&mut self, except: &[&str]) -> Result<()> {
        let waiting = self.get(&format!("/commissions?programId={}&state=pending&limit=100", self.program)).await?;
        let ids: Vec<&str> = waiting["data"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|line| !except.contains(&line["orderId"].as_str().unwrap_or_default()))
            .filter_map(|line| line["id"].as_str())
            .collect();
        self.bulk("/commissions/approve", "reviewer", "reviewer", json!({ "ids": ids })).await?;
        self.say(format!("The reviewer approves {} commissions in one go.", ids.len()))
    }

    async fn january(&mut self, shopify: &Source, woo: &Source, stripe: &Source) -> Result<()> {
        self.chapter("January")?;
        let order = |id, at, product, goods, tax, total, coupon| Order { id, at, product, goods, tax, total, coupon };
        let at = self.day("2026-01-05")?;
        let first = order(1001, at, "GRINDER", "400.00", "80.00", "480.00", "COFFEE");
        let told = "Shopify order 1001, 480.00 of which 80.00 tax, coupon COFFEE";
        self.deliver(shopify, &payloads::shopify_order(first, &shopify.secret), told).await?;
        let told = "Shopify sends order 1001 again: no effect";
        self.deliver(shopify, &payloads::shopify_order(first, &shopify.secret), told).await?;
        let at = self.day("2026-01-06")?;
        let kettle = order(1002, at, "KETTLE", "100.00", "20.00", "120.00", "COFFEE");
        let told = "Shopify order 1002, 120.00, coupon COFFEE";
        self.deliver(shopify, &payloads::shopify_order(kettle, &shopify.secret), told).await?;
        let at = self.day("2026-01-08")?;
        let map = order(501, at, "MAPS", "150.00", "0.00", "150.00", "TRAVEL");
        let told = "WooCommerce order 501, 150.00, coupon travel";
        self.deliver(woo, &payloads::woocommerce_order(map, &woo.secret), told).await?;
        let at = self.day("2026-01-10")?;
        for id in 1..=3 {
            let told = format!("Stripe checkout {id}, 250.00, referred by CODE");
            self.deliver(stripe, &payloads::stripe_session(id, at, 25_000, 0, "CODE", &stripe.secret), &told).await?;
        }
        let at = self.day("2026-01-12")?;
        let told = "Order 1002 is refunded in full, before anything was paid";
        self.deliver(shopify, &payloads::shopify_refund(9002, kettle, at, &shopify.secret), told).await?;
        self.review(&["cs_live_3"]).await?;
        let odd = self.get(&format!("/commissions?programId={}&state=pending", self.program)).await?;
        let held = json!({"ids": [odd["data"][0]["id"]], "reason": "Checking this customer"});
        self.bulk("/commissions/hold", "reviewer", "reviewer", held).await?;
        self.say("One looks odd and is held: \"Checking this customer\".")?;
        self.run("2026-02-01", "bank transfer 2026-02").await
    }

    async fn february(&mut self, shopify: &Source, woo: &Source, stripe: &Source) -> Result<()> {
        self.chapter("February")?;
        let at = self.day("2026-02-03")?;
        let first = Order {
            id: 1001,
            at,
            product: "GRINDER",
            goods: "400.00",
            tax: "80.00",
            total: "480.00",
            coupon: "COFFEE",
        };
        let told = "Order 1001 is refunded in full, after its commission was paid";
        self.deliver(shopify, &payloads::shopify_refund(9001, first, at, &shopify.secret), told).await?;
        let balance = self.get(&format!("/balances?programId={}", self.program)).await?;
        let payable = balance["data"][0]["payable"]["amount"].as_str().unwrap_or_default().to_owned();
        self.say(format!("The coffee blog's payable balance is {payable} USD: it comes off the next payout."))?;
        let at = self.day("2026-02-04")?;
        let second = Order {
            id: 1003,
            at,
            product: "ROASTER",
            goods: "700.00",
            tax: "140.00",
            total: "840.00",
            coupon: "COFFEE",
        };
        let told = "Shopify order 1003, 840.00, coupon COFFEE";
        self.deliver(shopify, &payloads::shopify_order(second, &shopify.secret), told).await?;
        let at = self.day("2026-02-06")?;
        let guide =
            Order { id: 502, at, product: "GUIDE", goods: "130.00", tax: "0.00", total: "130.00", coupon: "TRAVEL" };
        let told = "WooCommerce order 502, 130.00, coupon travel";
        self.deliver(woo, &payloads::woocommerce_order(guide, &woo.secret), told).await?;
        let plan = Order {
            id: 503,
            at,
            product: "PLAN-ANNUAL",
            goods: "240.00",
            tax: "0.00",
            total: "240.00",
            coupon: "CODE",
        };
        let told = "WooCommerce order 503, an annual plan for 240.00, coupon code: paid in two parts";
        self.deliver(woo, &payloads::woocommerce_order(plan, &woo.secret), told).await?;
        let at = self.day("2026-02-09")?;
        let told = "Stripe checkout 4, 90.00, referred by nobody we know: kept as unattributed";
        self.deliver(stripe, &payloads::stripe_session(4, at, 9_000, 0, "stranger", &stripe.secret), told).await?;
        let held = self.get(&format!("/commissions?programId={}&state=held", self.program)).await?;
        self.bulk("/commissions/release", "reviewer", "reviewer", json!({"ids": [held["data"][0]["id"]]})).await?;
        self.say("The held commission turns out fine and is released.")?;
        self.review(&[]).await?;
        self.run("2026-03-01", "bank transfer 2026-03").await
    }

    async fn march(&mut self, woo: &Source, stripe: &Source) -> Result<()> {
        self.chapter("March")?;
        for (n, date) in ["2026-03-04", "2026-03-05", "2026-03-06", "2026-03-09"].into_iter().enumerate() {
            let at = self.day(date)?;
            let id = 504 + n as u64;
            let kit = Order { id, at, product: "KIT", goods: "200.00", tax: "0.00", total: "200.00", coupon: "TRAVEL" };
            let told = format!("WooCommerce order {id}, starter kit number {} for 200.00, coupon travel", n + 1);
            self.deliver(woo, &payloads::woocommerce_order(kit, &woo.secret), &told).await?;
        }
        let at = self.day("2026-03-20")?;
        let told = "Stripe checkout 5, 60.00, referred by CODE: its hold period ends after the run";
        self.deliver(stripe, &payloads::stripe_session(5, at, 6_000, 0, "CODE", &stripe.secret), told).await?;
        self.click().await?;
        self.decide_by_hand().await?;
        self.review(&[]).await?;
        self.rehearse().await?;
        self.run("2026-04-01", "bank transfer 2026-04").await
    }

    /// Somebody follows a link and buys; the shop tells only the click.
    async fn click(&mut self) -> Result<()> {
        let uri: Uri = "/r/TRAVEL".parse().map_err(failed)?;
        let mut headers = HeaderMap::new();
        let browser =
            http::HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        headers.insert("user-agent", browser);
        let answer = self.system.http(&Method::GET, &uri, &headers, &Bytes::new()).await?;
        let target = answer.headers.get("location").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let click = target.split(['?', '&']).find_map(|part| part.strip_prefix("click_id=")).unwrap_or_default();
        let sale = json!({
            "programId": self.program, "id": "app-1", "type": "sale", "occurredAt": self.system.clock.now(),
            "clickId": click, "amount": {"total": "80.00", "currency": "USD"},
        });
        self.call(Method::POST, "/conversions", "admin", "app", Some(sale)).await?;
        self.say(format!(
            "{}  A visitor follows /r/TRAVEL and buys for 80.00 in the app, which reports the click",
            self.system.clock.now().strftime("%b %d")
        ))
    }

    /// What nobody could know but a person: whom checkout 4 was due to, and what was promised.
    async fn decide_by_hand(&mut self) -> Result<()> {
        let unattributed = self.get(&format!("/conversions?programId={}&status=unattributed", self.program)).await?;
        let partners = self.get(&format!("/partners?programId={}", self.program)).await?;
        let partner = |n: usize| partners["data"][n]["id"].clone();
        let path = format!("/conversions/{}/attribute", unattributed["data"][0]["id"].as_str().unwrap_or_default());
        let due = json!({"partnerId": partner(0), "reason": "The customer named the coffee blog"});
        self.call(Method::POST, &path, "reviewer", "reviewer", Some(due)).await?;
        self.say("Checkout 4 of February, until now due to nobody, is attributed by hand to the coffee blog.")?;
        let bonus = json!({"partnerId": partner(2), "amount": "25.00", "reason": "Best newcomer of the quarter"});
        self.call(Method::POST, "/commissions", "program-manager", "manager-1", Some(bonus)).await?;
        self.say("The code school gets a bonus of 25.00: \"Best newcomer of the quarter\".")
    }

    /// What if the standard rate had been higher from the start?
    async fn rehearse(&mut self) -> Result<()> {
        let sets = format!("/programs/{}/rule-sets", self.program);
        let mut draft = self.get(&format!("{sets}/1")).await?;
        draft["rationale"] = json!("A higher standard rate");
        draft["effectiveFrom"] = json!("2026-05-01T00:00:00Z");
        draft["rules"][0]["reward"]["rate"] = json!("25");
        draft["examples"] = json!([]);
        self.call(Method::POST, &sets, "program-manager", "manager-1", Some(draft)).await?;
        let differs = self.get(&format!("{sets}/2/diff")).await?;
        for change in differs["changes"].as_array().into_iter().flatten() {
            self.say(format!("Version 2 is drafted. {}", change.as_str().unwrap_or_default()))?;
        }
        let period = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"});
        let path = format!("{sets}/2/dry-run");
        let told = self.call(Method::POST, &path, "program-manager", "manager-1", Some(period)).await?;
        self.say(told["sentence"].as_str().unwrap_or_default())
    }

    /// The first of a month: maturation, the run, its approval, its payment.
    async fn run(&mut self, date: &str, reference: &str) -> Result<()> {
        self.day(date)?;
        let matured = self.system.fire("mature-commissions").await?;
        self.say(format!("{}  {} commissions mature.", self.system.clock.now().strftime("%b %d"), matured["lines"]))?;
        self.system.fire("batch-payouts").await?;
        self.system.settle().await?;
        let runs = self.get(&format!("/runs?programId={}", self.program)).await?;
        let run = &runs["data"][0];
        for carried in run["carried"].as_array().into_iter().flatten() {
            let partner = self.get(&format!("/partners/{}", carried["partnerId"].as_str().unwrap_or_default())).await?;
            let why = carried["reason"].as_str().unwrap_or_default().replace('_', " ");
            self.say(format!("Carried over: {} ({why})", partner["name"].as_str().unwrap_or_default()))?;
        }
        let pending = self.get(&format!("/payouts?programId={}&status=pending", self.program)).await?;
        for payout in pending["data"].as_array().into_iter().flatten() {
            let partner = self.get(&format!("/partners/{}", payout["partnerId"].as_str().unwrap_or_default())).await?;
            let seen = json!({"payouts": [{
                "id": payout["id"], "version": payout["version"], "amount": payout["amount"]["amount"],
                "linesHash": payout["linesHash"],
            }]});
            self.bulk("/payouts/approve", "approver", "approver", seen).await?;
            let paid = json!({"payouts": [{"id": payout["id"], "reference": reference}]});
            self.bulk("/payouts/mark-paid", "finance", "finance", paid).await?;
            self.say(format!(
                "Payout {} to {}: {} USD in {} lines, approved and paid.",
                payout["number"].as_str().unwrap_or_default(),
                partner["name"].as_str().unwrap_or_default(),
                payout["amount"]["amount"].as_str().unwrap_or_default(),
                payout["lineCount"],
            ))?;
        }
        self.system.settle().await?;
        Ok(())
    }

    async fn explain(&mut self, partner: &str) -> Result<()> {
        self.chapter("One commission, explained")?;
        let lines = self.get(&format!("/commissions?partnerId={partner}&status=paid")).await?;
        let id = lines["data"][0]["id"].as_str().unwrap_or_default().to_owned();
        let explained = self.get(&format!("/commissions/{id}/explanation")).await?;
        self.say(explained["sentence"].as_str().unwrap_or_default())?;
        for step in explained["history"].as_array().into_iter().flatten() {
            self.say(format!(
                "  {}  {:<12} {:<10} by {}",
                &step["at"].as_str().unwrap_or_default()[..10],
                step["what"].as_str().unwrap_or_default().replace('_', " "),
                step["state"].as_str().unwrap_or_default(),
                step["by"].as_str().unwrap_or_default(),
            ))?;
        }
        let recomputed = explained["recomputed"]["amount"].as_str().unwrap_or_default();
        self.say(format!("Computed again from sale, rules and position: {recomputed} USD, the same."))
    }

    async fn balance_the_books(&mut self) -> Result<()> {
        self.chapter("The books")?;
        let invariants = workflows::audit::audit(&self.system.context.store).await.map_err(failed)?;
        for invariant in &invariants {
            let mark = if invariant.holds { "holds" } else { "BROKEN" };
            self.say(format!("{mark:<7} {} ({})", invariant.name, invariant.detail))?;
        }
        let events: usize = self.system.events_published().values().sum();
        self.say(format!("{events} domain events went out on the bus."))?;
        if invariants.iter().all(|invariant| invariant.holds) {
            self.say("The books balance, to the cent.")
        } else {
            Err(Failed("the books do not balance".to_owned()))
        }
    }
}
