//! `cargo bench-runs`: what a payout run costs by the number of its partners, what it takes to claim the commissions of one partner who has
//! very many, and how long a balance is read. `cargo bench-runs 1000 10000` says for how many partners. `cargo bench-runs --check` looks at
//! small numbers only, and fails if a partner costs more where there are more partners, or if memory grows with them. What takes long tells on
//! standard error how far it is.
//!
//! The table is in a file. One partner with one commission is made as everywhere; the others are copies of what the table has of that one, so
//! that what is measured is the run. Partners are decided about one after the other, in one process that has the database in it, too.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use clap::Parser;
use local::{Storage, TABLE};
use store::{PayoutRequest, Units};
use tests::memory::{megabytes, peak, reset_peak};
use tests::{ADMIN, Plan, World, temporary_directory};
use workflows::queues::DraftRequest;
use workflows::runs::{OnDemand, request, serve, tick};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Attributes = HashMap<String, AttributeValue>;

/// Commissions of the partner who has many: the most that one payout takes.
const COMMISSIONS: usize = 20_000;
const CHECKED: [usize; 2] = [20, 200];
/// Units by which a partner may cost more, as pages of what is read are full or not.
const MORE_UNITS: f64 = 0.1;
/// What may be held at most while partners are decided about one after the other, and what one may claim: several times what it is.
const MOST_MEMORY: usize = 16 << 20;
/// How often it is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// By `DynamoDB`'s own limit.
const BATCH: usize = 25;
const READS: usize = 101;

