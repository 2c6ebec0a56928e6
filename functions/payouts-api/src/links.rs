//! Referral links, and where a program lets them lead.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::conversion::Code;
use domain::ids::{PartnerId, ProgramId};
use domain::link::{Destination, host};
use domain::program::Program;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Link;

use crate::bulk;
use crate::caller::{Caller, Role};
use crate::extract::{Body, Fields, Filter, Paging, finish};
use crate::idempotency::Begun;
use crate::listing::Query;
use crate::problem::{Answer, Problem};
use crate::{Api, Shared, partners, programs, show};

const OPERATION: &str = "links";
/// Hosts that a program names.
const MAX_HOSTS: usize = 50;
/// Links of one partner, so that nobody takes all the codes.
const MAX_LINKS: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    partner_id: String,
    code: String,
    #[serde(default)]
    campaign: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    destination: Option<String>,
}

impl Input {
    fn check(self, program: &Program, partner: PartnerId, by: &str, now: jiff::Timestamp) -> Answer<Link> {
        let mut fields = Fields::default();
        let code = fields.take("/code", self.code.parse::<Code>());
        let campaign = self.campaign.as_deref().map(|campaign| fields.text("/campaign", campaign));
        let channel = self.channel.as_deref().map(|channel| fields.text("/channel", channel));
        let destination = self
            .destination
            .as_deref()
            .and_then(|destination| fields.take("/destination", destination.parse::<Destination>()));
        if let Some(destination) = &destination {
            let allowed = program.may_lead_to(destination);
            fields.check(allowed, "/destination", "is on a host that is neither the landing page's nor an allowed one");
        }
        let link = code.map(|code| Link {
            code,
            program: program.id.clone(),
            partner,
            campaign,
            channel,
            destination: destination.map(|destination| destination.to_string()),
            created_at: now,
            created_by: by.to_owned(),
        });
        finish(fields, link)
    }
}

/// Where a program's links lead that say nothing else.
pub fn landing_page(fields: &mut Fields, text: Option<&str>) -> Option<String> {
    let page = fields.take("/landingPage", text?.parse::<Destination>())?;
    Some(page.to_string())
}

pub fn allowed_hosts(fields: &mut Fields, texts: &[String]) -> Vec<String> {
    fields.check(texts.len() <= MAX_HOSTS, "/allowedHosts", "at most 50 hosts");
    let mut hosts = Vec::with_capacity(texts.len());
    for (n, text) in texts.iter().take(MAX_HOSTS).enumerate() {
        hosts.extend(fields.take(&format!("/allowedHosts/{n}"), host(text)));
    }
    hosts
}

/// A program manager makes links for anybody, a partner for itself.
pub async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Begun(begun): Begun,
    input: Body<Input>,
) -> Answer<(StatusCode, Json<Value>)> {
    caller.must_be(&[Role::ProgramManager, Role::Partner])?;
    let input = input.get()?;
    let unknown = || Problem::invalid_field("/partnerId", "there is no such partner");
    let id: PartnerId = input.partner_id.parse().map_err(|_| unknown())?;
    if !caller.is(&id) && caller.must_be(&[Role::ProgramManager]).is_err() {
        return Err(unknown());
    }
    let context = &shared.context;
    let partner = context.store.partner(OPERATION, &id).await?.ok_or_else(unknown)?;
    let program = programs::load(&shared, &partner.program).await?;
    let link = input.check(&program, partner.id, &caller.subject, begun.at)?;
    if context.store.link_count(OPERATION, &program.id, &link.partner, MAX_LINKS).await? >= MAX_LINKS {
        return Err(Problem::conflict(format!("a partner has at most {MAX_LINKS} links")));
    }
    workflows::links::create(context, &link).await?;
    Ok((StatusCode::CREATED, Json(show::link(&link))))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListFilter {
    partner_id: Option<String>,
    program_id: Option<String>,
}

impl ListFilter {
    /// The program whose links are listed, and the partner if only one's are. `None`: both are named and do not meet.
    async fn scope(&self, api: &Api, caller: &Caller) -> Answer<Option<(ProgramId, Option<PartnerId>)>> {
        let partner = self.partner_id.as_deref().map(|id| bulk::parse(id, "partner")).transpose()?;
        let program = self.program_id.as_deref().map(|id| bulk::parse::<ProgramId>(id, "program")).transpose()?;
        match (caller.scope(partner)?, program) {
            (Some(partner), program) => {
                let partner = partners::visible(api, caller, &partner).await?;
                let meet = program.is_none_or(|program| program == partner.program);
                Ok(meet.then_some((partner.program, Some(partner.id))))
            }
            (None, Some(program)) => Ok(Some((programs::load(api, &program).await?.id, None))),
            (None, None) => Err(Problem::malformed("", "name a partnerId or a programId")),
        }
    }
}

pub async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Filter(filter): Filter<ListFilter>,
    paging: Paging,
) -> Answer<Json<Value>> {
    let query = Query::new(&shared, &caller, "links", &filter, paging);
    let Some((program, partner)) = filter.scope(&shared, &caller).await? else {
        return query.page(Vec::new(), None::<String>).await;
    };
    let store = &shared.context.store;
    let page = query
        .fetch(async |after, limit| store.links(OPERATION, &program, partner.as_ref(), after.as_deref(), limit).await)
        .await?;
    query.page(page.items.iter().map(show::link).collect(), page.after).await
}
