//! `cargo exports`: how long a batch of many payouts takes, and how much memory, from gathering to the last byte of its files.
//! `cargo exports 10000 100000` says for how many; those two are what it does without. `cargo exports --check` makes two small batches, and fails
//! if a file does not download again with the same bytes, or if the larger batch takes much more memory.
//!
//! The table is in a file and the payouts are put there without their commissions, so that what is measured is the export. The embedded
//! S3 keeps what it is given, in this process; that much is taken off the memory.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use domain::ids::{Hash, PartnerId, PayoutId, RunId};
use domain::payout::Payout;
use domain::program::{Partner, PayoutMethod};
use domain::remittance::RemittanceFormat;
use futures::{StreamExt, TryStreamExt, stream};
use local::Storage;
use serde_json::json;
use store::{Export, Transaction, Whose};
use tests::memory::{megabytes, peak, reset_peak};
use tests::{ADMIN, APPROVER, Plan, World, temporary_directory};
use workflows::exports::{Asked, export, file};
use workflows::files::Delivered;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Payouts put at once.
const WRITERS: usize = 8;

const CHECKED: [usize; 2] = [50, 200];
/// How much more memory the larger of the two batches may take: some pages of rows, and what else the process does.
const MORE_MEMORY: usize = 8 << 20;

#[derive(Parser)]
#[command(name = "cargo exports")]
struct Cli {
    #[arg(default_values_t = [10_000, 100_000])]
    payouts: Vec<usize>,
    /// Fail if files do not come out the same, or memory grows.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let cli = Cli::parse();
    let counts = if cli.check { CHECKED.to_vec() } else { cli.payouts };
    let mut held = Vec::new();
    println!("| payouts | files | gathering | files written | bytes | memory, at most |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for count in counts {
        let directory = temporary_directory(&format!("exports-{count}"));
        let measured = measure(count, Storage::Directory(directory.clone())).await;
        std::fs::remove_dir_all(&directory)?;
        let (export, gathering, writing, bytes, memory) = measured?;
        held.push(memory);
        println!(
            "| {} | {} | {:.1} s | {:.1} s | {:.1} MB | {:.1} MB |",
            export.payouts,
            export.files.len(),
            gathering.as_secs_f64(),
            writing.as_secs_f64(),
            megabytes(bytes),
            megabytes(memory),
        );
    }
    if cli.check && held.windows(2).any(|pair| pair[1] > pair[0] + MORE_MEMORY) {
        eprintln!("memory grows with the number of payouts: {held:?} bytes");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(count: usize, storage: Storage) -> Result<(Export, Duration, Duration, usize, usize), Error> {
    let method =
        json!([{"kind": "bank", "details": {"name": "Anna", "iban": "DE89370400440532013000"}, "preferred": true}]);
    let world = Plan::new().stored(storage).partner("payoutMethods", method).start().await;
    world.sale("o1", "100.00").await;
    let id = world.request_payout().await["id"].clone();
    if world.approve_payout(APPROVER, &id).await != 200 {
        return Err(format!("{} cannot be approved", world.payout(&id).await).into());
    }
    multiply(&world, id.as_str().unwrap_or_default().parse()?, count - 1).await?;
    let context = &world.system.context;
    let program = world.program.parse()?;
    let asked = Asked { key: "bench", program: &program, format: RemittanceFormat::Bank, whose: Whose::All };
    let before = reset_peak()?;
    let began = Instant::now();
    let export = export(context, &asked, ADMIN.subject, || true).await?;
    let gathering = began.elapsed();
    let began = Instant::now();
    let (mut bytes, mut kept, mut hashes) = (0, 0, Vec::new());
    for number in 0..export.files.len() {
        let (rows, is_kept) = download(&world, &export, number).await?;
        bytes += rows.len();
        kept += if is_kept { rows.len() } else { 0 };
        hashes.push(Hash::of(&rows));
    }
    let (writing, memory) = (began.elapsed(), peak()?.saturating_sub(before).saturating_sub(kept));
    for (number, hash) in hashes.iter().enumerate() {
        let (again, _) = download(&world, &export, number).await?;
        if Hash::of(&again) != *hash {
            return Err(format!("file {number} of {} does not come out the same", export.id).into());
        }
    }
    Ok((export, gathering, writing, bytes, memory))
}

/// The bytes of a file, and whether the embedded S3 keeps them.
async fn download(world: &World, export: &Export, number: usize) -> Result<(Bytes, bool), Error> {
    Ok(match file(&world.system.context, &world.system.files, &export.id, number).await? {
        Delivered::Whole(rows) => (rows.into(), false),
        Delivered::Link(link) => {
            let request = http::Request::get(link).body(Bytes::new())?;
            (world.system.embedded.handle(request).into_body(), true)
        }
    })
}

/// More payouts like this one, each of a partner of its own.
async fn multiply(world: &World, like: PayoutId, count: usize) -> Result<(), Error> {
    let store = &world.system.context.store;
    let payout = store.payout("bench", &like).await?.ok_or("the payout is gone")?;
    let partner = store.partner("bench", &payout.partner).await?.ok_or("the partner is gone")?;
    let first = partner.payout_methods.first().ok_or("the partner has no method")?;
    let run = RunId::derive(&payout.program, "manual", "bench");
    let put = async |n: usize| -> Result<(), Error> {
        let id = PartnerId::from_uuid(u128::try_from(n)?);
        let details = BTreeMap::from([
            ("name".to_owned(), format!("Partner {n}")),
            ("iban".to_owned(), "DE89370400440532013000".to_owned()),
        ]);
        let method = PayoutMethod { details, ..first.clone() };
        let another = Payout {
            id: PayoutId::derive(&run, &id, payout.created_at),
            partner: id.clone(),
            destination: method.fingerprint(),
            ..payout.clone()
        };
        let code = format!("M{n}").parse()?;
        let mut transaction = Transaction::new("bench");
        transaction.create_partner(&Partner { id, code, payout_methods: vec![method], ..partner.clone() })?;
        transaction.create_payout(&another)?;
        Ok(store.commit(transaction).await?)
    };
    stream::iter(0..count).map(put).buffer_unordered(WRITERS).try_collect::<()>().await
}
