//! Intuit posts here when something changes in a company. What is signed is put into a queue, an event a message, and answered at once:
//! Intuit waits three seconds, and holds back later events until it is answered 200.

use std::convert::Infallible;

use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use quickbooks::webhook::{Delivered, is_signed, read};
use store::ExceptionCode;
use workflows::exceptions::{Trouble, file};
use workflows::queues::QuickbooksEvent;
use workflows::quickbooks::{Quickbooks, events};
use workflows::{Context, Refusal};

/// Intuit names no limit; a thousand events have some 350 kilobytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

pub async fn handle(
    context: &Context,
    quickbooks: &Quickbooks,
    request: Request,
) -> Result<Response<Body>, Infallible> {
    let status = receive(context, quickbooks, &request).await.unwrap_or_else(|refusal| {
        tracing::error!(%refusal, "delivery could not be taken; Intuit will send it again");
        StatusCode::SERVICE_UNAVAILABLE
    });
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    Ok(response)
}

async fn receive(context: &Context, quickbooks: &Quickbooks, request: &Request) -> Result<StatusCode, Refusal> {
    // The very bytes: the content type is `application/json` or `application/cloudevents+json`, and does not matter.
    let body: &[u8] = request.body().as_ref();
    if body.len() > MAX_BODY {
        return Ok(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let signature = request.headers().get("intuit-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_intuits(context, quickbooks, body, signature).await? {
        tracing::warn!("delivery was not Intuit's");
        return Ok(StatusCode::UNAUTHORIZED);
    }
    // What is signed and cannot be read would come again for ever, and hold back what comes after it.
    let Delivered { told, odd } =
        read(body).unwrap_or_else(|unreadable| Delivered { told: Vec::new(), odd: vec![unreadable] });
    if let Some(first) = odd.first() {
        let (body, others) = (String::from_utf8_lossy(body), odd.len() - 1);
        let detail =
            if others == 0 { first.to_string() } else { format!("{first}; and {others} more of the delivery") };
        file(context, trouble(context, detail, &body)).await?;
    }
    let look = events::to_look_at(told);
    let look: Vec<_> = look.into_iter().map(|notification| QuickbooksEvent { notification, slot: None }).collect();
    context.queues.send_quickbooks_events(&look).await?;
    tracing::info!(events = look.len(), "delivery taken");
    Ok(StatusCode::OK)
}

/// The verifier may have been changed a moment ago, so it is read again before a signature is called bad.
async fn is_intuits(context: &Context, quickbooks: &Quickbooks, body: &[u8], signature: &str) -> Result<bool, Refusal> {
    for again in [false, true] {
        let Some(verifier) = quickbooks.verifier(context, again).await? else { return Ok(false) };
        if is_signed(body, signature, verifier.expose()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn trouble<'a>(context: &Context, detail: String, body: &'a str) -> Trouble<'a> {
    Trouble {
        code: ExceptionCode::Unreadable,
        detail,
        program: None,
        source: None,
        order: None,
        received_at: context.now(),
        headers: &[],
        body: Some(body),
    }
}
