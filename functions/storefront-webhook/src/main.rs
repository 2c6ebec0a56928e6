use lambda_http::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let webhook = storefront_webhook::Webhook::new(runtime::context()?);
    lambda_http::run(service_fn(|request| webhook.handle(request))).await
}
