//! The API with a press: the same code answers, with the same checks of who asks, and prints what it would show.
//!
//! API Gateway sends here the routes that answer with a PDF, and no others. The renderer is ten times the size of the API, so
//! everything else is spared it.

use std::pin::Pin;

use documents::Press;
use payouts_api::{PrintError, Printer};
use serde_json::Value;

#[derive(Debug, Default)]
pub struct Renderer(Press);

impl Printer for Renderer {
    fn print(&self, document: Value) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, PrintError>> + Send + '_>> {
        // A function answers one request at a time, so nobody waits for this.
        Box::pin(async move { self.0.print(&document).map_err(|error| PrintError(error.to_string())) })
    }
}
