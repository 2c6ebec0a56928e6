//! The API's document, held against every exchange that a test makes: what is answered must be described, to the last field, and what is
//! accepted must have been allowed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderMap, Method};
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::request::{Reply, Request};

const PREFIX: &str = "/api/v1";

/// The document as it is served, and what to check by it.
#[derive(Debug)]
pub struct Contract {
    pub document: Value,
    /// The same where objects have no fields but the described ones. Fields may be added, but not without being described.
    closed: Value,
    validators: Mutex<HashMap<(bool, String), Arc<Validator>>>,
}

/// An operation with its path as the document names them.
#[derive(Debug)]
pub struct Operation<'a> {
    pub path: &'a str,
    pub method: &'a str,
    pub described: &'a Value,
}

impl Contract {
    pub fn get() -> &'static Self {
        static CONTRACT: OnceLock<Contract> = OnceLock::new();
        CONTRACT.get_or_init(|| {
            let document: Value = serde_json::from_str(payouts_api::DOCUMENT).unwrap();
            let mut closed = document.clone();
            close(&mut closed);
            Self { document, closed, validators: Mutex::new(HashMap::new()) }
        })
    }

    pub fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, operations)| {
            let operations = operations.as_object().unwrap().iter();
            operations.map(move |(method, described)| Operation { path, method, described })
        })
    }

    /// What a reference points at; what is none itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        value["$ref"].as_str().map_or(value, |at| self.document.pointer(at.strip_prefix('#').unwrap()).unwrap())
    }

    /// The described path that a request's path is one of: the one with the most words that are the same.
    pub fn path_of(&self, path: &str) -> Option<&str> {
        let fits = |described: &&String| {
            let (described, path) = (described.split('/'), path.split('/'));
            // As the router does: an id may be empty, but for the last.
            path.clone().next_back() != Some("")
                && described.clone().count() == path.clone().count()
                && described.zip(path).all(|(described, part)| described.starts_with('{') || described == part)
        };
        let words = |described: &&String| described.split('/').filter(|part| !part.starts_with('{')).count();
        let paths = self.document["paths"].as_object().unwrap();
        paths.keys().filter(fits).max_by_key(words).map(String::as_str)
    }

    /// Fails unless the exchange is as described.
    #[track_caller]
    pub fn check(&self, request: &Request, reply: &Reply) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if !path.starts_with(PREFIX) {
            return;
        }
        let what = format!("{} {} -> {} {}", request.method, request.path, reply.status, reply.text);
        let Some(path) = self.path_of(path) else {
            assert_eq!(reply.status, 404, "no described path, and yet: {what}");
            return;
        };
        let method = if request.method == Method::HEAD { "get" } else { &request.method.as_str().to_lowercase() };
        let described = &self.document["paths"][path][method];
        if described.is_null() {
            assert_eq!(reply.status, 405, "no described method, and yet: {what}");
            self.check_answer(&self.document["components"]["responses"]["405"], reply, &what);
            return;
        }
        let response = &described["responses"][reply.status.to_string()];
        assert!(!response.is_null(), "an answer that is not described: {what}");
        if request.method != Method::HEAD {
            self.check_answer(self.resolved(response), reply, &what);
        }
        if (200..300).contains(&reply.status) {
            self.check_query(described, query, &what);
            self.check_body(described, request, &what);
        }
    }

    #[track_caller]
    fn check_answer(&self, response: &Value, reply: &Reply, what: &str) {
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let header = self.resolved(header);
            assert!(header["required"] != true || reply.headers.contains_key(name.as_str()), "without {name}: {what}");
        }
        let Some(content) = response["content"].as_object() else {
            assert_eq!(reply.text, "", "a body where none is described: {what}");
            return;
        };
        let media = media_type(&reply.headers);
        let schema = content.get(&media).unwrap_or_else(|| panic!("{media} is not described: {what}"));
        if media.ends_with("json") {
            self.must_fit(true, &schema["schema"], &reply.body, what);
        }
    }

    #[track_caller]
    fn check_query(&self, described: &Value, query: &str, what: &str) {
        let parameters = described["parameters"].as_array().into_iter().flatten().map(|one| self.resolved(one));
        let parameters: Vec<_> = parameters.filter(|parameter| parameter["in"] == "query").collect();
        let mut given = BTreeSet::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let parameter = parameters.iter().find(|parameter| parameter["name"] == *name);
            let parameter = parameter.unwrap_or_else(|| panic!("?{name} is not described: {what}"));
            let schema = self.resolved(&parameter["schema"]);
            let value = match schema["type"].as_str() {
                Some("integer" | "boolean") => serde_json::from_str(&value).unwrap_or_else(|_| json!(value)),
                _ => json!(value),
            };
            self.must_fit(false, schema, &value, what);
            given.insert(name.into_owned());
        }
        for parameter in parameters.iter().filter(|parameter| parameter["required"] == true) {
            assert!(
                given.contains(parameter["name"].as_str().unwrap()),
                "accepted without {}: {what}",
                parameter["name"]
            );
        }
    }

    #[track_caller]
    fn check_body(&self, described: &Value, request: &Request, what: &str) {
        let body = &described["requestBody"];
        if body.is_null() || (request.body.is_empty() && body["required"] != true) {
            return;
        }
        let content = body["content"].as_object().unwrap();
        let media = media_type(&request.headers);
        if let Some(schema) = content.get(&media).filter(|_| media.ends_with("json")) {
            // Of an event, what it has no field for is read over, even if it is no text (RFC 8259, section 8.2): what storefronts cut off
            // in the middle of a sign must not cost a commission. No value can hold that.
            let Ok(value) = serde_json::from_slice(&request.body) else {
                assert_eq!(request.path, "/api/v1/conversions", "accepted, though unreadable: {what}");
                return;
            };
            self.must_fit(false, &schema["schema"], &value, what);
        } else {
            assert!(content.contains_key(&media) || media.ends_with("+json"), "accepted {media}: {what}");
        }
    }

    /// Fails unless the value is as the schema says; an answer has no fields besides.
    #[track_caller]
    pub fn must_fit(&self, answer: bool, schema: &Value, value: &Value, what: &str) {
        let validator = self.validator(answer, schema);
        let wrong: Vec<_> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{what}\nis not as described: {wrong:#?}");
    }

    fn validator(&self, answer: bool, schema: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let known = validators.entry((answer, schema.to_string()));
        let validator = known.or_insert_with(|| {
            let document = if answer { &self.closed } else { &self.document };
            let mut whole = schema.clone();
            if answer {
                close(&mut whole);
            }
            whole["components"] = document["components"].clone();
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            Arc::new(options.build(&whole).unwrap())
        });
        Arc::clone(validator)
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Objects with described fields have no others.
fn close(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_schema = fields.get("properties").is_some_and(Value::is_object) && fields.get("type").is_some();
            if is_schema && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// The routes as README tells them, a row for each resource.
pub fn table_of_routes() -> String {
    let contract = Contract::get();
    let mut table = vec!["| resource | routes under `/api/v1` |\n|---|---|\n".to_owned()];
    for tag in contract.document["tags"].as_array().unwrap() {
        let mut by_path: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for operation in contract.operations().filter(|operation| operation.described["tags"][0] == tag["name"]) {
            by_path.entry(operation.path).or_default().push(operation.method.to_uppercase());
        }
        let routes = by_path.iter().map(|(path, methods)| {
            let path = path.strip_prefix(PREFIX).unwrap();
            format!("`{} {path}`", methods.join(", "))
        });
        let routes = routes.collect::<Vec<_>>().join(", ");
        let (name, said) = (tag["name"].as_str().unwrap(), tag["description"].as_str().unwrap());
        table.push(format!("| **{name}**: {said} | {routes} |\n"));
    }
    table.concat()
}
