//! The document as a page: plain HTML with its style inside, which loads nothing.

use std::fmt::Write;

use serde_json::Value;

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{margin:0 auto;max-width:60rem;padding:1rem}\
code,pre{font:.875rem/1.5 ui-monospace,monospace}pre{border:1px solid #8886;overflow:auto;padding:.5rem}\
h2{border-top:2px solid #8886;margin-top:2.5rem;padding-top:1rem}h3{margin:2rem 0 0}\
b.m{display:inline-block;min-width:3.5rem}table{border-collapse:collapse;display:block;overflow:auto;width:100%}\
td,th{border-bottom:1px solid #8884;padding:.25rem .75rem .25rem 0;text-align:left;vertical-align:top}\
nav{columns:3 12rem}nav a{display:block}small{opacity:.8}";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

pub fn of(document: &Value) -> String {
    let mut page = Page { document, html: String::new() };
    page.write();
    page.html
}

struct Page<'a> {
    document: &'a Value,
    html: String,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped, with `code` and **strong** words.
fn words(markdown: &str) -> String {
    let mut html = String::new();
    for (n, part) in escaped(markdown).split("**").enumerate() {
        let strong = if n % 2 == 1 { ("<strong>", "</strong>") } else { ("", "") };
        html.push_str(strong.0);
        for (n, part) in part.split('`').enumerate() {
            let code = if n % 2 == 1 { ("<code>", "</code>") } else { ("", "") };
            html.extend([code.0, part, code.1]);
        }
        html.push_str(strong.1);
    }
    html
}

/// Paragraphs and lists.
fn blocks(markdown: &str) -> String {
    let block = |block: &str| {
        let items: Option<Vec<&str>> = block.lines().map(|line| line.strip_prefix("- ")).collect();
        match items {
            Some(items) => {
                let items: Vec<_> = items.into_iter().map(|item| format!("<li>{}</li>", words(item))).collect();
                let items = items.concat();
                format!("<ul>{items}</ul>")
            }
            None => format!("<p>{}</p>", words(block)),
        }
    };
    markdown.split("\n\n").map(|part| block(part.trim())).collect()
}

impl<'a> Page<'a> {
    fn put(&mut self, html: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = self.html.write_fmt(html);
    }

    fn write(&mut self) {
        let info = &self.document["info"];
        let title = escaped(text(&info["title"]));
        self.put(format_args!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{}</p>{}\
             <p><a href=\"openapi.json\">OpenAPI 3.1</a></p><nav>",
            words(text(&info["summary"])),
            blocks(text(&info["description"])),
        ));
        let tags: Vec<&Value> = self.document["tags"].as_array().into_iter().flatten().collect();
        for tag in &tags {
            let name = escaped(text(&tag["name"]));
            self.put(format_args!("<a href=\"#{name}\">{name}</a>"));
        }
        self.put(format_args!("<a href=\"#schemas\">Schemas</a></nav>"));
        for tag in tags {
            let name = escaped(text(&tag["name"]));
            self.put(format_args!("<h2 id=\"{name}\">{name}</h2><p>{}</p>", words(text(&tag["description"]))));
            let of_tag = |operation: &&Value| operation["tags"][0] == tag["name"];
            for (path, operations) in self.document["paths"].as_object().into_iter().flatten() {
                let known = METHODS.iter().filter_map(|method| Some((method, operations.get(*method)?)));
                for (method, operation) in known.filter(|(_, operation)| of_tag(operation)) {
                    self.operation(path, method, operation);
                }
            }
        }
        self.put(format_args!("<h2 id=\"schemas\">Schemas</h2>"));
        for (name, schema) in self.document["components"]["schemas"].as_object().into_iter().flatten() {
            self.put(format_args!("<h3 id=\"schema-{name}\">{name}</h3>"));
            let said = blocks(text(&schema["description"]));
            self.html.push_str(&said);
            self.fields(schema);
        }
    }

    fn operation(&mut self, path: &str, method: &str, operation: &Value) {
        let roles: Vec<&str> =
            operation["x-roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let roles = match (&operation["x-roles"], roles.as_slice()) {
            (Value::String(all), _) => all.clone(),
            (_, []) => "admin".to_owned(),
            (_, roles) => format!("admin, {}", roles.join(", ")),
        };
        self.put(format_args!(
            "<h3 id=\"{}\"><b class=\"m\">{}</b> <code>{}</code></h3><p>{}. <small>{}</small></p>{}",
            text(&operation["operationId"]),
            method.to_uppercase(),
            escaped(path),
            words(text(&operation["summary"])),
            escaped(&roles),
            blocks(text(&operation["description"])),
        ));
        self.html.push_str("<table>");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let parameter = self.resolved(parameter);
            let needed = if parameter["required"] == true { ", required" } else { "" };
            let kind = kind(&parameter["schema"]);
            self.put(format_args!(
                "<tr><td><code>{}</code><td>{}{needed}<td>{kind}<td>{}",
                escaped(text(&parameter["name"])),
                text(&parameter["in"]),
                words(text(&parameter["description"])),
            ));
        }
        self.html.push_str("</table>");
        for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
            self.put(format_args!("<p>Body: <code>{}</code> {}</p>", escaped(media), kind(&content["schema"])));
            self.fields(&content["schema"]);
            for example in content["examples"].as_object().into_iter().flat_map(|examples| examples.values()) {
                let value = &example["value"];
                let shown = match value {
                    Value::String(shown) => shown.clone(),
                    _ => format!("{value:#}"),
                };
                self.put(format_args!("<pre>{}</pre>", escaped(&shown)));
            }
        }
        self.html.push_str("<table>");
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            let response = self.resolved(response);
            let kinds: Vec<_> = response["content"].as_object().into_iter().flatten().collect();
            let kinds: Vec<_> = kinds.into_iter().map(|(_, content)| kind(&content["schema"])).collect();
            self.put(format_args!(
                "<tr><td><code>{status}</code><td>{}<td>{}",
                words(text(&response["description"])),
                kinds.join(" or "),
            ));
        }
        self.html.push_str("</table>");
    }

    /// What a reference points at; what is none itself.
    fn resolved(&self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|at| self.document.pointer(at.trim_start_matches('#'))) {
            Some(target) => target,
            None => value,
        }
    }

    fn fields(&mut self, schema: &Value) {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some(fields) = schema["properties"].as_object() else {
            if schema.get("$ref").is_none() {
                let kind = kind(schema);
                self.put(format_args!("<p>{kind}</p>"));
            }
            return;
        };
        self.html.push_str("<table>");
        for (name, field) in fields {
            let needed = if required.contains(&name.as_str()) { "" } else { " <small>optional</small>" };
            let default = field.get("default").map(|value| format!(" Default: {value}.")).unwrap_or_default();
            self.put(format_args!(
                "<tr><td><code>{}</code>{needed}<td>{}<td>{}{}",
                escaped(name),
                kind(field),
                words(text(&field["description"])),
                escaped(&default),
            ));
        }
        self.html.push_str("</table>");
    }
}

/// What a schema takes, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(at) = schema["$ref"].as_str() {
        let name = at.rsplit('/').next().unwrap_or_default();
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array() {
            return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> =
            values.iter().map(|value| format!("<code>{}</code>", escaped(&value.to_string()))).collect();
        return values.join(" ");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escaped(&value.to_string()));
    }
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        name => text(name).to_owned(),
    };
    if let Some(items) = schema.get("items") {
        return format!("{name} of {}", kind(items));
    }
    if name == "object" && schema.get("properties").is_some() {
        let fields: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
        let fields: Vec<_> =
            fields.into_iter().map(|(name, field)| format!("<code>{name}</code>: {}", kind(field))).collect();
        return format!("{{{}}}", fields.join(", "));
    }
    let mut limits = Vec::new();
    for (limit, word) in [
        ("format", ""),
        ("minimum", "from "),
        ("maximum", "to "),
        ("minLength", "at least "),
        ("maxLength", "at most "),
    ] {
        match &schema[limit] {
            Value::Null => {}
            Value::String(value) => limits.push(format!("{word}{value}")),
            value => limits.push(format!("{word}{value}")),
        }
    }
    if limits.is_empty() { name } else { format!("{name} ({})", limits.join(" ")) }
}
