//! `cargo coldstart [DIRECTORY]`: how long the built functions take from process start to first answer, and how much memory, in one
//! table. The zips that cargo-lambda left in the directory run unchanged under a small Lambda Runtime API, with AWS embedded, on their
//! sample events, next to a function that does nothing. `cargo coldstart --check` fails if one is slow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use serde_json::{Value, json};
use tests::World;
use tests::samples::{self, NOW};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Starts of each function in one measurement.
const STARTS: usize = 20;
/// A noisy machine may fail this often before the check believes it.
const ROUNDS: usize = 3;
/// The longest a first answer may take in the median; on a slower or busier machine, so many times what `hello` takes there.
const LIMIT: Duration = Duration::from_millis(40);
const LIMIT_IN_HELLOS: u32 = 20;
const HELLO: &str = "hello";
const GIVE_UP: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(name = "cargo coldstart")]
struct Cli {
    /// Where cargo-lambda put its zips.
    #[arg(default_value = "target/lambda")]
    directory: PathBuf,
    /// Fail if a function is slow.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let cli = Cli::parse();
    let unpacked = tests::temporary_directory("coldstart");
    let programs = programs(&cli.directory, &unpacked)?;
    let mut slow: Vec<_> = programs.keys().copied().collect();
    let rounds = if cli.check { ROUNDS } else { 1 };
    for _ in 0..rounds {
        let measured = measure(&programs).await?;
        print(&measured);
        let limit = LIMIT.max(measured[HELLO].median() * LIMIT_IN_HELLOS);
        // One that was fast once is fast; the machine was not.
        slow.retain(|name| measured[name].median() > limit);
        println!(
            "\nlimit of the median: {:.1} ms, the greater of {LIMIT:?} and {LIMIT_IN_HELLOS} times {HELLO}; always slower: {}\n",
            millis(limit),
            if slow.is_empty() { "none".to_owned() } else { slow.join(", ") },
        );
        if slow.is_empty() {
            break;
        }
    }
    std::fs::remove_dir_all(&unpacked)?;
    Ok(if cli.check && !slow.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A function as it was built, and what it is asked.
struct Program {
    binary: PathBuf,
    zip_bytes: u64,
    event: Value,
    answer: Value,
}

/// Each function with the first of its samples.
fn programs(directory: &Path, unpacked: &Path) -> Result<BTreeMap<&'static str, Program>, Error> {
    let mut programs = BTreeMap::new();
    let hello = program(directory, unpacked, HELLO, json!({}), json!("hello"))?;
    programs.insert(HELLO, hello);
    for (file, answer) in samples::expected() {
        let function = file.split_once('/').map_or(file, |(function, _)| function);
        // The renderer stands in a workspace of its own, and is not built with the others.
        if function != "render-documents" && !programs.contains_key(function) {
            programs.insert(function, program(directory, unpacked, function, samples::sample(file), answer)?);
        }
    }
    Ok(programs)
}

fn program(directory: &Path, unpacked: &Path, name: &str, event: Value, answer: Value) -> Result<Program, Error> {
    let zip = directory.join(name).join("bootstrap.zip");
    let file = std::fs::File::open(&zip).map_err(|error| {
        format!("{}: {error}; build with cargo lambda build --output-format zip first", zip.display())
    })?;
    let zip_bytes = file.metadata()?.len();
    zip::ZipArchive::new(file)?.extract(unpacked.join(name))?;
    Ok(Program { binary: unpacked.join(name).join("bootstrap"), zip_bytes, event, answer })
}

/// What the starts of one function took.
#[derive(Default)]
struct Starts {
    zip_bytes: u64,
    took: Vec<Duration>,
    peak_kilobytes: u64,
    /// By service, in the first answer.
    calls: BTreeMap<String, usize>,
}

impl Starts {
    fn median(&self) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}

/// The functions take turns, so that whatever else the machine does slows all of them.
async fn measure<'a>(programs: &BTreeMap<&'a str, Program>) -> Result<BTreeMap<&'a str, Starts>, Error> {
    let mut measured = BTreeMap::<_, Starts>::new();
    for _ in 0..STARTS {
        for (name, program) in programs {
            let first = start(name, program).await.map_err(|error| format!("{name}: {error}"))?;
            let starts = measured.entry(*name).or_default();
            starts.zip_bytes = program.zip_bytes;
            starts.took.push(first.took);
            starts.peak_kilobytes = starts.peak_kilobytes.max(first.peak_kilobytes);
            starts.calls = first.calls;
        }
    }
    Ok(measured)
}

