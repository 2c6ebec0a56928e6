//! The counterpart as a program of its own: `cargo run --bin quickbooks-counterpart`. What goes wrong is switched by `POST /_faults` (probabilities, also
//! of webhooks that come twice or late), `POST /_company` (closed books, an inactive vendor, a subscription that ended) and `POST /_revoke`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Parser;
use jiff::Timestamp;
use quickbooks_counterpart::server::{listen, notify, serve};
use quickbooks_counterpart::{Counterpart, Settings};

/// A stand-in for QuickBooks Online on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// 0: any free one.
    #[arg(long, default_value_t = 8790)]
    port: u16,
    /// The company that whoever consents connects.
    #[arg(long)]
    realm: Option<String>,
    /// Where webhooks go: an address on this machine.
    #[arg(long)]
    webhooks: Option<String>,
    /// Webhooks in the form before `CloudEvents`.
    #[arg(long)]
    legacy_webhooks: bool,
    /// Answer any number of requests.
    #[arg(long)]
    no_limits: bool,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let mut settings =
        Settings { limits: !arguments.no_limits, legacy_webhooks: arguments.legacy_webhooks, ..Settings::default() };
    if let Some(realm) = arguments.realm {
        settings.realm = realm;
    }
    let told = settings.clone();
    let counterpart = Counterpart::new(settings, Arc::new(Timestamp::now));
    let (listener, address) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port))).await?;
    println!(
        "ready http://{address} (client {}, secret {}, verifier {})",
        told.client_id, told.client_secret, told.verifier
    );
    if let Some(to) = arguments.webhooks {
        tokio::spawn(notify(counterpart.clone(), to));
    }
    serve(listener, counterpart).await
}
