use std::sync::Arc;

use lambda_http::Error;
use render_documents::Renderer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    let cursor_secret = format!("{}/cursor-key", context.secret_prefix);
    let renderer = Arc::new(Renderer::default());
    lambda_http::run(payouts_api::api(context, cursor_secret, Some(renderer))).await
}
