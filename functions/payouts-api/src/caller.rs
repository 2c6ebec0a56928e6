//! Who is calling, from the claims that API Gateway's JWT authorizer verified. The authorizer is the first gate; that the
//! token is an access token, and what its holder may do, is checked again here.

use std::collections::{BTreeSet, HashMap};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::ids::PartnerId;
use lambda_http::request::RequestContext;

use crate::Shared;
use crate::problem::{Answer, Problem};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May do everything.
    Admin,
    /// Programs, rules, partners, sources.
    ProgramManager,
    /// Lines.
    Reviewer,
    /// Payouts.
    Approver,
    /// Rails, exports, tax; marks paid.
    Finance,
    /// Reads everything.
    Analyst,
    /// Own data only.
    Partner,
}

impl Role {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "admin" => Self::Admin,
            "program-manager" => Self::ProgramManager,
            "reviewer" => Self::Reviewer,
            "approver" => Self::Approver,
            "finance" => Self::Finance,
            "analyst" => Self::Analyst,
            "partner" => Self::Partner,
            _ => return None,
        })
    }
}

/// Scopes of machine clients are `partner-payouts/<role>`.
const SCOPE_PREFIX: &str = "partner-payouts/";

/// A person or machine client that is signed in.
#[derive(Debug, Clone)]
pub struct Caller {
    pub subject: String,
    roles: BTreeSet<Role>,
    /// Whose data a partner may see.
    partner: Option<PartnerId>,
}

impl Caller {
    /// Refuses unless the caller has one of the roles; an admin always has.
    pub fn must_be(&self, roles: &[Role]) -> Answer<()> {
        let allowed = self.roles.contains(&Role::Admin) || roles.iter().any(|role| self.roles.contains(role));
        if allowed { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// Everybody who works for the merchant may read.
    pub fn must_be_staff(&self) -> Answer<()> {
        if self.is_staff() { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// Works for the merchant, and so may see who did what.
    pub fn is_staff(&self) -> bool {
        self.roles.iter().any(|role| *role != Role::Partner)
    }

    /// Whether the caller may see this partner's data. What they may not see does not exist for them.
    pub fn may_see(&self, partner: &PartnerId) -> bool {
        self.is_staff() || self.partner.as_ref() == Some(partner)
    }

    /// Whether the caller is this partner, whatever else they are.
    pub fn is(&self, partner: &PartnerId) -> bool {
        self.partner.as_ref() == Some(partner)
    }

    /// Whether the caller is some partner, whatever else they are.
    pub const fn is_partner(&self) -> bool {
        self.partner.is_some()
    }

    /// Which partner a list is about: any for staff, only their own for a partner.
    pub fn scope(&self, asked: Option<PartnerId>) -> Answer<Option<PartnerId>> {
        if self.is_staff() {
            return Ok(asked);
        }
        match (&self.partner, asked) {
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if *own == asked => Ok(Some(asked)),
            (_, Some(_)) => Err(Problem::not_found("partner")),
            (None, None) => Err(Problem::forbidden()),
        }
    }

    /// Whose list a cursor belongs to.
    pub fn view(&self) -> &str {
        if self.is_staff() { "staff" } else { self.partner.as_ref().map_or("nobody", PartnerId::as_str) }
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let claims = claims(parts).ok_or_else(Problem::unauthorized)?;
        let (subject, roles) = identify(claims).ok_or_else(Problem::unauthorized)?;
        let partner = if roles.contains(&Role::Partner) {
            shared.context.store.membership("sign in", &subject).await?.map(|membership| membership.partner)
        } else {
            None
        };
        Ok(Self { subject, roles, partner })
    }
}

fn claims(parts: &Parts) -> Option<&HashMap<String, String>> {
    let RequestContext::ApiGatewayV2(context) = parts.extensions.get::<RequestContext>()? else { return None };
    Some(&context.authorizer.as_ref()?.jwt.as_ref()?.claims)
}

/// Subject and roles of an access token of ours. Access tokens have no audience, so `client_id` is required instead.
fn identify(claims: &HashMap<String, String>) -> Option<(String, BTreeSet<Role>)> {
    let is_access_token = claims.get("token_use").is_some_and(|token_use| token_use == "access");
    let has_client = claims.get("client_id").is_some_and(|client| !client.is_empty());
    let subject = claims.get("sub").filter(|subject| !subject.is_empty())?;
    if !is_access_token || !has_client {
        return None;
    }
    let groups = claims.get("cognito:groups").map(|groups| flattened(groups)).unwrap_or_default();
    let scopes = claims.get("scope").map(|scopes| scopes.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    let granted = scopes.into_iter().filter_map(|scope| scope.strip_prefix(SCOPE_PREFIX));
    let roles = groups.into_iter().chain(granted).filter_map(Role::parse).collect();
    Some((subject.clone(), roles))
}

/// An HTTP API flattens a list claim to `[a b]`. Anything else is no list, rather than a list of one.
fn flattened(claim: &str) -> Vec<&str> {
    let inner = claim.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.map(|inner| inner.split([' ', ',']).filter(|group| !group.is_empty()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(claims: &[(&str, &str)]) -> Option<Vec<Role>> {
        let claims = claims.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        identify(&claims).map(|(_, roles)| roles.into_iter().collect())
    }

    #[test]
    fn only_access_tokens_of_known_clients_identify() {
        let fine =
            [("token_use", "access"), ("client_id", "c"), ("sub", "ann"), ("cognito:groups", "[reviewer approver]")];
        assert_eq!(roles(&fine), Some(vec![Role::Reviewer, Role::Approver]));
        for missing in 0..3 {
            let mut claims = fine.to_vec();
            claims.remove(missing);
            assert_eq!(roles(&claims), None, "without {}", fine[missing].0);
        }
        assert_eq!(roles(&[("token_use", "id"), ("client_id", "c"), ("sub", "ann")]), None);
    }

    #[test]
    fn groups_are_read_strictly_and_scopes_by_prefix() {
        let with = |claim: &'static str, value: &'static str| {
            roles(&[("token_use", "access"), ("client_id", "c"), ("sub", "ann"), (claim, value)]).unwrap()
        };
        assert_eq!(with("cognito:groups", "admin"), []);
        assert_eq!(with("cognito:groups", "[admins]"), []);
        assert_eq!(with("scope", "openid admin partner-payouts/finance"), [Role::Finance]);
    }
}
