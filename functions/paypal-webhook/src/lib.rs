//! PayPal posts here when a payment changes. Whether a delivery is PayPal's, PayPal itself is asked; then the payout it names is put into
//! the queue to be looked at. What the delivery says about it is not believed.

use std::convert::Infallible;

use domain::ids::ProgramId;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use paypal::Delivery;
use workflows::rails::{Paypal, payout_named};
use workflows::{Context, Refusal};

/// A delivery about one payment has some three kilobytes.
const MAX_BODY: usize = 64 * 1024;

pub async fn handle(context: &Context, paypal: &Paypal, request: Request) -> Result<Response<Body>, Infallible> {
    let status = receive(context, paypal, &request).await.unwrap_or_else(|refusal| {
        tracing::error!(%refusal, "delivery could not be taken; PayPal will send it again");
        StatusCode::SERVICE_UNAVAILABLE
    });
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    Ok(response)
}

async fn receive(context: &Context, paypal: &Paypal, request: &Request) -> Result<StatusCode, Refusal> {
    let body: &[u8] = request.body().as_ref();
    if body.len() > MAX_BODY {
        return Ok(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let program = request.uri().path().rsplit('/').next().and_then(|id| id.parse::<ProgramId>().ok());
    // An unknown program, one without PayPal and a bad signature look the same from outside.
    let Some(program) = program else { return Ok(StatusCode::UNAUTHORIZED) };
    let Some(connected) = paypal.connected(context, &program).await? else { return Ok(StatusCode::UNAUTHORIZED) };
    let Ok(text) = std::str::from_utf8(body) else { return Ok(StatusCode::UNAUTHORIZED) };
    let delivery = Delivery { headers: request.headers(), body: text };
    match connected.client.sent(&delivery, &connected.webhook_id).await {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(%program, "delivery was not PayPal's");
            return Ok(StatusCode::UNAUTHORIZED);
        }
        Err(error) => return Err(Refusal::Service("PayPal", error.to_string())),
    }
    let Some(notice) = delivery.notice() else { return Ok(StatusCode::OK) };
    // The account may pay for others, too.
    if let Some(payout) = notice.name.as_deref().and_then(payout_named) {
        context.queues.send_submission(&payout).await?;
    }
    tracing::info!(kind = %notice.kind, "delivery taken");
    Ok(StatusCode::OK)
}
