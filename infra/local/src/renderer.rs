//! PDF by the program that `functions/render-documents` makes besides its function, where somebody has built it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;

use payouts_api::{PrintError, Printer};
use serde_json::Value;

/// Where the renderer is, if not where its own workspace builds it.
const ELSEWHERE: &str = "RENDER_DOCUMENTS";

#[derive(Debug)]
pub struct Renderer {
    program: PathBuf,
}

impl Renderer {
    /// `None` until it is built.
    pub fn found() -> Option<Arc<dyn Printer>> {
        let crate_of_it = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions/render-documents/target");
        let built = ["release", "debug"].map(|profile| crate_of_it.join(profile).join("print-document"));
        let named = std::env::var_os(ELSEWHERE).map(PathBuf::from);
        let program = named.into_iter().chain(built).find(|program| program.is_file())?;
        Some(Arc::new(Self { program }))
    }
}

impl Printer for Renderer {
    fn print(&self, document: Value) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, PrintError>> + Send + '_>> {
        let program = self.program.clone();
        Box::pin(async move {
            let printed = tokio::task::spawn_blocking(move || run(&program, &document)).await;
            printed.map_err(|error| PrintError(error.to_string()))?
        })
    }
}

/// The document goes in as JSON, the PDF comes out.
fn run(program: &Path, document: &Value) -> Result<Vec<u8>, PrintError> {
    let failed = |error: std::io::Error| PrintError(format!("{}: {error}", program.display()));
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // It reads all before it writes anything.
        input.write_all(document.to_string().as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(PrintError(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
