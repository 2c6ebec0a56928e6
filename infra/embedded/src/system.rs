//! [`Embedded`]: the services together, and the routing of requests to them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, fs, io};

use aws_config::SdkConfig;
use bytes::Bytes;
use dynoxide::Database;
use http::header::HOST;
use http::{Request, Response};
use tokio::net::TcpListener;

use crate::aws_json::{self, JSON_1_0, JSON_1_1};
use crate::clock::{Clock, Millis};
use crate::connector::{self, CallFuture, Service};
use crate::dynamodb::DatabaseError;
use crate::eventbridge::{AcceptedEvent, EventLog};
use crate::s3::Buckets;
use crate::scheduler::Schedule;
use crate::state::{self, Call, FileError, Services, ServicesFile, Tracked};
use crate::{dynamodb, endpoint, eventbridge, kms, s3, scheduler, secrets, sqs};

/// Why the services could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} cannot be created: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// AWS in process. Clones share the same services.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    database: Database,
    services: Mutex<Kept>,
    events: Mutex<EventLog>,
    buckets: Mutex<Buckets>,
}

/// The state, and the file it survives in if there is one.
struct Kept {
    services: Tracked<Services>,
    file: Option<ServicesFile>,
}

impl Kept {
    /// Saves what the last request changed.
    fn save(&mut self) -> Result<(), FileError> {
        match (self.services.take_touched(), &mut self.file) {
            (Some(services), Some(file)) => file.save(services),
            (Some(services), None) => {
                state::forget_changes(services);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl Embedded {
    /// Services that are gone when the last clone is.
    pub fn memory(clock: Clock) -> Result<Self, OpenError> {
        let database = dynamodb::memory(Arc::clone(&clock))?;
        Ok(Self::new(clock, database, Services::default(), None))
    }

    /// Services kept in `dir`: tables in `dynamodb.sqlite`, the rest in `services.jsonl`.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(|source| OpenError::Directory { path: dir.to_owned(), source })?;
        let database = dynamodb::open(&dir.join("dynamodb.sqlite"))?;
        let (file, services) = ServicesFile::open(dir.join("services.jsonl"))?;
        Ok(Self::new(clock, database, services, Some(file)))
    }

    fn new(clock: Clock, database: Database, services: Services, file: Option<ServicesFile>) -> Self {
        let services = Mutex::new(Kept { services: Tracked::new(services), file });
        let (events, buckets) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { clock, database, services, events, buckets }) }
    }

    /// Configuration for any AWS SDK client that shall use these services, without a socket.
    pub fn sdk_config(&self) -> SdkConfig {
        connector::sdk_config(self.clone())
    }

    /// The same, with something between SDK and services, such as a wrapper that injects faults.
    pub fn sdk_config_through<S: Service + 'static>(&self, wrap: impl FnOnce(Self) -> S) -> SdkConfig {
        connector::sdk_config(wrap(self.clone()))
    }

    /// Answers one request.
    ///
    /// Every operation is short and waits for nothing but the services' own locks, so this is not asynchronous.
    pub fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (parts, body) = request.into_parts();
        let Some((service, operation)) = aws_json::target(&parts.headers) else {
            return if s3::owns(&parts) {
                self.inner.buckets.lock().unwrap_or_else(PoisonError::into_inner).handle(&parts, &body)
            } else if scheduler::owns(parts.uri.path()) {
                self.with_services("", |call| scheduler::handle(call, &parts.method, &parts.uri, &body))
            } else {
                aws_json::unknown_operation(JSON_1_0)
            };
        };
        tracing::trace!(service, operation, "request");
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or(authority).unwrap_or("localhost");
        match service {
            dynamodb::TARGET | dynamodb::STREAMS_TARGET => dynamodb::handle(&self.inner.database, operation, &body),
            sqs::TARGET => {
                self.with_services(host, |call| aws_json::respond(JSON_1_0, sqs::dispatch(call, operation, &body)))
            }
            eventbridge::TARGET => self.with_services(host, |call| {
                aws_json::respond(JSON_1_1, eventbridge::dispatch(call, &mut self.log(), operation, &body))
            }),
            secrets::TARGET => {
                self.with_services(host, |call| aws_json::respond(JSON_1_1, secrets::dispatch(call, operation, &body)))
            }
            kms::TARGET => {
                self.with_services(host, |call| aws_json::respond(JSON_1_1, kms::dispatch(call, operation, &body)))
            }
            _ => aws_json::unknown_operation(JSON_1_0),
        }
    }

    /// Runs one request on the state, and saves what it changed before anyone sees the answer.
    fn with_services(&self, host: &str, answer: impl FnOnce(&mut Call<'_>) -> Response<Bytes>) -> Response<Bytes> {
        let mut kept = self.kept();
        let now = Millis::now(&self.inner.clock);
        let response = answer(&mut Call { services: &mut kept.services, now, host });
        if let Err(error) = kept.save() {
            tracing::error!(%error, "the services could not be saved");
            return aws_json::internal_failure(JSON_1_1, &error.to_string());
        }
        response
    }

    /// Offers the services over HTTP/1 until `shutdown` resolves; requests already begun are finished first.
    ///
    /// There is no authentication: `listener` belongs on a loopback address.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        endpoint::serve(self.clone(), listener, shutdown).await;
    }

    /// The latest events the buses accepted, oldest first, and where each was delivered.
    pub fn events(&self) -> Vec<AcceptedEvent> {
        self.log().all()
    }

    /// The schedules as they are defined now. Firing them is the caller's job.
    pub fn schedules(&self) -> Vec<Schedule> {
        self.kept().services.schedules.values().cloned().collect()
    }

    /// The database itself, for bulk loading and inspection.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, EventLog> {
        self.inner.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Embedded {
    fn call(&self, request: Request<Bytes>) -> CallFuture<'_> {
        Box::pin(std::future::ready(Ok(self.handle(request))))
    }
}
