//! Files as they should be, to be read by people, under `golden/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Ids are drawn, so they are named by the order in which they come.
fn named(text: &str) -> String {
    let mut names: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let (mut named, mut rest) = (String::new(), text);
    'text: while !rest.is_empty() {
        for (prefix, length) in [
            ("pay_", 42),
            ("par_", 26),
            ("prg_", 26),
            ("run_", 24),
            ("exp_", 24),
            ("cnv_", 24),
            ("com_", 44),
            ("PP-", 16),
        ] {
            let Some(id) = rest.strip_prefix(prefix).and_then(|tail| tail.get(..length)) else { continue };
            if id.bytes().all(|c| c.is_ascii_alphanumeric()) {
                let seen = names.entry(prefix).or_default();
                let at = seen.iter().position(|seen| seen == id).unwrap_or_else(|| {
                    seen.push(id.to_owned());
                    seen.len() - 1
                });
                write!(named, "{prefix}{}", at + 1).unwrap();
                rest = &rest[prefix.len() + length..];
                continue 'text;
            }
        }
        let next = rest.chars().next().unwrap();
        named.push(next);
        rest = &rest[next.len_utf8()..];
    }
    named
}

/// Compares with the file of that name under `golden`; `GOLDEN=write` writes it instead, to be read by a person.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let text = named(text);
    if std::env::var_os("GOLDEN").is_some_and(|wish| wish == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}
