use lambda_runtime::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (context, files) = runtime::with_files()?;
    lambda_runtime::run(service_fn(|event| tax_filing::handle(&context, &files, event))).await
}
