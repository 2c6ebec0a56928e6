use lambda_http::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let quickbooks = runtime::quickbooks()?;
    lambda_http::run(service_fn(|request| qbo_webhook::handle(&context, &quickbooks, request))).await
}
