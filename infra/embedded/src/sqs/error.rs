//! What SQS refuses, with both names each error has: the shape's, and the query protocol's that SDKs look at first.

use crate::aws_json::Fault;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SqsError {
    #[error("The batch request holds two entries with the same Id.")]
    BatchEntryIdsNotDistinct,
    #[error("The messages of the batch are longer than 1048576 bytes together.")]
    BatchRequestTooLong,
    #[error("The batch request holds no entries.")]
    EmptyBatchRequest,
    #[error("Unknown attribute {0}.")]
    InvalidAttributeName(String),
    #[error("Invalid value for attribute {name}: {value}.")]
    InvalidAttributeValue { name: String, value: String },
    #[error("{0}")]
    InvalidParameterValue(&'static str),
    #[error("The message is not in flight.")]
    MessageNotInflight,
    #[error("The specified queue does not exist.")]
    QueueDoesNotExist,
    #[error("A queue of this name exists with another value for attribute {0}.")]
    QueueNameExists(String),
    #[error("The input receipt handle is not one this queue gave.")]
    ReceiptHandleIsInvalid,
    #[error("A batch request holds at most 10 entries.")]
    TooManyEntriesInBatchRequest,
    #[error("FIFO queues are not offered here: use a standard queue.")]
    FifoUnsupported,
}

impl Fault for SqsError {
    fn shape(&self) -> &'static str {
        match self {
            Self::BatchEntryIdsNotDistinct => "com.amazonaws.sqs#BatchEntryIdsNotDistinct",
            Self::BatchRequestTooLong => "com.amazonaws.sqs#BatchRequestTooLong",
            Self::EmptyBatchRequest => "com.amazonaws.sqs#EmptyBatchRequest",
            Self::InvalidAttributeName(_) => "com.amazonaws.sqs#InvalidAttributeName",
            Self::InvalidAttributeValue { .. } => "com.amazonaws.sqs#InvalidAttributeValue",
            Self::InvalidParameterValue(_) => "com.amazonaws.sqs#InvalidParameterValueException",
            Self::MessageNotInflight => "com.amazonaws.sqs#MessageNotInflight",
            Self::QueueDoesNotExist => "com.amazonaws.sqs#QueueDoesNotExist",
            Self::QueueNameExists(_) => "com.amazonaws.sqs#QueueNameExists",
            Self::ReceiptHandleIsInvalid => "com.amazonaws.sqs#ReceiptHandleIsInvalid",
            Self::TooManyEntriesInBatchRequest => "com.amazonaws.sqs#TooManyEntriesInBatchRequest",
            Self::FifoUnsupported => "com.amazonaws.sqs#UnsupportedOperation",
        }
    }

    fn query_code(&self) -> Option<&'static str> {
        Some(match self {
            Self::BatchEntryIdsNotDistinct => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            Self::BatchRequestTooLong => "AWS.SimpleQueueService.BatchRequestTooLong",
            Self::EmptyBatchRequest => "AWS.SimpleQueueService.EmptyBatchRequest",
            Self::InvalidAttributeName(_) => "InvalidAttributeName",
            Self::InvalidAttributeValue { .. } => "InvalidAttributeValue",
            Self::InvalidParameterValue(_) => "InvalidParameterValue",
            Self::MessageNotInflight => "AWS.SimpleQueueService.MessageNotInflight",
            Self::QueueDoesNotExist => "AWS.SimpleQueueService.NonExistentQueue",
            Self::QueueNameExists(_) => "QueueAlreadyExists",
            Self::ReceiptHandleIsInvalid => "ReceiptHandleIsInvalid",
            Self::TooManyEntriesInBatchRequest => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            Self::FifoUnsupported => "AWS.SimpleQueueService.UnsupportedOperation",
        })
    }
}
