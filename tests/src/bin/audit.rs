//! `cargo run --bin audit -- TABLE`: reads a whole table and tells which invariants hold, as `GET /_local/audit` does
//! for the local system. Region, credentials and endpoint come from the environment, as for every AWS tool. It only reads; a scan
//! of a large table costs what reading all of it costs.

use std::process::ExitCode;

use aws_config::BehaviorVersion;
use store::Store;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(table), None) = (arguments.next(), arguments.next()) else {
        return Err("name one table".into());
    };
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let invariants = workflows::audit::audit(&Store::new(aws_sdk_dynamodb::Client::new(&config), table)).await?;
    for invariant in &invariants {
        let mark = if invariant.holds { "holds" } else { "BROKEN" };
        println!("{mark:<7} {} ({})", invariant.name, invariant.detail);
    }
    let all = invariants.iter().all(|invariant| invariant.holds);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