#[derive(Parser)]
#[command(name = "cargo bench-runs")]
struct Cli {
    #[arg(default_values_t = [1_000, 10_000, 100_000])]
    partners: Vec<usize>,
    #[arg(long, default_value_t = COMMISSIONS)]
    commissions: usize,
    /// Fail if a partner costs more where there are more, or memory grows.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let mut cli = Cli::parse();
    if cli.check {
        (cli.partners, cli.commissions) = (CHECKED.to_vec(), 200);
    }
    println!("| partners | plan | decide | a partner | write units | read units | complete | memory, at most |");
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let (mut written, mut read, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for partners in &cli.partners {
        let run = in_directory(&format!("runs-{partners}"), async |storage| run_of(*partners, storage).await).await?;
        run.print();
        written.push(run.of_each(run.units.write));
        read.push(run.of_each(run.units.read));
        held.push(run.memory);
    }
    println!(
        "\n| commissions of one partner | balance read, median | claimed in | write units each | read units each | memory, at most |"
    );
    println!("|---:|---:|---:|---:|---:|---:|");
    for commissions in [1, cli.commissions] {
        held.push(
            in_directory(&format!("claim-{commissions}"), async |storage| claim(commissions, storage).await).await?,
        );
    }
    if !cli.check {
        return Ok(ExitCode::SUCCESS);
    }
    let grows = |units: &[f64]| units.windows(2).any(|pair| pair[1] > pair[0] + MORE_UNITS);
    let mut failed = false;
    for (kind, units) in [("write", &written), ("read", &read)] {
        if grows(units) {
            eprintln!("{kind} units of a partner grow with the number of partners: {units:?}");
            failed = true;
        }
    }
    if held.iter().any(|bytes| *bytes > MOST_MEMORY) {
        eprintln!("more than {:.0} MB are held: {held:?} bytes", megabytes(MOST_MEMORY));
        failed = true;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Tells now and then how far something is that takes long.
struct Progress {
    what: &'static str,
    of: usize,
    done: usize,
    told: Instant,
}

impl Progress {
    fn start(what: &'static str, of: usize) -> Self {
        Self { what, of, done: 0, told: Instant::now() }
    }

    fn more(&mut self, count: usize) {
        self.done += count;
        if self.told.elapsed() >= TOLD_EVERY {
            eprintln!("{}: {} of {}", self.what, self.done, self.of);
            self.told = Instant::now();
        }
    }
}

async fn in_directory<T>(name: &str, run: impl AsyncFnOnce(Storage) -> Result<T, Error>) -> Result<T, Error> {
    let directory = temporary_directory(name);
    let done = run(Storage::Directory(directory.clone())).await;
    std::fs::remove_dir_all(&directory)?;
    done
}

/// A world whose partner has a commission, and what the table has of the two.
struct Bench {
    world: World,
    client: Client,
    items: Vec<Attributes>,
}

impl Bench {
    async fn start(storage: Storage) -> Result<Self, Error> {
        let world = Plan::new().stored(storage).start().await;
        world.sale("o1", "100.00").await;
        let client = Client::new(&world.system.embedded.sdk_config());
        let mut items = client.scan().table_name(TABLE).send().await?.items.unwrap_or_default();
        let own = [format!("PAR#{}", world.partner), format!("LIN#{}", world.partner)];
        items.retain(|item| own.iter().any(|own| text(item, "pk").starts_with(own)));
        Ok(Self { world, client, items })
    }

    /// Puts so many items, made a batch at a time: what is held of all at once would hide what the run takes after it.
    async fn put(&self, count: usize, mut items: impl Iterator<Item = Attributes>) -> Result<(), Error> {
        let mut progress = Progress::start("items put", count);
        loop {
            let put = |item| PutRequest::builder().set_item(Some(item)).build();
            let requests =
                items.by_ref().take(BATCH).map(|item| Ok(WriteRequest::builder().put_request(put(item)?).build()));
            let requests = requests.collect::<Result<Vec<_>, Error>>()?;
            if requests.is_empty() {
                return Ok(());
            }
            progress.more(requests.len());
            self.client.batch_write_item().request_items(TABLE, requests).send().await?;
        }
    }

    fn units(&self) -> Units {
        let totals: BTreeMap<_, Units> = self.world.system.context.store.meter().totals();
        self.world.system.context.store.meter().reset();
        totals.values().fold(Units::default(), |sum, units| Units {
            calls: sum.calls + units.calls,
            read: sum.read + units.read,
            write: sum.write + units.write,
        })
    }
}

fn text<'a>(item: &'a Attributes, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

/// The same with other texts.
fn renamed(item: &Attributes, from: &str, to: &str) -> Attributes {
    item.iter().map(|(name, value)| (name.clone(), renamed_value(value, from, to))).collect()
}

fn renamed_value(value: &AttributeValue, from: &str, to: &str) -> AttributeValue {
    match value {
        AttributeValue::S(text) => AttributeValue::S(text.replace(from, to)),
        AttributeValue::L(values) => {
            AttributeValue::L(values.iter().map(|value| renamed_value(value, from, to)).collect())
        }
        AttributeValue::M(fields) => AttributeValue::M(renamed(fields, from, to)),
        other => other.clone(),
    }
}

struct Run {
    partners: usize,
    plan: Duration,
    decide: Duration,
    complete: Duration,
    units: Units,
    memory: usize,
}

impl Run {
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    fn of_each(&self, sum: f64) -> f64 {
        sum / self.partners as f64
    }

    fn print(&self) {
        println!(
            "| {} | {:.1} s | {:.1} s | {:.1} ms | {:.1} | {:.1} | {:.1} s | {:.1} MB |",
            self.partners,
            self.plan.as_secs_f64(),
            self.decide.as_secs_f64(),
            self.of_each(self.decide.as_secs_f64() * 1e3),
            self.of_each(self.units.write),
            self.of_each(self.units.read),
            self.complete.as_secs_f64(),
            megabytes(self.memory),
        );
    }
}

async fn run_of(partners: usize, storage: Storage) -> Result<Run, Error> {
    let bench = Bench::start(storage).await?;
    let own = bench.world.partner.trim_start_matches("par_").to_owned();
    let names = (1..partners).map(|n| format!("{n:026}"));
    let others = names.flat_map(|name| bench.items.iter().map(|item| renamed(item, &own, &name)).collect::<Vec<_>>());
    bench.put((partners - 1) * bench.items.len(), others).await?;
    let (world, context) = (&bench.world, &bench.world.system.context);
    world.clock_at("2026-02-01T00:20:00Z");
    bench.units();
    let began = Instant::now();
    tick(context, || true).await?;
    let plan = began.elapsed();
    // What is held now has the queue in it, which is elsewhere in the cloud.
    let before = reset_peak()?;
    let began = Instant::now();
    let mut progress = Progress::start("partners decided about", partners);
    loop {
        let served = serve_some(world).await?;
        if served == 0 {
            break;
        }
        progress.more(served);
    }
    let decide = began.elapsed();
    world.pass("1h");
    let began = Instant::now();
    let ticked = tick(context, || true).await?;
    let complete = began.elapsed();
    if ticked.runs_completed != 1 {
        return Err(format!("the run of {partners} partners did not come to its end: {ticked:?}").into());
    }
    Ok(Run { partners, plan, decide, complete, units: bench.units(), memory: peak()?.saturating_sub(before) })
}

/// Takes a batch of messages as the function does. How many they were.
async fn serve_some(world: &World) -> Result<usize, Error> {
    let context = &world.system.context;
    let (sqs, url) = (&context.queues.sqs, &context.queues.drafts_url);
    let messages =
        sqs.receive_message().queue_url(url).max_number_of_messages(10).send().await?.messages.unwrap_or_default();
    for message in &messages {
        let request: DraftRequest = serde_json::from_str(message.body().unwrap_or_default())?;
        serve(context, &request, &|| true).await?;
        let handle = message.receipt_handle().unwrap_or_default();
        sqs.delete_message().queue_url(url).receipt_handle(handle).send().await?;
    }
    Ok(messages.len())
}

/// Claims them all, and says how much memory that took.
async fn claim(commissions: usize, storage: Storage) -> Result<usize, Error> {
    let bench = Bench::start(storage).await?;
    let found = |key: &str, prefix: &str| bench.items.iter().find(|item| text(item, key).starts_with(prefix));
    let line = found("pk", "LIN#").ok_or("the partner has no commission")?;
    let balance = found("sk", "BAL#").ok_or("the partner has no balance")?;
    let own = text(line, "sk").to_owned();
    let (time, _) = own.split_at(own.len() - 8);
    bench.put(commissions - 1, (1..commissions).map(|n| renamed(line, &own, &format!("{time}{n:08}")))).await?;
    let times = |name: &str, value: &AttributeValue| match value {
        AttributeValue::N(number) if name != "rev" => {
            let number = number.parse::<i64>().unwrap_or_default() * i64::try_from(commissions).unwrap_or_default();
            AttributeValue::N(number.to_string())
        }
        other => other.clone(),
    };
    let total = balance.iter().map(|(name, value)| (name.clone(), times(name, value))).collect();
    bench.put(1, std::iter::once(total)).await?;
    let (world, context) = (&bench.world, &bench.world.system.context);
    let mut reads = Vec::new();
    for _ in 0..READS {
        let began = Instant::now();
        world.get(ADMIN, &format!("/balances?partnerId={}", world.partner)).await.ok();
        reads.push(began.elapsed());
    }
    reads.sort();
    bench.units();
    let before = reset_peak()?;
    let began = Instant::now();
    let (program, partner) = (world.program.parse()?, world.partner.parse()?);
    let asked = OnDemand { key: "bench", program: &program, partner: &partner, request: PayoutRequest::default() };
    let payout = request(context, &asked, ADMIN.subject).await?;
    let claimed = began.elapsed();
    let (units, memory) = (bench.units(), peak()?.saturating_sub(before));
    let lines = world.payout(&serde_json::json!(payout)).await["lineCount"].as_u64();
    if lines != u64::try_from(commissions).ok() {
        return Err(format!("{lines:?} of {commissions} commissions were claimed").into());
    }
    let each = u32::try_from(commissions).map_or(1.0, f64::from);
    println!(
        "| {commissions} | {:.1} ms | {:.1} s | {:.1} | {:.1} | {:.1} MB |",
        reads[READS / 2].as_secs_f64() * 1e3,
        claimed.as_secs_f64(),
        units.write / each,
        units.read / each,
        megabytes(memory),
    );
    Ok(memory)
}
