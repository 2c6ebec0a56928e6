use lambda_http::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = runtime::context()?;
    lambda_http::run(service_fn(|request| track_click::handle(&context, request))).await
}
