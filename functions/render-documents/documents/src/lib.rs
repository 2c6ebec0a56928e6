//! Statements and receipts as PDF, from the JSON in which the API shows them. Nothing is computed here but how things look: the same
//! document gives the same bytes.
//!
//! The files are PDF/A-2a and PDF/UA-1: they can be kept for ever, and read aloud.

use std::sync::LazyLock;

use serde_json::Value;
use typst::foundations::{Dict, IntoValue};
use typst::text::Font;
use typst_as_lib::{TypstEngine, TypstTemplateMainFile};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandard, PdfStandards};

/// Latin, Greek and Cyrillic, then Arabic, then Hebrew. For another script a font file is added here and to the list in the template;
/// those of Chinese, Japanese and Korean are ten times the size of these together.
const FONTS: [&[u8]; 4] = [
    include_bytes!("../fonts/Inter-Regular.otf"),
    include_bytes!("../fonts/Inter-SemiBold.otf"),
    include_bytes!("../fonts/NotoSansArabic-Regular.ttf"),
    include_bytes!("../fonts/NotoSansHebrew-Regular.ttf"),
];
const TEMPLATE: &str = include_str!("document.typ");
/// What stands for a character that no font has. The standards allow no gap, and nobody should take a name for another.
const MISSING: char = '\u{25a1}';

#[derive(Debug)]
pub struct NotPrinted(String);

impl std::fmt::Display for NotPrinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotPrinted {}

/// Made once: reading the fonts takes longer than a page.
pub struct Press {
    engine: TypstEngine<TypstTemplateMainFile>,
}

impl std::fmt::Debug for Press {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Press(..)")
    }
}

impl Default for Press {
    fn default() -> Self {
        Self::new()
    }
}

impl Press {
    pub fn new() -> Self {
        Self { engine: TypstEngine::builder().main_file(TEMPLATE).fonts(FONTS).build() }
    }

    pub fn print(&self, document: &Value) -> Result<Vec<u8>, NotPrinted> {
        let pages = self.pages(document)?;
        let standards = PdfStandards::new(&[PdfStandard::A_2a, PdfStandard::Ua_1]);
        let standards = standards.map_err(|error| not_printed(&error))?;
        typst_pdf::pdf(&pages, &PdfOptions { standards, ..PdfOptions::default() }).map_err(|error| not_printed(&error))
    }

    fn pages(&self, document: &Value) -> Result<PagedDocument, NotPrinted> {
        let mut document = document.clone();
        let missing = make_printable(&mut document);
        document["missingCharacters"] = missing.into();
        let mut inputs = Dict::new();
        inputs.insert("document".into(), document.to_string().into_value());
        self.engine.compile_with_input(inputs).output.map_err(|error| not_printed(&error))
    }
}

fn not_printed(error: &impl std::fmt::Debug) -> NotPrinted {
    NotPrinted(format!("{error:?}"))
}

/// Puts a sign in the place of every character that no font has, and a space in that of controls. Whether there was any of the first.
fn make_printable(value: &mut Value) -> bool {
    match value {
        Value::String(text) => {
            let mut missing = false;
            let printable = text.chars().map(|c| match c {
                c if c.is_control() => ' ',
                c if has_glyph(c) => c,
                _ => {
                    missing = true;
                    MISSING
                }
            });
            *text = printable.collect();
            missing
        }
        // Every one, not until the first.
        Value::Array(values) => values.iter_mut().fold(false, |missing, value| make_printable(value) | missing),
        Value::Object(fields) => fields.values_mut().fold(false, |missing, value| make_printable(value) | missing),
        _ => false,
    }
}

fn has_glyph(c: char) -> bool {
    static ALL: LazyLock<Vec<Font>> = LazyLock::new(|| {
        FONTS.iter().flat_map(|font| Font::iter(typst::foundations::Bytes::new(*font))).collect()
    });
    ALL.iter().any(|font| font.info().coverage.contains(c.into()))
}

#[cfg(test)]
mod tests;
