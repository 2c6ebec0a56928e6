use lambda_http::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let paypal = runtime::paypal()?;
    lambda_http::run(service_fn(|request| paypal_webhook::handle(&context, &paypal, request))).await
}
