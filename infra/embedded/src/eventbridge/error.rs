//! What `EventBridge` refuses.

use crate::aws_json::Fault;

#[derive(Debug, thiserror::Error)]
pub(crate) enum EventBridgeError {
    #[error("Event pattern is not valid. Reason: {0}")]
    InvalidEventPattern(String),
    #[error("Event bus {0} already exists.")]
    BusAlreadyExists(String),
    #[error("{0} does not exist.")]
    NotFound(String),
    #[error("{0}")]
    Validation(&'static str),
}

impl Fault for EventBridgeError {
    fn shape(&self) -> &'static str {
        match self {
            Self::InvalidEventPattern(_) => "com.amazonaws.eventbridge#InvalidEventPatternException",
            Self::BusAlreadyExists(_) => "com.amazonaws.eventbridge#ResourceAlreadyExistsException",
            Self::NotFound(_) => "com.amazonaws.eventbridge#ResourceNotFoundException",
            Self::Validation(_) => "com.amazon.coral.validate#ValidationException",
        }
    }
}
