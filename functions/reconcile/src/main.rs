use lambda_runtime::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let rails = runtime::rails()?;
    lambda_runtime::run(service_fn(|event| reconcile::handle(&context, &rails, event))).await
}
