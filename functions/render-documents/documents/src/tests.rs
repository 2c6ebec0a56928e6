#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

static PRESS: LazyLock<Press> = LazyLock::new(Press::new);

/// As the API shows it: its own tests keep these files.
fn sample(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../../tests/golden/{name}-document.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_kind_of_document_is_printed_and_comes_out_the_same_again() {
    for name in ["month", "payout", "receipt"] {
        let document = sample(name);
        let pdf = PRESS.print(&document).unwrap();
        assert!(pdf.starts_with(b"%PDF-"), "{name}");
        assert_eq!(pdf, PRESS.print(&document).unwrap(), "{name}");
        assert_eq!(pdf, Press::new().print(&document).unwrap(), "{name}, by another press");
    }
}

#[test]
fn many_lines_go_over_many_pages() {
    let mut document = sample("month");
    let line = document["lines"][0].clone();
    document["lines"] = vec![line; 200].into();
    assert!(PRESS.pages(&document).unwrap().pages().len() > 5);
}

#[test]
fn whatever_people_write_is_printed_and_nothing_of_it_is_run() {
    let names = [
        "שלום עולם",
        "شركة الأمل",
        "木村拓哉",
        "Zoë #panic() $x$ *b* _i_ <l> @ref \\ // `code` [c]",
        "🦀\u{0}\u{7}\t\n\u{202e}abc",
        "W".repeat(200).leak(),
        "",
    ];
    for name in names {
        for kind in ["month", "payout", "receipt"] {
            let mut document = sample(kind);
            document["partner"]["name"] = json!(name);
            document["program"]["name"] = json!(name);
            if let Some(lines) = document["lines"].as_array_mut() {
                lines.iter_mut().for_each(|line| line["reason"] = json!(name));
                lines.iter_mut().for_each(|line| line["orderId"] = json!(name));
            }
            document["reference"] = json!(name);
            PRESS.print(&document).unwrap_or_else(|error| panic!("{kind} {name:?}: {error}"));
        }
    }
}

#[test]
fn what_no_font_has_is_marked() {
    let mut text = json!({"a": ["Ann", "木村 x"], "b": {"c": "\u{25a1}"}});
    assert!(make_printable(&mut text));
    assert_eq!(text, json!({"a": ["Ann", "□□ x"], "b": {"c": "□"}}));
    assert!(!make_printable(&mut text), "a box that was there is no character that was not");
}
