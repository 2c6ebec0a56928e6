//! Prints one document: JSON, as the API shows it, on standard input; PDF on standard output. The local system calls it.

use std::io::{Read, Write};
use std::process::ExitCode;

use documents::Press;

fn main() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn print() -> Result<(), String> {
    let mut document = String::new();
    std::io::stdin().read_to_string(&mut document).map_err(|error| error.to_string())?;
    let document = serde_json::from_str(&document).map_err(|error| error.to_string())?;
    let pdf = Press::new().print(&document).map_err(|error| error.to_string())?;
    std::io::stdout().write_all(&pdf).map_err(|error| error.to_string())
}
