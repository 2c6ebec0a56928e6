//! `cargo capacity`: write and read units of each step of a commission's life, as DynamoDB counts them, in one table.
//! `cargo capacity --check` compares it with the table in README.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use local::{LocalClock, Options, QuickbooksOptions, Storage, System};
use serde_json::{Value, json};
use store::Units;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Lines in the payout over whose lines the cost of a payout is spread.
const LINES: usize = 20;
const BEGIN: &str = "<!-- cargo capacity -->";
const END: &str = "<!-- end -->";

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let table = Box::pin(report()).await?;
    if std::env::args().nth(1).as_deref() != Some("--check") {
        print!("{table}");
        return Ok(ExitCode::SUCCESS);
    }
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let printed = readme.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(table, _)| table.trim());
    if printed == Some(table.trim()) {
        println!("README.md has the same capacity table");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("README.md has another capacity table than this:\n\n{table}");
    Ok(ExitCode::FAILURE)
}

/// A fresh system with one program and one partner.
struct Bench {
    system: System,
    program: String,
    partner: String,
    orders: usize,
}

impl Bench {
    async fn start(approval: &str, reward: Value) -> Result<Self, Error> {
        let clock = LocalClock::standing_at("2026-01-01T00:00:00Z".parse()?);
        let system = System::start(Options {
            storage: Storage::Memory,
            clock,
            aws: None,
            paypal: None,
            quickbooks: QuickbooksOptions::default(),
        })
        .await?;
        let mut bench = Self { system, program: String::new(), partner: String::new(), orders: 0 };
        let program =
            json!({"name": "Bench", "approval": approval, "ruleSignOff": false, "largePayoutLimit": "100000.00"});
        bench.program = text(&bench.post("/programs", program).await?["id"]);
        let rules = json!({
            "rationale": "bench", "effectiveFrom": "2026-01-01T00:00:00Z", "rules": [{"name": "Standard", "reward": reward}],
        });
        let sets = format!("/programs/{}/rule-sets", bench.program);
        bench.post(&sets, rules).await?;
        bench.post(&format!("{sets}/1/publish"), json!({})).await?;
        let partner = json!({
            "programId": bench.program, "name": "Bench", "email": "bench@partner.example", "code": "BENCH",
            "payoutMethods": [{"kind": "manual", "preferred": true}],
        });
        bench.partner = text(&bench.post("/partners", partner).await?["id"]);
        Ok(bench)
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Error> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Error> {
        let token = self.system.token("admin", "bench", None).await?;
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse()?);
        headers.insert("content-type", "application/json".parse()?);
        let uri: Uri = format!("/api/v1{path}").parse()?;
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let answer = self.system.http(&method, &uri, &headers, &body).await?;
        let shown: Value = serde_json::from_slice(&answer.body)?;
        let refused = shown["results"].as_array().into_iter().flatten().any(|result| result["ok"] != true);
        if !answer.status.is_success() || refused {
            return Err(format!("{path}: {shown}").into());
        }
        Ok(shown)
    }

    async fn sale(&mut self) -> Result<(), Error> {
        self.orders += 1;
        let sale = json!({
            "programId": self.program, "id": format!("order-{}", self.orders), "type": "sale",
            "occurredAt": "2026-01-01T00:00:00Z", "partner": {"code": "BENCH"}, "customer": {"id": format!("customer-{}", self.orders)},
            "amount": {"total": "118.00", "tax": "18.00", "currency": "USD"},
            "items": [{"sku": "A-1", "product": "Starter", "category": "plans", "quantity": 2, "amount": "100.00"}],
            "channel": "web", "campaign": "autumn", "country": "DE",
        });
        self.post("/conversions", sale).await.map(drop)
    }

    async fn refund(&self, order: usize) -> Result<(), Error> {
        let refund = json!({
            "programId": self.program, "id": format!("refund-{order}"), "type": "refund", "conversion": format!("order-{order}"),
            "occurredAt": "2026-01-01T00:00:00Z", "amount": {"total": "40.00", "currency": "USD"},
        });
        self.post("/conversions", refund).await.map(drop)
    }

    async fn pending(&self) -> Result<Vec<String>, Error> {
        let path = format!("/commissions?partnerId={}&state=pending&limit=100", self.partner);
        let lines = self.call(Method::GET, &path, None).await?;
        Ok(lines["data"].as_array().into_iter().flatten().map(|line| text(&line["id"])).collect())
    }

    async fn mature(&self) -> Result<(), Error> {
        self.system.clock.advance("31d")?;
        self.system.fire("mature-commissions").await?;
        Ok(())
    }

    /// Run, claim, approval, payment.
    async fn pay(&self) -> Result<(), Error> {
        self.system.fire("batch-payouts").await?;
        self.system.settle().await?;
        let payouts = self.call(Method::GET, &format!("/payouts?partnerId={}", self.partner), None).await?;
        let id = &payouts["data"][0]["id"];
        self.post("/payouts/approve", json!({ "payoutIds": [id] })).await?;
        self.post("/payouts/mark-paid", json!({"payouts": [{"id": id, "reference": "bench"}]})).await?;
        Ok(())
    }

