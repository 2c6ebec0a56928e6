//! Puts the API's document together. `openapi/` has a file for each resource, and `base.json` with what all of them use. What holds of
//! every operation is said here, once: the refusals that any request can meet, and the headers that any POST takes.
#![allow(clippy::expect_used, clippy::panic, reason = "a document that cannot be put together must not be built")]

mod page;

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use serde_json::{Map, Value, json};

const PREFIX: &str = "/api/v1";

fn main() {
    println!("cargo::rerun-if-changed=openapi");
    println!("cargo::rerun-if-changed=build");
    let document = assembled(Path::new("openapi"));
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let write = |name: &str, text: String| fs::write(Path::new(&out).join(name), text).expect("OUT_DIR can be written");
    write("openapi.json", document.to_string());
    write("docs.html", page::of(&document));
    write("queries.rs", queries(&document));
    write("objects.rs", format!("&{:?}", objects(&document)));
}

/// The fields of bodies that hold an object, and never a list.
fn objects(document: &Value) -> Vec<String> {
    let mut fields = Fields::default();
    for operations in document["paths"].as_object().into_iter().flatten().map(|(_, operations)| operations) {
        for operation in operations.as_object().into_iter().flatten().map(|(_, operation)| operation) {
            for content in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                fields.collect(document, "", &content.1["schema"]);
            }
        }
    }
    fields.objects.difference(&fields.lists).cloned().collect()
}

#[derive(Default)]
struct Fields {
    objects: BTreeSet<String>,
    lists: BTreeSet<String>,
    /// References that were followed.
    seen: BTreeSet<String>,
}

impl Fields {
    /// `name`: of the field whose schema it is, as `/amount`. Entries of a list have the name of the list with `[]`; the body has none.
    fn collect(&mut self, document: &Value, name: &str, schema: &Value) {
        if let Some(at) = schema["$ref"].as_str() {
            if self.seen.insert(format!("{name} {at}")) {
                let target = at.strip_prefix('#').and_then(|at| document.pointer(at));
                self.collect(document, name, target.expect("a reference leads somewhere"));
            }
            return;
        }
        let is = |kind: &str| {
            schema["type"] == kind || schema["type"].as_array().is_some_and(|all| all.contains(&json!(kind)))
        };
        if is("object") {
            self.objects.insert(name.to_owned());
        }
        if is("array") {
            self.lists.insert(name.to_owned());
            self.collect(document, &format!("{name}[]"), &schema["items"]);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            self.collect(document, &format!("/{name}"), field);
        }
        for choice in ["anyOf", "oneOf", "allOf"].iter().filter_map(|choice| schema[choice].as_array()).flatten() {
            self.collect(document, name, choice);
        }
    }
}

/// The names of the query's parameters, by method and path.
fn queries(document: &Value) -> String {
    let mut known = Vec::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.map(|parameter| {
                let at = parameter["$ref"].as_str().and_then(|at| at.strip_prefix('#'));
                at.map_or(Some(parameter), |at| document.pointer(at)).expect("a reference leads somewhere")
            });
            let names: Vec<_> = parameters
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            known.push((method.to_uppercase(), path, names));
        }
    }
    // How Rust shows lists of strings is how it writes them.
    format!("&{known:?}").replace(", [", ", &[")
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assembled(directory: &Path) -> Value {
    let mut document = read(&directory.join("base.json"));
    let resources = document["x-resources"].take();
    if let Some(fields) = document.as_object_mut() {
        fields.remove("x-resources");
    }
    let names: Vec<&str> = resources.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let files = fs::read_dir(directory).expect("openapi/ is there").count();
    assert_eq!(names.len() + 1, files, "x-resources of base.json names every file of openapi/");
    let (mut tags, mut paths) = (Vec::new(), Map::new());
    for name in names {
        let resource = read(&directory.join(format!("{name}.json")));
        let tag = resource["tag"].clone();
        tags.push(json!({"name": tag, "description": resource["description"]}));
        for (path, operations) in resource["paths"].as_object().expect("a resource has paths") {
            let mut operations = operations.clone();
            for (method, operation) in operations.as_object_mut().expect("a path has operations") {
                complete(path, method, operation);
                operation["tags"] = json!([tag]);
            }
            assert!(paths.insert(format!("{PREFIX}{path}"), operations).is_none(), "{path} is described twice");
        }
        for (schema, content) in resource["schemas"].as_object().into_iter().flatten() {
            let known = document["components"]["schemas"][schema].take();
            assert!(known.is_null(), "{schema} is described twice");
            document["components"]["schemas"][schema] = content.clone();
        }
    }
    document["tags"] = json!(tags);
    document["paths"] = json!(paths);
    document
}

/// Adds what holds of every operation of its kind.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
    let has_body = operation.get("requestBody").is_some();
    let mut refusals = vec!["400", "429", "503"];
    if !is_open {
        refusals.extend(["401", "403"]);
    }
    if has_body {
        refusals.extend(["413", "415", "422"]);
    }
    if method == "post" {
        let parameters = operation["parameters"].take();
        let mut parameters = parameters.as_array().cloned().unwrap_or_default();
        parameters.push(json!({"$ref": "#/components/parameters/IdempotencyKey"}));
        operation["parameters"] = json!(parameters);
        // The key may be in use, and the body is read for it.
        refusals.extend(["409", "413", "422"]);
    }
    let responses =
        operation["responses"].as_object_mut().unwrap_or_else(|| panic!("{method} {path} has no responses"));
    for status in refusals {
        let shared = json!({"$ref": format!("#/components/responses/{status}")});
        responses.entry(status).or_insert(shared);
    }
}
