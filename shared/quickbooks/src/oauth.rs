//! Sign-in: consent, tokens, and their rotation.
//!
//! A refresh token's value changes about once a day, and then the former one is worth nothing. So whatever an answer holds must be stored
//! before it is used, by one caller at a time; see `workflows` for the lease.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use jiff::{SignedDuration, Timestamp};
use outbound::{CallError, Outbound};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Reading and writing a company's books.
pub const SCOPE: &str = "com.intuit.quickbooks.accounting";
/// Tokens are renewed this long before they end, so that none ends under way.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// Where to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub authorize: String,
    pub token: String,
    pub revoke: String,
}

impl Endpoints {
    /// Intuit's, for sandbox and production alike.
    pub fn intuit() -> Self {
        Self {
            authorize: "https://appcenter.intuit.com/connect/oauth2".to_owned(),
            token: "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer".to_owned(),
            revoke: "https://developer.api.intuit.com/v2/oauth2/tokens/revoke".to_owned(),
        }
    }

    /// A counterpart's, all under one address.
    pub fn under(base: &str) -> Self {
        Self {
            authorize: format!("{base}/connect/oauth2"),
            token: format!("{base}/oauth2/v1/tokens/bearer"),
            revoke: format!("{base}/v2/oauth2/tokens/revoke"),
        }
    }
}

/// Our registration with Intuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    pub client_id: String,
    pub client_secret: Secret,
}

/// What lets us in, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    pub access: Secret,
    pub access_until: Timestamp,
    pub refresh: Secret,
    /// Moves on with each refresh.
    pub refresh_until: Timestamp,
    /// The day on which somebody must consent again, whatever happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_until: Option<Timestamp>,
}

impl Tokens {
    pub fn are_due(&self, now: Timestamp) -> bool {
        now + RENEW_BEFORE >= self.access_until
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// The refresh token is used up, revoked or expired: somebody must consent again, unless another caller has just renewed it.
    #[error("the refresh token is no longer good")]
    InvalidGrant,
    /// Our own registration, or what we asked for, is wrong.
    #[error("Intuit refuses to sign in: {0}")]
    Refused(String),
    /// Nothing was done.
    #[error("{0}")]
    NotSent(String),
    /// A new token may have been given out, and lost on the way.
    #[error("nobody knows whether tokens were given out: {0}")]
    Unknown(String),
}

impl From<CallError> for SignInError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(why) => Self::NotSent(why),
            CallError::Unknown(why) => Self::Unknown(why),
        }
    }
}

#[derive(Debug, Clone)]
pub struct SignIn {
    pub outbound: Outbound,
    pub endpoints: Endpoints,
    pub app: App,
}

