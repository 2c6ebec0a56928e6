use lambda_http::Error;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let context = runtime::context().await?;
    let cursor_secret = std::env::var("CURSOR_SECRET")?;
    lambda_http::run(payouts_api::api(context, cursor_secret)).await
}
