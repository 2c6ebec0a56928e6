//! `cargo exports`: how long a batch of many payouts takes, and how much memory, from gathering to the last byte of its files.
//! `cargo exports 10000 100000` says for how many; those two are what it does without.
//!
//! The table is in a file and the payouts are put there without their commissions, so that what is measured is the export. The embedded
//! S3 keeps what it is given, in this process; that much is taken off the memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use domain::ids::{PartnerId, PayoutId, RunId};
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

#[tokio::main]
async fn main() -> Result<(), Error> {
    let asked: Result<Vec<usize>, _> = std::env::args().skip(1).map(|count| count.parse()).collect();
    let counts = Some(asked?).filter(|counts| !counts.is_empty()).unwrap_or_else(|| vec![10_000, 100_000]);
    println!("| payouts | files | gathering | files written | bytes | memory, at most |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for count in counts {
        let directory = temporary_directory(&format!("exports-{count}"));
        let measured = measure(count, Storage::Directory(directory.clone())).await;
        std::fs::remove_dir_all(&directory)?;
        let (export, gathering, writing, bytes, memory) = measured?;
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
    Ok(())
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
    let (mut bytes, mut kept) = (0, 0);
    for number in 0..export.files.len() {
        match file(context, &world.system.files, &export.id, number).await? {
            Delivered::Whole(rows) => bytes += rows.len(),
            Delivered::Link(link) => {
                let request = http::Request::get(link).body(bytes::Bytes::new())?;
                let length = world.system.embedded.handle(request).body().len();
                bytes += length;
                kept += length;
            }
        }
    }
    let writing = began.elapsed();
    Ok((export, gathering, writing, bytes, peak()?.saturating_sub(before).saturating_sub(kept)))
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
