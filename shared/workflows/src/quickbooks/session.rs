//! Calls to one company. A token that ended is renewed once, and the same call made again; what ends the connection is written down.

use futures::future::BoxFuture;
use quickbooks::{ApiError, Changes, Client, Entity, Query};
use store::QuickbooksState;

use super::connection::broken;
use super::tokens::Held;
use super::{Failed, Quickbooks};
use crate::context::Context;
use crate::error::Result;

pub struct Session<'a> {
    pub(super) context: &'a Context,
    quickbooks: &'a Quickbooks,
    pub(super) realm: String,
}

impl<'a> Session<'a> {
    /// Fails where the company cannot be reached.
    pub(super) async fn open(context: &'a Context, quickbooks: &'a Quickbooks, realm: &str) -> Result<Self, Failed> {
        quickbooks.tokens(context, realm).await?;
        Ok(Self { context, quickbooks, realm: realm.to_owned() })
    }

    async fn client(&self, held: &Held) -> Result<Client, Failed> {
        let registration = self.quickbooks.registered(self.context).await?;
        Ok(self.quickbooks.client(&registration, &self.realm, &held.tokens.access))
    }

    pub(super) async fn call<'b, T>(
        &self,
        make: impl Fn(Client) -> BoxFuture<'b, Result<T, ApiError>> + Send + Sync,
    ) -> Result<T, Failed> {
        let held = self.quickbooks.tokens(self.context, &self.realm).await?;
        let mut answer = make(self.client(&held).await?).await;
        if answer.as_ref().is_err_and(|error| *error == ApiError::Unauthorized) {
            let held = self.quickbooks.renew(self.context, &self.realm, &held.version).await?;
            answer = make(self.client(&held).await?).await;
        }
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let state = match &error {
            ApiError::Forbidden(_) => QuickbooksState::ReauthorizationRequired,
            ApiError::Suspended(_) => QuickbooksState::Suspended,
            ApiError::Throttled => {
                self.quickbooks.pace.hold_up(self.context, &self.realm).await?;
                return Err(Failed::Api(error));
            }
            _ => return Err(Failed::Api(error)),
        };
        broken(self.context, &self.realm, state, &error.to_string()).await?;
        Err(Failed::Unusable(error.to_string()))
    }

    pub(super) async fn create<E: Entity + Send>(&self, body: &str, request: &str) -> Result<E, Failed> {
        let made = self.call(|client| Box::pin(async move { client.create::<E>(body, request).await })).await?;
        Ok(made.of)
    }

    /// `None`: there is none, or none any more.
    pub(super) async fn read<E: Entity + Send>(&self, id: &str) -> Result<Option<E>, Failed> {
        let read = self.call(|client| Box::pin(async move { client.read::<E>(id).await })).await?;
        Ok(read.map(|told| told.of))
    }

    pub(super) async fn query<E: Entity + Send>(&self, query: &Query) -> Result<Vec<E>, Failed> {
        self.call(|client| Box::pin(async move { client.query::<E>(query).await })).await
    }

    pub(super) async fn changes_since(&self, since: jiff::Timestamp) -> Result<Changes, Failed> {
        self.call(|client| Box::pin(async move { client.changes_since(since).await })).await
    }
}