impl SignIn {
    /// Where a person is sent to consent. They come back to `redirect` with `code`, `realmId` and this `state`.
    pub fn consent_url(&self, redirect: &str, state: &str) -> String {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &self.app.client_id)
            .append_pair("response_type", "code")
            .append_pair("scope", SCOPE)
            .append_pair("redirect_uri", redirect)
            .append_pair("state", state)
            .finish();
        format!("{}?{query}", self.endpoints.authorize)
    }

    /// The first tokens, for the code that consent gave.
    pub async fn exchange(&self, code: &str, redirect: &str, now: Timestamp) -> Result<Tokens, SignInError> {
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect)];
        self.tokens(&form, now).await
    }

    pub async fn refresh(&self, refresh: &Secret, now: Timestamp) -> Result<Tokens, SignInError> {
        self.tokens(&[("grant_type", "refresh_token"), ("refresh_token", refresh.expose())], now).await
    }

    async fn tokens(&self, form: &[(&str, &str)], now: Timestamp) -> Result<Tokens, SignInError> {
        let body: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self
            .request(&self.endpoints.token)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("x-include-refresh-token-hard-expires-in", "true");
        let answer = self.send(request, Bytes::from(body)).await?;
        if answer.0 == StatusCode::OK {
            let given = serde_json::from_slice::<Given>(&answer.1);
            return given.map_err(|_| SignInError::Unknown("its answer cannot be read".to_owned())).and_then(|given| {
                given.at(now).ok_or_else(|| SignInError::Unknown("its times are absurd".to_owned()))
            });
        }
        Err(refusal(answer.0, &answer.1))
    }

    /// Ends the connection at Intuit, too.
    pub async fn revoke(&self, refresh: &Secret) -> Result<(), SignInError> {
        let body = serde_json::json!({"token": refresh.expose()}).to_string();
        let request = self.request(&self.endpoints.revoke).header(CONTENT_TYPE, "application/json");
        match self.send(request, Bytes::from(body)).await? {
            // A token that is not good any more need not be revoked.
            (StatusCode::OK | StatusCode::BAD_REQUEST, _) => Ok(()),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    fn request(&self, to: &str) -> http::request::Builder {
        let basic = STANDARD.encode(format!("{}:{}", self.app.client_id, self.app.client_secret.expose()));
        Request::post(to).header(AUTHORIZATION, format!("Basic {basic}")).header(ACCEPT, "application/json")
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Result<(StatusCode, Bytes), SignInError> {
        let request = request.body(body).map_err(|error| SignInError::NotSent(error.to_string()))?;
        let answer = self.outbound.call(request).await?;
        let tid = answer.headers().get("intuit_tid").and_then(|tid| tid.to_str().ok()).unwrap_or_default();
        tracing::info!(intuit_tid = tid, status = answer.status().as_u16(), "QuickBooks sign-in");
        Ok((answer.status(), answer.into_body()))
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> SignInError {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) if refusal.error == "invalid_grant" => SignInError::InvalidGrant,
        _ if status == StatusCode::TOO_MANY_REQUESTS => SignInError::NotSent("it asks to wait".to_owned()),
        _ if status.is_server_error() => SignInError::Unknown(format!("it answered {status}")),
        Ok(refusal) => SignInError::Refused(refusal.error.chars().take(100).collect()),
        Err(_) => SignInError::Refused(format!("it answered {status}")),
    }
}

/// An answer with tokens; the seconds count from now.
#[derive(Deserialize)]
struct Given {
    access_token: Secret,
    expires_in: i64,
    refresh_token: Secret,
    x_refresh_token_expires_in: i64,
    #[serde(default)]
    x_refresh_token_hard_expires_in: Option<i64>,
}

impl Given {
    fn at(self, now: Timestamp) -> Option<Tokens> {
        let after = |seconds: i64| now.checked_add(SignedDuration::from_secs(seconds)).ok();
        Some(Tokens {
            access: self.access_token,
            access_until: after(self.expires_in)?,
            refresh: self.refresh_token,
            refresh_until: after(self.x_refresh_token_expires_in)?,
            consent_until: self.x_refresh_token_hard_expires_in.and_then(after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_connection_is_told_from_what_passes() {
        for (status, body, expect) in [
            (400, r#"{"error":"invalid_grant"}"#, SignInError::InvalidGrant),
            (400, r#"{"error":"invalid_client"}"#, SignInError::Refused("invalid_client".into())),
            (429, "", SignInError::NotSent("it asks to wait".into())),
            (503, "<html>", SignInError::Unknown("it answered 503 Service Unavailable".into())),
        ] {
            assert_eq!(refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()), expect, "{status} {body}");
        }
    }

    #[test]
    fn tokens_are_renewed_before_they_end_and_never_shown() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let given = r#"{"token_type":"bearer","access_token":"aaa","expires_in":3600,"refresh_token":"rrr","x_refresh_token_expires_in":8640000,"x_refresh_token_hard_expires_in":157680000}"#;
        let tokens = serde_json::from_str::<Given>(given).unwrap().at(now).unwrap();
        assert!(
            !tokens.are_due(now + SignedDuration::from_secs(3_299))
                && tokens.are_due(now + SignedDuration::from_secs(3_300))
        );
        assert_eq!(tokens.consent_until, Some("2030-12-31T00:00:00Z".parse().unwrap()));
        let shown = format!("{tokens:?}");
        assert!(!shown.contains("aaa") && !shown.contains("rrr"), "{shown}");
    }
}
