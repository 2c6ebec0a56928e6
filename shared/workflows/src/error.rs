//! Why a workflow did not do what was asked. Every variant but the last left nothing behind.

use domain::line::LineError;
use domain::money::MoneyError;
use domain::payout::PayoutError;
use domain::rules::{FieldError, RuleSetError};
use store::StoreError;

pub type Result<T, E = Refusal> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no {0} with this id")]
    NotFound(&'static str),
    /// The state it is in does not allow it.
    #[error("{0}")]
    Illegal(String),
    /// What the caller saw is out of date.
    #[error("it changed since you looked: {}", .0.join("; "))]
    Stale(Vec<String>),
    /// Well-formed but not acceptable; every field with its reason.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<FieldError>),
    #[error(transparent)]
    Store(StoreError),
    #[error("{0} did not answer: {1}")]
    Service(&'static str, String),
}

impl Refusal {
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(pointer, detail)])
    }

    /// Refuses what changed since the caller saw it. `None`: any state will do.
    pub fn unless_seen(seen: Option<u32>, is: u32) -> Result<()> {
        match seen {
            Some(seen) if seen != is => Err(Self::Stale(vec![format!("its ETag is \"{is}\"")])),
            _ => Ok(()),
        }
    }

    /// Whether trying again later can help: nothing is wrong with the request.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(StoreError::TooLarge(_)) => false,
            Self::Store(_) | Self::Service(..) => true,
            _ => false,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LineError> for Refusal {
    fn from(error: LineError) -> Self {
        match error {
            LineError::NotInPayout => Self::invalid("/commissionIds", error.to_string()),
            _ => Self::Illegal(error.to_string()),
        }
    }
}

impl From<PayoutError> for Refusal {
    fn from(error: PayoutError) -> Self {
        match error {
            PayoutError::BadAmount(_) => Self::invalid("/amount", error.to_string()),
            _ => Self::Illegal(error.to_string()),
        }
    }
}

impl From<RuleSetError> for Refusal {
    fn from(error: RuleSetError) -> Self {
        Self::Illegal(error.to_string())
    }
}

impl From<MoneyError> for Refusal {
    fn from(error: MoneyError) -> Self {
        Self::invalid("", error.to_string())
    }
}
