//! How much memory this process holds, as Linux tells it, in bytes.

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Lets the peak begin anew; how much is held now.
pub fn reset_peak() -> Result<usize, Error> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    held("VmRSS:")
}

/// The most that was held at any time since.
pub fn peak() -> Result<usize, Error> {
    held("VmHWM:")
}

fn held(what: &str) -> Result<usize, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).ok_or("no such line")?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}
