use lambda_runtime::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    lambda_runtime::run(service_fn(|event| tax_filing::handle(&context, event))).await
}
