//! Puts the API's document together. `openapi/` has a file for each resource, and `base.json` with what all of them use. What holds of
//! every operation is said here, once: the refusals that any request can meet, and the headers that any POST takes.
#![allow(clippy::expect_used, clippy::panic, reason = "a document that cannot be put together must not be built")]

mod page;

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
    let mut refusals = vec!["429", "503"];
    if !is_open {
        refusals.extend(["401", "403"]);
        if has_body || operation.get("parameters").is_some() || method == "post" {
            refusals.push("400");
        }
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
