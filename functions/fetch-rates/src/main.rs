use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = &runtime::context()?;
    let source = &fetch_rates::source()?;
    let fetch = |event: LambdaEvent<Value>| fetch_rates::handle(context, source.as_ref(), event);
    lambda_runtime::run(service_fn(fetch)).await
}
