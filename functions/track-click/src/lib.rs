//! Visitors follow referral links here: the visit is recorded as a touch, and the visitor is sent on to the shop, with an
//! address that tells the shop whose link it was.
//!
//! It must never send anybody to where the program does not say, keep anything personal, or keep a visitor waiting
//! because a visit could not be recorded.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod visit;

use std::convert::Infallible;
use std::time::Duration;

use domain::attribution::{Model, Touch};
use domain::conversion::Code;
use domain::ids::{ClickId, ProgramId, VisitorId};
use domain::link::Destination;
use domain::program::{PartnerStatus, Program};
use lambda_http::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY, SET_COOKIE};
use lambda_http::http::{HeaderValue, StatusCode};
use lambda_http::{Body, Request, Response};
use serde_json::json;
use store::{Link, Transaction};
use workflows::{Context, Refusal};

use crate::visit::Query;

const OPERATION: &str = "click";
/// A visitor waits no longer than this for a visit to be recorded.
const RECORDING: Duration = Duration::from_secs(2);
/// Days are 24 hours, as in attribution windows.
const DAY_SECONDS: u64 = 24 * 3_600;

pub async fn handle(context: &Context, request: Request) -> Result<Response<Body>, Infallible> {
    Ok(follow(context, &request).await.unwrap_or_else(|refusal| {
        tracing::error!(%refusal, "a link could not be looked up");
        problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", "try again in a moment")
    }))
}

async fn follow(context: &Context, request: &Request) -> Result<Response<Body>, Refusal> {
    let store = &context.store;
    let code = request.uri().path().rsplit('/').next().and_then(|code| code.parse::<Code>().ok());
    let Some(code) = code else { return Ok(not_found("there is no such link")) };
    let Some(link) = store.link(OPERATION, &code).await? else { return Ok(not_found("there is no such link")) };
    let (program, partner) =
        tokio::try_join!(store.program(OPERATION, &link.program), store.partner(OPERATION, &link.partner))?;
    let (Some(program), Some(partner)) = (program, partner) else { return Ok(not_found("there is no such link")) };

    let query = Query::of(request.uri());
    let destination = match &query.to {
        Some(to) => to.parse::<Destination>().ok().filter(|to| program.may_lead_to(to)),
        None => own_destination(&link, &program),
    };
    let Some(destination) = destination else {
        return Ok(match query.to {
            Some(_) => bad_destination(),
            None => not_found("set the program's landingPage, or the link's destination, or say where to with ?to="),
        });
    };
    if partner.status == PartnerStatus::Suspended {
        // Nothing that would name the partner to the shop.
        return Ok(redirect(&destination));
    }
    if !visit::is_by_a_person(request) {
        return Ok(redirect(&destination.with(&[("ref", code.as_str())])));
    }
    let visitor = visit::visitor(request).unwrap_or_else(|| VisitorId::from_uuid(context.clock.random()));
    let click = record(context, &program.id, touch(context, request, query, link, &destination, &visitor)).await;
    let mut told = Vec::new();
    // A code or a click would name one partner outright; where the program shares among all who touched a customer, only the visitor
    // must be known.
    if program.attribution.model == Model::LastTouch || click.is_none() {
        told.push(("ref", code.as_str()));
        told.extend(click.as_ref().map(|click| ("click_id", click.as_str())));
    }
    told.push(("visitor_id", visitor.as_str()));
    let mut response = redirect(&destination.with(&told));
    let window = u64::from(program.attribution.window_days) * DAY_SECONDS;
    set(&mut response, SET_COOKIE, &visit::cookie(&visitor, window));
    Ok(response)
}

/// Where a link leads that is not asked to lead elsewhere. The program may have stopped to allow what it once did.
fn own_destination(link: &Link, program: &Program) -> Option<Destination> {
    let read = |address: &Option<String>| address.as_ref()?.parse::<Destination>().ok();
    read(&link.destination).filter(|to| program.may_lead_to(to)).or_else(|| read(&program.landing_page))
}

fn touch(
    context: &Context,
    request: &Request,
    query: Query,
    link: Link,
    destination: &Destination,
    visitor: &VisitorId,
) -> Touch {
    let at = context.now();
    Touch {
        click: ClickId::derive(visitor, at, context.clock.random()),
        partner: link.partner,
        at,
        code: link.code.into(),
        channel: query.channel.or(link.channel),
        campaign: query.campaign.or(link.campaign),
        landing_page: Some(destination.page()),
        device: visit::device(request).map(str::to_owned),
        referrer: visit::referrer(request),
    }
}

/// `None` if it could not be recorded: the code still tells the shop whose link it was.
async fn record(context: &Context, program: &ProgramId, touch: Touch) -> Option<ClickId> {
    let write = async {
        let mut transaction = Transaction::new(OPERATION);
        transaction.create_touch(program, &touch)?;
        context.store.commit(transaction).await
    };
    let reason = match tokio::time::timeout(RECORDING, write).await {
        Ok(Ok(())) => return Some(touch.click),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::error!(%reason, "a visit could not be recorded; the visitor is sent on without it");
    None
}

fn redirect(destination: &Destination) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::FOUND;
    set(&mut response, LOCATION, &destination.to_string());
    set(&mut response, CACHE_CONTROL, "no-store");
    // Older browsers' default would tell the shop the very page a visitor came from.
    set(&mut response, REFERRER_POLICY, "strict-origin-when-cross-origin");
    response
}

fn not_found(detail: &str) -> Response<Body> {
    problem(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

fn bad_destination() -> Response<Body> {
    let detail = "to must be an https address on the host of the program's landingPage or one of its allowedHosts";
    problem(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
}

/// RFC 9457, with the types the API has.
fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response<Body> {
    let kind = format!("/problems/{kind}");
    let body = json!({"type": kind, "title": title, "status": status.as_u16(), "detail": detail});
    let mut response = Response::new(Body::Text(body.to_string()));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "application/problem+json");
    set(&mut response, CACHE_CONTROL, "no-store");
    response
}

/// All values here are visible ASCII.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
