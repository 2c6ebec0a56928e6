//! `cargo local up`, `cargo local demo` and `cargo local import`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use local::import::{Import, Kind, import};
use local::{LocalClock, Options, QuickbooksOptions, Storage, System, demo, serve};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Partner Payouts on this machine, nothing to install.
#[derive(Parser)]
#[command(name = "cargo local")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API, the webhooks and the AWS endpoint.
    Up {
        #[command(flatten)]
        ports: Ports,
        /// Keep data in this directory.
        #[arg(long, default_value = ".local", conflicts_with = "memory")]
        data: PathBuf,
        /// Keep nothing.
        #[arg(long)]
        memory: bool,
        /// Let time stand still at this moment until it is moved.
        #[arg(long)]
        clock: Option<Timestamp>,
        /// Where `POST /_local/run/fetch-rates` fetches exchange rates: `https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml`, or a
        /// server on 127.0.0.1.
        #[arg(long)]
        rate_source: Option<String>,
    },
    /// Play three months of a program, and leave it running to look at.
    Demo {
        #[command(flatten)]
        ports: Ports,
        /// Stop when it has been played.
        #[arg(long)]
        exit: bool,
    },
    /// Send a CSV file of conversions, partners or exchange rates to a system, here or anywhere.
    Import {
        /// Where its API is, like `http://127.0.0.1:8787`.
        #[arg(long)]
        url: String,
        /// The file the bearer token is in; without it, the environment variable `PARTNER_PAYOUTS_TOKEN`.
        #[arg(long)]
        token_file: Option<PathBuf>,
        /// Whose conversions or partners they are.
        #[arg(long)]
        program: Option<String>,
        #[arg(long)]
        kind: Kind,
        /// Tell what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Go on from this line of the file.
        #[arg(long, default_value_t = 1)]
        from_line: u64,
        file: PathBuf,
    },
}

#[derive(Args)]
struct Ports {
    #[arg(long, default_value_t = 8787)]
    port: u16,
    /// Of the AWS endpoint; any free one where left out.
    #[arg(long, default_value_t = 0)]
    aws_port: u16,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Error> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Up { ports, data, memory, clock, rate_source } => {
            let storage = if memory { Storage::Memory } else { Storage::Directory(data) };
            let clock = clock.map_or_else(LocalClock::wall, LocalClock::standing_at);
            let beside = Beside::bind(&ports).await?;
            let mut system = System::start(beside.options(storage, clock)?).await?;
            if let Some(url) = rate_source {
                system = system.with_rates_from(&url)?;
            }
            up(Arc::new(system), ports.port, beside).await
        }
        Command::Demo { ports, exit } => {
            let clock = LocalClock::standing_at(demo::start()?);
            let beside = Beside::bind(&ports).await?;
            let system = Arc::new(System::start(beside.options(Storage::Memory, clock)?).await?);
            demo::play(&system, &mut std::io::stdout()).await?;
            if exit {
                return Ok(());
            }
            demo::what_next(&mut std::io::stdout(), ports.port)?;
            up(system, ports.port, beside).await
        }
        Command::Import { url, token_file, program, kind, dry_run, from_line, file } => {
            let token = match token_file {
                Some(path) => std::fs::read_to_string(path)?,
                None => {
                    std::env::var("PARTNER_PAYOUTS_TOKEN").map_err(|_| "give --token-file or PARTNER_PAYOUTS_TOKEN")?
                }
            };
            let wanted = Import { url, token, program, kind, file, dry_run, from_line };
            let counts = import(&wanted, &mut std::io::stdout()).await?;
            if counts.refused > 0 {
                Err(format!("of {} rows, {} were refused", counts.rows, counts.refused).into())
            } else {
                Ok(())
            }
        }
    }
}

/// What is served beside the product: AWS, and what stands for PayPal and for QuickBooks.
struct Beside {
    aws: TcpListener,
    paypal: TcpListener,
    quickbooks: TcpListener,
}

impl Beside {
    async fn bind(ports: &Ports) -> Result<Self, Error> {
        Ok(Self { aws: bind(ports.aws_port).await?, paypal: bind(0).await?, quickbooks: bind(0).await? })
    }

    fn options(&self, storage: Storage, clock: LocalClock) -> Result<Options, Error> {
        let at = |listener: &TcpListener| Ok::<_, Error>(Some(format!("http://{}", listener.local_addr()?)));
        let quickbooks = QuickbooksOptions { endpoint: at(&self.quickbooks)?, ..QuickbooksOptions::default() };
        Ok(Options { storage, clock, aws: at(&self.aws)?, paypal: at(&self.paypal)?, quickbooks })
    }
}

async fn up(system: Arc<System>, port: u16, beside: Beside) -> Result<(), Error> {
    let http = bind(port).await?;
    let Beside { aws, paypal, quickbooks } = beside;
    println!("ready http://{}", http.local_addr()?);
    println!("aws   http://{}", aws.local_addr()?);
    println!(
        "books http://{} (QuickBooks' counterpart: vendors and Bills, and a button to pay them)",
        quickbooks.local_addr()?
    );
    let worker = Arc::clone(&system);
    let worker = tokio::spawn(async move { worker.run().await });
    let embedded = system.embedded.clone();
    let aws = embedded.serve(aws, std::future::pending());
    tokio::select! {
        served = serve(Arc::clone(&system), http, stopped()) => served?,
        () = aws => {}
        () = system.paypal.serve(paypal) => {}
        served = quickbooks_counterpart::server::serve(quickbooks, system.quickbooks.clone()) => served?,
    }
    worker.abort();
    Ok(())
}

async fn bind(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        format!("port {port} on 127.0.0.1 cannot be used ({error}); choose another with --port").into()
    })
}

async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
