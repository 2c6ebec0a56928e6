use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let context = &runtime::context()?;
    let tick = async |event: LambdaEvent<Value>| {
        let function = event.context.env_config.function_name.clone();
        let ticked = Box::pin(batch_payouts::handle(context, event)).await?;
        println!("{}", Box::pin(batch_payouts::unpaid_age(context, &function)).await?);
        Ok::<_, Error>(ticked)
    };
    lambda_runtime::run(service_fn(tick)).await
}
