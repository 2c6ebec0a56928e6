use lambda_runtime::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let paypal = runtime::paypal()?;
    lambda_runtime::run(service_fn(|event| submit_payouts::handle(&context, &paypal, event))).await
}
