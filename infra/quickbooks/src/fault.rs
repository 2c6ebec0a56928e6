//! Refusals in Intuit's words and numbers.

use http::StatusCode;
use serde_json::{Value, json};

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: &'static str,
    pub detail: String,
    pub element: Option<String>,
}

impl Refusal {
    fn new(code: &'static str, message: &'static str, detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message, detail: detail.into(), element: None }
    }

    pub fn about(mut self, element: &str) -> Self {
        self.element = Some(element.to_owned());
        self
    }

    pub fn unsupported(property: &str) -> Self {
        Self::new(
            "2010",
            "Request has invalid or unsupported property",
            format!("Property Name:{property} specified is unsupported or invalid"),
        )
    }

    pub fn missing(parameter: &str) -> Self {
        Self::new(
            "2020",
            "Required param missing, need to supply the required value for the API",
            format!("Required parameter {parameter} is missing in the request"),
        )
        .about(parameter)
    }

    pub fn invalid(parameter: &str, why: &str) -> Self {
        Self::new("2040", "Invalid value", format!("{parameter}: {why}")).about(parameter)
    }

    pub fn length(parameter: &str, max: usize) -> Self {
        Self::new(
            "2050",
            "String length is either shorter or longer than supported by specification",
            format!("{parameter}: Max:{max}"),
        )
        .about(parameter)
    }

    pub fn email(address: &str) -> Self {
        Self::new(
            "2210",
            "Invalid Email Address format",
            format!("Email Address does not conform to the syntax rules of RFC 822. Supplied value:{address}"),
        )
    }

    pub fn reference(parameter: &str, id: &str) -> Self {
        Self::new(
            "2500",
            "Invalid Reference Id",
            format!("Invalid Reference Id : {parameter} element id {id} not found"),
        )
        .about(parameter)
    }

    pub fn inactive() -> Self {
        Self::new(
            "610",
            "Object Not Found",
            "Object Not Found : Something you're trying to use has been made inactive. Check the fields with accounts, customers, items, vendors or employees.",
        )
    }

    pub fn gone() -> Self {
        Self::new(
            "610",
            "Object Not Found",
            "Object Not Found : Something you're trying to use has been made inactive or deleted.",
        )
    }

    pub fn query(why: impl Into<String>) -> Self {
        Self::new("4000", "Error parsing query", format!("QueryParserError: {}", why.into()))
    }

    pub fn query_value(why: impl Into<String>) -> Self {
        Self::new("4001", "Invalid query", format!("QueryValidationError: {}", why.into()))
    }

    pub fn stale() -> Self {
        Self::new(
            "5010",
            "Stale Object Error",
            "Stale Object Error : You and someone else were working on this at the same time. The other one finished before you did, so your work was not saved.",
        )
    }

    pub fn business(why: impl Into<String>) -> Self {
        Self::new(
            "6000",
            "A business validation error has occurred while processing your request",
            format!("Business Validation Error: {}", why.into()),
        )
    }

    pub fn duplicate_number(number: &str, id: &str) -> Self {
        Self::new(
            "6140",
            "Duplicate Document Number Error",
            format!(
                "Duplicate Document Number Error : You must specify a different number. This number has already been used. DocNumber={number} is assigned to TxnType=Bill with TxnId={id}"
            ),
        )
    }

    pub fn books_closed() -> Self {
        Self::new(
            "6210",
            "Account Period Closed, Cannot Update Through Services",
            "The account period has closed and the account books cannot be updated through the QBO Services. Please contact your QBO Administrator to make these changes.",
        )
    }

    pub fn duplicate_name(id: &str) -> Self {
        Self::new("6240", "Duplicate Name Exists Error", format!("The name supplied already exists. : Id={id}"))
    }

    pub fn duplicate_request() -> Self {
        Self::new("600", "Duplicate Request ID", "Duplicate Request ID : another request was made with this id")
    }

    pub fn throttled() -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            ..Self::new("3001", "ThrottleExceeded", "message=ThrottleExceeded; errorCode=003001; statusCode=429")
        }
    }

    pub fn system() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            ..Self::new(
                "10000",
                "An application error has occurred while processing your request",
                "System Failure Error: unexpected error",
            )
        }
    }

    pub fn not_connected() -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            ..Self::new(
                "3100",
                "ApplicationAuthorizationFailed",
                "message=ApplicationAuthorizationFailed; errorCode=003100; statusCode=403",
            )
        }
    }

    pub fn subscription() -> Self {
        Self::new(
            "6190",
            "Invalid Company Status",
            "Subscription period has ended or canceled or there was a billing problem : You can't add data to QuickBooks Online Plus because your trial or subscription period ended, you canceled your subscription, or there was a billing problem.",
        )
    }

    fn kind(&self) -> &'static str {
        match self.code {
            "10000" => "SystemFault",
            "3100" => "AuthorizationFault",
            "3001" => "SERVICE",
            _ => "ValidationFault",
        }
    }

    /// The fault as an API server writes it.
    pub fn body(&self, time: &str) -> Value {
        let mut fault = self.fault();
        fault["time"] = json!(time);
        fault
    }

    pub fn fault(&self) -> Value {
        let mut error = json!({"Message": self.message, "Detail": self.detail, "code": self.code});
        if let Some(element) = &self.element {
            error["element"] = json!(element);
        }
        json!({"Fault": {"Error": [error], "type": self.kind()}})
    }
}

/// A token that is not good: the gateway answers, in its own spelling. Some answers have the API server's instead.
pub fn unauthorized(lower_case: bool, epoch_ms: i64, time: &str) -> Value {
    let message = "message=AuthenticationFailed; errorCode=003200; statusCode=401";
    if lower_case {
        json!({"warnings": null, "intuitObject": null, "fault": {"error": [{"message": message, "detail": "Token expired: the access token has expired", "code": "3200", "element": null}], "type": "AUTHENTICATION"}, "report": null, "queryResponse": null, "batchItemResponse": [], "attachableResponse": [], "syncErrorResponse": null, "requestId": null, "time": epoch_ms, "status": null, "cdcresponse": []})
    } else {
        json!({"Fault": {"Error": [{"Message": message, "Detail": "Token expired", "code": "3200"}], "type": "AuthenticationFault"}, "time": time})
    }
}