    /// What was consumed since the last call, without what setting up and looking cost.
    fn taken(&self) -> BTreeMap<&'static str, Units> {
        const LOOKING: [&str; 9] = [
            "commissions",
            "partners",
            "payouts",
            "programs",
            "create program",
            "create partner",
            "rule set",
            "balance",
            "membership",
        ];
        let mut totals = self.system.context.store.meter().totals();
        self.system.context.store.meter().reset();
        totals.retain(|operation, _| !LOOKING.contains(operation));
        totals
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn sum(taken: &BTreeMap<&'static str, Units>) -> Units {
    taken.values().fold(Units::default(), |sum, units| Units {
        calls: sum.calls + units.calls,
        read: sum.read + units.read,
        write: sum.write + units.write,
    })
}

fn row(table: &mut String, step: &str, units: Units, share: usize) {
    let share = u32::try_from(share).map_or(1.0, f64::from);
    let _ = writeln!(table, "| {step} | {:.1} | {:.1} |", units.write / share, units.read / share);
}

async fn report() -> Result<String, Error> {
    let percent = || json!({"kind": "percent", "rate": "10"});
    let mut table = "| step | write units | read units |\n|---|---:|---:|\n".to_owned();

    let mut single = Bench::start("automatic", percent()).await?;
    single.taken();
    single.sale().await?;
    row(&mut table, "accrue a single-line conversion, alone", sum(&single.taken()), 1);
    single.sale().await?;
    single.taken();
    single.refund(2).await?;
    row(&mut table, "refund a part of it before payment", sum(&single.taken()), 1);

    let tiers = json!([{"after": "0", "rate": "10"}]);
    let tiered = json!({
        "kind": "tiered", "metric": "count", "window": "lifetime", "shape": "marginal_by_order", "tiers": tiers,
    });
    let mut tiered = Bench::start("automatic", tiered).await?;
    tiered.sale().await?;
    tiered.taken();
    tiered.sale().await?;
    row(&mut table, "accrue under a tiered rule", sum(&tiered.taken()), 1);

    let mut alone = Bench::start("automatic", percent()).await?;
    alone.sale().await?;
    alone.taken();
    alone.mature().await?;
    row(&mut table, "mature, alone", sum(&alone.taken()), 1);

    let automatic = life(&mut table, "automatic", percent(), Review::None).await?;
    let bulk = life(&mut String::new(), "manual", percent(), Review::Bulk).await?;
    let singly = life(&mut table, "manual", percent(), Review::Singly).await?;
    row(&mut table, "**whole life, automatic approval, 20-line payout**", automatic, LINES);
    row(&mut table, "**the same with bulk manual approval**", bulk, LINES);
    row(&mut table, "**the same with single manual approval**", singly, LINES);
    Ok(table)
}

#[derive(Clone, Copy, PartialEq)]
enum Review {
    None,
    Bulk,
    Singly,
}

/// Takes a payout's worth of lines from sale to payment, and writes the steps that this kind of life adds to the table.
async fn life(table: &mut String, approval: &str, reward: Value, review: Review) -> Result<Units, Error> {
    let mut bench = Bench::start(approval, reward).await?;
    bench.taken();
    let mut whole = Units::default();
    let mut add = |taken: BTreeMap<&'static str, Units>| {
        let units = sum(&taken);
        whole =
            Units { calls: whole.calls + units.calls, read: whole.read + units.read, write: whole.write + units.write };
        taken
    };
    for _ in 0..LINES {
        bench.sale().await?;
    }
    add(bench.taken());
    if review != Review::None {
        let pending = bench.pending().await?;
        bench.taken();
        if review == Review::Singly {
            for id in &pending {
                bench.post("/commissions/approve", json!({ "ids": [id] })).await?;
            }
            row(table, "approve, one at a time", sum(&add(bench.taken())), LINES);
        } else {
            bench.post("/commissions/approve", json!({ "ids": pending })).await?;
            add(bench.taken());
        }
    }
    bench.mature().await?;
    let matured = add(bench.taken());
    bench.pay().await?;
    let paid = add(bench.taken());
    if review == Review::None {
        row(table, "mature, per line of 20 together", sum(&matured), LINES);
        let steps = [
            ("plan run", "plan a run"),
            ("claim", "claim"),
            ("close draft", "close the draft"),
            ("approve payout", "approve the payout"),
            ("pay", "pay"),
        ];
        for (operation, step) in steps {
            let units = paid.get(operation).copied().unwrap_or_default();
            row(table, &format!("{step}, per line of a 20-line payout"), units, LINES);
        }
    }
    Ok(whole)
}
