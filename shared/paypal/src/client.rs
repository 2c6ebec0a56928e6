//! Calls in the name of one merchant.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use outbound::{CallError, Outbound};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{ApiError, of_answer};

/// Tokens are renewed this long before they end, so that none ends under way.
const RENEW_BEFORE: Duration = Duration::from_mins(1);

/// Where PayPal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(pub String);

impl Environment {
    pub fn live() -> Self {
        Self("https://api-m.paypal.com".to_owned())
    }

    pub fn sandbox() -> Self {
        Self("https://api-m.sandbox.paypal.com".to_owned())
    }
}

/// Text that must not be shown. It is written only where it is stored or sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The merchant's own app at PayPal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub id: String,
    pub secret: Secret,
}

/// Cheap to clone; clones share the access token.
#[derive(Clone)]
pub struct Client {
    outbound: Outbound,
    environment: Environment,
    credentials: Credentials,
    token: Arc<Mutex<Option<Token>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("environment", &self.environment).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Token {
    access: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    #[serde(default)]
    expires_in: u64,
}

impl Client {
    pub fn new(outbound: Outbound, environment: Environment, credentials: Credentials) -> Self {
        Self { outbound, environment, credentials, token: Arc::default() }
    }

    /// Whether it is for these credentials there.
    pub fn is_for(&self, environment: &Environment, credentials: &Credentials) -> bool {
        self.environment == *environment && self.credentials == *credentials
    }

    /// One call. A token that ended early is replaced once: the call it was refused for did nothing.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        request_id: Option<&str>,
        body: &Bytes,
    ) -> Result<Response<Bytes>, ApiError> {
        let mut renewed = false;
        loop {
            let access = self.access(renewed).await?;
            let mut request = Request::builder()
                .method(method.clone())
                .uri(format!("{}{path}", self.environment.0))
                .header(AUTHORIZATION, format!("Bearer {}", access.expose()))
                .header(CONTENT_TYPE, "application/json");
            if let Some(id) = request_id {
                request = request.header("paypal-request-id", id);
            }
            let request = request.body(body.clone()).map_err(|error| ApiError::NotSent(error.to_string()))?;
            let answer = self.outbound.call(request).await.map_err(lost)?;
            if answer.status() == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                continue;
            }
            if answer.status().is_success() {
                return Ok(answer);
            }
            return Err(of_answer(answer.status(), answer.body()));
        }
    }

    async fn access(&self, anew: bool) -> Result<Secret, ApiError> {
        // Whoever comes while it is being renewed waits for it.
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|known| !anew && Instant::now() < known.until) {
            return Ok(known.access.clone());
        }
        let basic = STANDARD.encode(format!("{}:{}", self.credentials.id, self.credentials.secret.expose()));
        let request = Request::post(format!("{}/v1/oauth2/token", self.environment.0))
            .header(AUTHORIZATION, format!("Basic {basic}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from_static(b"grant_type=client_credentials"))
            .map_err(|error| ApiError::NotSent(error.to_string()))?;
        // Signing in pays nobody: whatever comes of it, what was to follow was not sent.
        let not_sent = |why: String| ApiError::NotSent(format!("sign-in: {why}"));
        let answer = self.outbound.call(request).await.map_err(|error| not_sent(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(match of_answer(answer.status(), answer.body()) {
                ApiError::Refused(_) => ApiError::Unauthorized,
                ApiError::Unknown(why) => not_sent(why),
                other => other,
            });
        }
        let granted: Granted = serde_json::from_slice(answer.body()).map_err(|_| not_sent("unreadable".to_owned()))?;
        let life = Duration::from_secs(granted.expires_in).saturating_sub(RENEW_BEFORE);
        *token = Some(Token { access: granted.access_token.clone(), until: Instant::now() + life });
        Ok(granted.access_token)
    }
}

fn lost(error: CallError) -> ApiError {
    match error {
        CallError::NotSent(why) => ApiError::NotSent(why),
        CallError::Unknown(why) => ApiError::Unknown(why),
    }
}
