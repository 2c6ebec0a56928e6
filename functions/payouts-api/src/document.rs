//! The API's own description: `OpenAPI` 3.1, and the same as a page. `build/` puts both together from `openapi/`.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// Everything under `/api/v1`, as it is served.
pub const DOCUMENT: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi.json"));
const PAGE: &str = include_str!(concat!(env!("OUT_DIR"), "/docs.html"));
/// Method, path, and the names of the query's parameters.
const QUERIES: &[(&str, &str, &[&str])] = include!(concat!(env!("OUT_DIR"), "/queries.rs"));

/// It changes with the version of the function only.
const KEPT: (axum::http::HeaderName, &str) = (CACHE_CONTROL, "public, max-age=300");

pub async fn json() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json"), KEPT], DOCUMENT)
}

pub async fn page() -> impl IntoResponse {
    let policy = (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), KEPT, policy], PAGE)
}

/// A filter that is misspelled must not look like one that lets everything through.
pub async fn refuse_unknown_parameters(path: MatchedPath, request: Request, next: Next) -> Result<Response, Problem> {
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let known = QUERIES.iter().find(|(of, at, _)| *of == method.as_str() && *at == path.as_str());
    if let (Some((_, _, known)), Some(query)) = (known, request.uri().query()) {
        let mut given = form_urlencoded::parse(query.as_bytes());
        if let Some((unknown, _)) = given.find(|(name, _)| !known.contains(&name.as_ref())) {
            let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Problem::malformed("", format!("unknown query parameter {unknown:?}; this takes {takes}")));
        }
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).unwrap()
    }

    /// As `GET /programs/{id}`.
    fn described() -> BTreeSet<String> {
        let document = document();
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, operations)| {
            let path = path.strip_prefix("/api/v1").unwrap();
            operations.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        operations.collect()
    }

    /// The router does not tell its routes, but its source does.
    fn routed() -> BTreeSet<String> {
        let source = include_str!("lib.rs").split(".route_layer(").next().unwrap();
        let mut routes = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            let (path, handlers) = route.trim_start().strip_prefix('"').unwrap().split_once('"').unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(").{method}(")) {
                    routes.insert(format!("{} {path}", method.to_uppercase()));
                }
            }
        }
        routes
    }

    #[test]
    fn every_route_is_described_and_every_description_is_routed() {
        let (routed, described) = (routed(), described());
        assert!(routed.len() > 70, "{routed:?}");
        let only = |some: &BTreeSet<String>, others| some.difference(others).cloned().collect::<Vec<_>>();
        assert_eq!((only(&routed, &described), only(&described, &routed)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn every_kind_of_problem_is_described_and_no_other() {
        let told = include_str!("problem.rs").split('"').filter(|text| text.starts_with("/problems/"));
        let told: BTreeSet<_> = told.collect();
        let document = document();
        let kinds = &document["components"]["schemas"]["Problem"]["properties"]["type"];
        let described: BTreeSet<_> = kinds["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(told, described);
        for kind in described {
            assert!(kinds["description"].as_str().unwrap().contains(&format!("- `{kind}`: ")), "{kind}");
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_reference_leads_somewhere() {
        fn walk(document: &Value, value: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(at)) = fields.get("$ref") {
                        let target = at.strip_prefix('#').and_then(|at| document.pointer(at));
                        assert!(target.is_some_and(|target| !target.is_null()), "{at}");
                    }
                    fields.values().for_each(|field| walk(document, field));
                }
                Value::Array(values) => values.iter().for_each(|value| walk(document, value)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
        let paths = document["paths"].as_object().unwrap().values();
        let operations: Vec<_> = paths.flat_map(|operations| operations.as_object().unwrap().values()).collect();
        let names: BTreeSet<_> =
            operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), operations.len());
    }

    #[test]
    fn the_page_loads_nothing() {
        for loading in ["src=", "<link", "<script", "@import", "url("] {
            assert!(!PAGE.contains(loading), "{loading}");
        }
        assert!(PAGE.contains("/api/v1/payouts/approve"));
    }

    #[test]
    fn the_document_and_its_page_stay_small() {
        assert!(DOCUMENT.len() < 250_000, "{}", DOCUMENT.len());
        assert!(PAGE.len() < 300_000, "{}", PAGE.len());
    }
}
