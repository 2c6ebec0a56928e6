use lambda_http::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (context, files) = runtime::with_files()?;
    let cursor_secret = format!("{}/cursor-key", context.secret_prefix);
    lambda_http::run(payouts_api::api(context, files, cursor_secret, None)).await
}
