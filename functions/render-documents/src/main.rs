use std::sync::Arc;

use lambda_http::Error;
use render_documents::Renderer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (context, files) = runtime::with_files()?;
    let cursor_secret = format!("{}/cursor-key", context.secret_prefix);
    let rails = Arc::new(runtime::rails()?);
    let renderer = Arc::new(Renderer::default());
    lambda_http::run(payouts_api::api(context, files, cursor_secret, rails, Some(renderer))).await
}
