//! What the kernel says of this process, read from `/proc`; nothing where there is none.

use std::fs;

/// Ticks of the kernel's clock in a second, as it tells programs: 100 on every architecture of Linux that runs Rust.
const TICKS_PER_SECOND: f64 = 100.0;

/// This process, now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) virtual_bytes: f64,
    pub(super) threads: f64,
    pub(super) open_fds: f64,
    pub(super) max_fds: f64,
}

impl Process {
    pub(super) fn look() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        // One of them is the folder that is being read.
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        Some(Process {
            cpu_seconds: cpu_seconds(&stat)?,
            resident_bytes: kibibytes(&status, "VmRSS:")?,
            virtual_bytes: kibibytes(&status, "VmSize:")?,
            threads: number(&status, "Threads:")?,
            open_fds: open_fds as f64,
            // "unlimited" is no number, and no limit.
            max_fds: number(&limits, "Max open files").unwrap_or(f64::INFINITY),
        })
    }
}

/// Time in the program and in the kernel: fields 14 and 15. The name in field 2 may hold anything but ends at the last
/// bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some((user + kernel) / TICKS_PER_SECOND)
}

/// The first number of the line that begins so.
fn number(text: &str, begin: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(begin))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, begin: &str) -> Option<f64> {
    number(text, begin).map(|count| count * 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let stat = "7 (a) b) c) S 1 2 3 0 -1 4194560 5 6 7 8 150 50 0 0 20 0 9 0 1000";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(kibibytes("VmSize:\t  100 kB\nVmRSS:\t   64 kB\n", "VmRSS:"), Some(65_536.0));
        assert_eq!(number("Max open files            1024      4096  files", "Max open files"), Some(1024.0));
        let process = Process::look().expect("the tests run on Linux");
        assert!(process.resident_bytes > 1e6 && process.open_fds >= 3.0 && process.threads >= 1.0, "{process:?}");
    }
}
