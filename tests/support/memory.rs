//! The peak of a process's memory, as Linux counts it.

use std::fs;

/// A measurement from one moment on.
#[derive(Debug)]
pub struct Peak {
    pid: u32,
    begin: u64,
}

impl Peak {
    /// Begins: the peak so far is forgotten.
    ///
    /// # Panics
    ///
    /// If the kernel does not let us: a test of memory that cannot measure must not pass.
    pub fn begin(pid: u32) -> Self {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak of a child of ours can be reset");
        Self { pid, begin: field(pid, "VmHWM:") }
    }

    /// How many bytes the peak lies above the use at the beginning.
    pub fn growth(&self) -> u64 {
        field(self.pid, "VmHWM:").saturating_sub(self.begin)
    }
}

/// The memory that a process uses now, in bytes.
pub fn resident(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs has a status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("{name} is missing in\n{status}"));
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("the kernel counts in kB");
    kibibytes * 1024
}
