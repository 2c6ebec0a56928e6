//! Filing what needs a person, with everything needed to look into it.

use domain::ids::{ExceptionId, Hash, ProgramId, SourceId};
use jiff::Timestamp;
use store::{Exception, ExceptionCode, ExceptionStatus, StoreError, Transaction};

use crate::context::Context;
use crate::error::{Refusal, Result};

/// Something that went wrong with an event from outside.
#[derive(Debug, Clone)]
pub struct Trouble<'a> {
    pub code: ExceptionCode,
    pub detail: String,
    pub program: Option<&'a ProgramId>,
    pub source: Option<&'a SourceId>,
    pub order: Option<&'a str>,
    pub received_at: Timestamp,
    /// Those that reading the body needs.
    pub headers: &'a [(String, String)],
    pub body: Option<&'a str>,
}

/// Files it once: the same trouble with the same body again is the same exception.
pub async fn file(context: &Context, trouble: Trouble<'_>) -> Result<ExceptionId> {
    let body_hash = Hash::of(trouble.body.unwrap_or_default().as_bytes());
    let id = ExceptionId::derive(&[
        trouble.source.map_or("", SourceId::as_str),
        trouble.order.unwrap_or_default(),
        &format!("{:?}", trouble.code),
        body_hash.as_str(),
    ]);
    let exception = Exception {
        id: id.clone(),
        code: trouble.code,
        detail: trouble.detail,
        program: trouble.program.cloned(),
        source: trouble.source.cloned(),
        order: trouble.order.map(str::to_owned),
        status: ExceptionStatus::Open,
        received_at: Some(trouble.received_at),
        headers: trouble.headers.to_vec(),
        created_at: context.now(),
        resolved_at: None,
        resolved_by: None,
        resolution: None,
    };
    let mut transaction = Transaction::new("file exception");
    transaction.file(&exception, trouble.body)?;
    match context.store.commit(transaction).await {
        Ok(()) => tracing::warn!(exception = %id, code = ?exception.code, "exception filed"),
        Err(StoreError::Stale) => tracing::debug!(exception = %id, "exception was filed before"),
        Err(error) => return Err(error.into()),
    }
    Ok(id)
}

/// Files trouble with something of our own, in the transaction that it comes of. `about` tells it from all other trouble.
pub fn file_in(
    context: &Context,
    transaction: &mut Transaction,
    code: ExceptionCode,
    program: Option<&ProgramId>,
    about: &[&str],
    detail: String,
) -> Result<ExceptionId> {
    let id = ExceptionId::derive(about);
    let exception = Exception {
        id: id.clone(),
        code,
        detail,
        program: program.cloned(),
        source: None,
        order: None,
        status: ExceptionStatus::Open,
        received_at: None,
        headers: Vec::new(),
        created_at: context.now(),
        resolved_at: None,
        resolved_by: None,
        resolution: None,
    };
    transaction.file(&exception, None)?;
    Ok(id)
}

/// Resolves an exception in the transaction that deals with it, unless somebody resolved it before.
pub async fn resolve_in(
    context: &Context,
    transaction: &mut Transaction,
    operation: &'static str,
    id: &ExceptionId,
    by: &str,
    resolution: &str,
) -> Result<()> {
    let Some(exception) = context.store.exception(operation, id).await? else { return Ok(()) };
    if exception.status == ExceptionStatus::Open {
        let resolved = resolved(context, &exception, by, Some(resolution));
        transaction.replace_exception(&resolved, &exception)?;
    }
    Ok(())
}

fn resolved(context: &Context, open: &Exception, by: &str, resolution: Option<&str>) -> Exception {
    Exception {
        status: ExceptionStatus::Resolved,
        resolved_at: Some(context.now()),
        resolved_by: Some(by.to_owned()),
        resolution: resolution.map(str::to_owned),
        ..open.clone()
    }
}

/// An exception that something can still be done about.
pub async fn open(context: &Context, id: &ExceptionId) -> Result<Exception> {
    let exception = context.store.exception("resolve exception", id).await?.ok_or(Refusal::NotFound("exception"))?;
    match exception.status {
        ExceptionStatus::Open => Ok(exception),
        ExceptionStatus::Resolved => Err(Refusal::Illegal("the exception is resolved already".to_owned())),
    }
}

pub async fn resolve(context: &Context, id: &ExceptionId, by: &str, resolution: Option<&str>) -> Result<Exception> {
    let open = open(context, id).await?;
    let resolved = resolved(context, &open, by, resolution);
    let mut transaction = Transaction::new("resolve exception");
    transaction.replace_exception(&resolved, &open)?;
    match context.store.commit(transaction).await {
        Err(StoreError::Stale) => Err(Refusal::Illegal("the exception was resolved meanwhile".to_owned())),
        other => Ok(other.map(|()| resolved)?),
    }
}