#[allow(clippy::cast_precision_loss, reason = "sizes are told to two digits")]
fn print(measured: &BTreeMap<&str, Starts>) {
    println!("| function | zip | first answer, median | worst of {STARTS} | peak memory | calls to AWS in it |");
    println!("|---|---:|---:|---:|---:|---|");
    for (name, starts) in measured {
        let calls: Vec<_> = starts.calls.iter().map(|(service, count)| format!("{count} {service}")).collect();
        println!(
            "| `{name}` | {:.2} MB | {:.1} ms | {:.1} ms | {:.1} MB | {} |",
            starts.zip_bytes as f64 / 1e6,
            millis(starts.median()),
            millis(starts.took.iter().max().copied().unwrap_or_default()),
            starts.peak_kilobytes as f64 / 1e3,
            calls.join(", "),
        );
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// One process from its start to its first answer.
struct First {
    took: Duration,
    peak_kilobytes: u64,
    calls: BTreeMap<String, usize>,
}

async fn start(name: &str, program: &Program) -> Result<First, Error> {
    let world = samples::sampled().await;
    if name == "draft-payout" {
        world.clock_at(NOW);
        world.fire("batch-payouts").await;
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    // The books that a function looks into are served here, too: what a first answer takes is not left to the network.
    let books = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut command = command(name, program, &world, listener.local_addr()?, books.local_addr()?);
    let quickbooks = tokio::spawn(quickbooks_counterpart::server::serve(books, world.system.quickbooks.clone()));
    let (answers, mut answered) = mpsc::unbounded_channel();
    let lambda = Lambda {
        event: program.event.to_string(),
        asked: AtomicBool::new(false),
        world,
        calls: Mutex::default(),
        answers,
    };
    let server = tokio::spawn(axum::serve(listener, lambda_and_aws(lambda)).into_future());

    let before = Instant::now();
    let mut process = command.spawn()?;
    let answer = tokio::time::timeout(GIVE_UP, answered.recv()).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    process.kill()?;
    let output = process.wait_with_output()?;
    server.abort();
    quickbooks.abort();
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let Ok(Some(answer)) = answer else { return Err(format!("no answer\n{}", said()).into()) };
    // Of an HTTP answer the status, as in the list of samples.
    let shown = if answer.body["statusCode"].is_null() { &answer.body } else { &answer.body["statusCode"] };
    if *shown != program.answer {
        return Err(format!("{} instead of {}\n{}", answer.body, program.answer, said()).into());
    }
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(|rest| rest.trim_end_matches("kB").trim());
    Ok(First {
        took: answer.at.duration_since(before),
        peak_kilobytes: peak.ok_or("the process has no peak memory")?.parse()?,
        calls: answer.calls,
    })
}

/// The process as the Lambda service would start it: with the template's environment, and where AWS and QuickBooks are here.
fn command(name: &str, program: &Program, world: &World, address: SocketAddr, quickbooks: SocketAddr) -> Command {
    let mut command = Command::new(&program.binary);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let context = &world.system.context;
    command
        .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .env("AWS_REGION", embedded::REGION)
        .env("AWS_ACCESS_KEY_ID", "embedded")
        .env("AWS_SECRET_ACCESS_KEY", "embedded")
        .env("AWS_ENDPOINT_URL", format!("http://{address}"))
        .env("QUICKBOOKS_ENDPOINT", format!("http://{quickbooks}"))
        .env("TABLE_NAME", local::TABLE)
        .env("CONVERSIONS_QUEUE_URL", &context.queues.conversions_url)
        .env("DRAFTS_QUEUE_URL", &context.queues.drafts_url)
        .env("SUBMISSIONS_QUEUE_URL", &context.queues.submissions_url)
        .env("QUICKBOOKS_QUEUE_URL", &context.queues.quickbooks_url)
        .env("BUS_NAME", &context.bus.name)
        .env("FILES_BUCKET", &world.system.files.bucket)
        .env("TAX_KEY", &context.vault.key)
        .env("SECRET_PREFIX", &context.secret_prefix)
        .env("RUST_LOG", "info");
    command
}

/// The Lambda service with one event for one process, and AWS, at one address.
struct Lambda {
    event: String,
    asked: AtomicBool,
    world: World,
    calls: Mutex<BTreeMap<String, usize>>,
    answers: mpsc::UnboundedSender<Answer>,
}

struct Answer {
    at: Instant,
    body: Value,
    calls: BTreeMap<String, usize>,
}

fn lambda_and_aws(lambda: Lambda) -> Router {
    let api = Router::new()
        .route("/invocation/next", get(next))
        .route("/invocation/{id}/response", post(answered))
        .route("/invocation/{id}/error", post(answered))
        .route("/init/error", post(answered));
    Router::new().nest("/2018-06-01/runtime", api).fallback(aws).with_state(Arc::new(lambda))
}

/// There is one event; whoever asks again waits for ever.
async fn next(State(lambda): State<Arc<Lambda>>) -> Response {
    if lambda.asked.swap(true, Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    let deadline = SystemTime::now() + Duration::from_mins(15);
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
    let headers = [
        ("lambda-runtime-aws-request-id", "00000000-0000-4000-8000-000000000001"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:coldstart"),
        ("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000"),
        ("lambda-runtime-deadline-ms", &deadline),
    ];
    (headers, lambda.event.clone()).into_response()
}

/// An error is an answer, too: another than the expected one.
async fn answered(State(lambda): State<Arc<Lambda>>, body: Bytes) -> StatusCode {
    let at = Instant::now();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    let calls = std::mem::take(&mut *lambda.calls.lock().unwrap_or_else(PoisonError::into_inner));
    // Nobody listens any more if this is late.
    let _ = lambda.answers.send(Answer { at, body, calls });
    StatusCode::ACCEPTED
}

async fn aws(State(lambda): State<Arc<Lambda>>, parts: Parts, body: Bytes) -> Response {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let service = target.split(['.', '_']).next().unwrap_or_default().to_owned();
    *lambda.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(service).or_default() += 1;
    lambda.world.system.embedded.handle(Request::from_parts(parts, body)).map(Body::from)
}
