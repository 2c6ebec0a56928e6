//! The seam between SDK and services: an HTTP client for the SDK that calls a [`Service`] instead of opening a socket.
//!
//! Whatever misbehaves on purpose (throttles, loses an answer) is a `Service` around another one; the SDK's retries,
//! signing and parsing above it stay real.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;

use crate::REGION;

/// What [`Service::call`] returns.
pub type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, ConnectorError>> + Send + 'a>>;

/// Anything that answers AWS requests: the services themselves, or a wrapper that interferes.
pub trait Service: Send + Sync + fmt::Debug {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_>;
}

/// Configuration for any AWS SDK client whose requests `service` shall answer.
pub fn sdk_config(service: impl Service + 'static) -> SdkConfig {
    let credentials = Credentials::new("embedded", "embedded", None, None, "embedded");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .sleep_impl(TokioSleep::new())
        .http_client(InProcess(Arc::new(service)))
        .build()
}

#[derive(Clone, Debug)]
struct InProcess(Arc<dyn Service>);

impl HttpClient for InProcess {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let service = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let response = service.call(collect(request).await?).await?;
            HttpResponse::try_from(response.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

async fn collect(request: HttpRequest) -> Result<Request<Bytes>, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
    Ok(Request::from_parts(parts, body))
}
