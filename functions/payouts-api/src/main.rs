use lambda_http::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let cursor_secret = format!("{}/cursor-key", context.secret_prefix);
    lambda_http::run(payouts_api::api(context, cursor_secret, None)).await
}
