//! What went wrong: faults in both spellings, also inside a 200, and what is to be done about them.

use http::StatusCode;
use serde::Deserialize;

/// Intuit's own words for a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub message: String,
    pub detail: String,
    /// The field it is about.
    pub element: Option<String>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let detail = if self.detail.is_empty() { &self.message } else { &self.detail };
        write!(f, "QuickBooks error {}: {detail}", self.code.0)
    }
}

/// A fault's number: stable, while its text depends on the language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub String);

impl Code {
    pub fn is(&self, number: &str) -> bool {
        self.0.trim_start_matches('0') == number
    }

    pub fn is_any(&self, numbers: &[&str]) -> bool {
        numbers.iter().any(|number| self.is(number))
    }
}

/// Why a call did not give what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nothing was sent: as if it had not been tried.
    #[error("{0}")]
    NotSent(String),
    /// The answer was lost, or a server failed on the way: it may have been done.
    #[error("nobody knows whether it was done: {0}")]
    Unknown(String),
    /// Too many calls: nothing was done, and for a minute nothing will be.
    #[error("QuickBooks asks to wait")]
    Throttled,
    /// The access token is not, or no longer, good. Nothing was done.
    #[error("QuickBooks does not accept the access token")]
    Unauthorized,
    /// This company, or the person who connected it, does not let us in.
    #[error("QuickBooks refuses the connection: {0}")]
    Forbidden(Fault),
    /// The subscription has ended.
    #[error("the QuickBooks subscription has ended: {0}")]
    Suspended(Fault),
    /// A refusal of what was asked, with reason.
    #[error("{0}")]
    Refused(Fault),
    /// An answer that cannot be read: a failure of ours or theirs, after which nobody knows.
    #[error("QuickBooks answered what cannot be read: {0}")]
    Unreadable(String),
}

impl ApiError {
    /// The refusal's code, where it is one.
    pub const fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Refused(fault) | Self::Forbidden(fault) | Self::Suspended(fault) => Some(fault),
            _ => None,
        }
    }

    pub fn is_code(&self, number: &str) -> bool {
        matches!(self, Self::Refused(fault) if fault.code.is(number))
    }

    /// Whether what was asked may have been done.
    pub fn may_have_been_done(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::Unreadable(_) => true,
            // "Duplicate request id" and "system failure": done or not, only a look tells.
            Self::Refused(fault) => fault.code.is_any(&["600", "10000"]),
            Self::NotSent(_) | Self::Throttled | Self::Unauthorized | Self::Forbidden(_) | Self::Suspended(_) => false,
        }
    }

    /// Whether the same call may succeed later, without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Throttled | Self::Unauthorized => true,
            Self::Forbidden(_) | Self::Suspended(_) => false,
            Self::Unknown(_) | Self::Unreadable(_) | Self::Refused(_) => self.may_have_been_done(),
        }
    }
}

#[derive(Deserialize)]
struct Faulty {
    #[serde(alias = "fault", rename = "Fault")]
    fault: Errors,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(alias = "error", rename = "Error", default)]
    errors: Vec<OneError>,
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(alias = "message", rename = "Message", default)]
    message: String,
    #[serde(alias = "detail", rename = "Detail", default)]
    detail: Option<String>,
    #[serde(default)]
    code: String,
    #[serde(default)]
    element: Option<String>,
}

/// The first error of a fault, with the fault's type.
pub(crate) fn fault_in(body: &[u8]) -> Option<(Fault, String)> {
    let Faulty { fault } = serde_json::from_slice(body).ok()?;
    let kind = fault.kind;
    let first = fault.errors.into_iter().next();
    let first = first.map_or_else(
        || Fault { code: Code(String::new()), message: kind.clone(), detail: String::new(), element: None },
        |error| Fault {
            code: Code(error.code),
            message: error.message,
            detail: error.detail.unwrap_or_default(),
            element: error.element,
        },
    );
    Some((first, kind))
}

/// What an answer that is no success means.
pub(crate) fn error_of(status: StatusCode, body: &[u8]) -> ApiError {
    let fault = fault_in(body);
    if status == StatusCode::TOO_MANY_REQUESTS {
        return ApiError::Throttled;
    }
    if let Some((fault, kind)) = fault {
        return of_fault(status, fault, &kind);
    }
    match status {
        StatusCode::UNAUTHORIZED => ApiError::Unauthorized,
        // Whether a gateway's page, or that of a proxy before it, came after the effect, it does not say.
        status if status.is_server_error() => ApiError::Unknown(format!("it answered {status}")),
        status => ApiError::Unreadable(format!("{status} without a fault")),
    }
}

/// What a fault means, that came with this status: in an answer of its own, or as a part of one.
pub(crate) fn of_fault(status: StatusCode, fault: Fault, kind: &str) -> ApiError {
    let is_one_of = |kinds: [&str; 2]| kinds.iter().any(|one| kind.eq_ignore_ascii_case(one));
    let authentication = is_one_of(["AUTHENTICATION", "AuthenticationFault"]);
    let failed_there = status.is_server_error() || is_one_of(["SystemFault", "SERVICE"]);
    if fault.code.is("3001") || fault.message.contains("ThrottleExceeded") {
        ApiError::Throttled
    } else if fault.code.is("3200") {
        ApiError::Unauthorized
    } else if fault.code.is_any(&["120", "3100"]) {
        ApiError::Forbidden(fault)
    } else if fault.code.is("6190") {
        ApiError::Suspended(fault)
    } else if status == StatusCode::UNAUTHORIZED || authentication {
        ApiError::Unauthorized
    } else if failed_there {
        // Whether it failed before the effect or after, it does not say.
        ApiError::Unknown(fault.to_string())
    } else if status == StatusCode::FORBIDDEN {
        ApiError::Forbidden(fault)
    } else {
        ApiError::Refused(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(code: &str) -> String {
        format!(
            r#"{{"Fault":{{"Error":[{{"Message":"m","Detail":"d","code":"{code}","element":"e"}}],"type":"ValidationFault"}},"time":"t"}}"#
        )
    }

    fn lower(code: &str) -> String {
        format!(
            r#"{{"fault":{{"error":[{{"message":"message=AuthenticationFailed; errorCode=003200; statusCode=401","detail":"Token expired","code":"{code}"}}],"type":"AUTHENTICATION"}},"time":1}}"#
        )
    }

    fn of_kind(kind: &str) -> String {
        upper("4711").replace("ValidationFault", kind)
    }

    fn name(error: &ApiError) -> &'static str {
        match error {
            ApiError::NotSent(_) => "not sent",
            ApiError::Unknown(_) => "unknown",
            ApiError::Throttled => "throttled",
            ApiError::Unauthorized => "unauthorized",
            ApiError::Forbidden(_) => "forbidden",
            ApiError::Suspended(_) => "suspended",
            ApiError::Refused(_) => "refused",
            ApiError::Unreadable(_) => "unreadable",
        }
    }

    #[test]
    fn faults_of_both_spellings_mean_what_they_mean() {
        for (status, body, expect) in [
            (401, lower("3200"), "unauthorized"),
            (401, upper("3200"), "unauthorized"),
            (401, upper("120"), "forbidden"),
            (400, upper("120"), "forbidden"),
            (403, upper("3100"), "forbidden"),
            (403, upper("3001"), "throttled"),
            (429, String::new(), "throttled"),
            (400, upper("6190"), "suspended"),
            (200, upper("6190"), "suspended"),
            (400, upper("6140"), "refused"),
            (400, upper("6240"), "refused"),
            (500, upper("10000"), "unknown"),
            (500, upper("6000"), "unknown"),
            (503, upper(""), "unknown"),
            (400, of_kind("SystemFault"), "unknown"),
            (200, of_kind("SERVICE"), "unknown"),
            (400, of_kind("ValidationFault"), "refused"),
            (200, upper("3001"), "throttled"),
            (503, "<html>Service Unavailable</html>".to_owned(), "unknown"),
            (504, String::new(), "unknown"),
            (404, "<html>".to_owned(), "unreadable"),
            (401, "<html>".to_owned(), "unauthorized"),
        ] {
            let error = error_of(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(name(&error), expect, "{status} {body}");
        }
    }

    #[test]
    fn only_a_look_tells_what_came_of_a_system_failure() {
        for (code, unknown) in [("600", true), ("10000", true), ("6140", false), ("6000", false), ("5010", false)] {
            let error = error_of(StatusCode::BAD_REQUEST, upper(code).as_bytes());
            assert_eq!((error.may_have_been_done(), error.is_transient()), (unknown, unknown), "{code}");
        }
        assert!(!ApiError::Throttled.may_have_been_done() && ApiError::Throttled.is_transient());
        assert!(ApiError::Unknown(String::new()).may_have_been_done());
        let fault = Fault { code: Code("3100".into()), message: String::new(), detail: String::new(), element: None };
        assert!(!ApiError::Forbidden(fault).is_transient());
    }
}
