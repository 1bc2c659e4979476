//! Ends what a killed test run leaves behind.
//!
//! Children die with their handles. A test binary that is itself killed drops no handle: for that case one shell waits
//! on a pipe from this process, and ends every process that is still listed when the pipe closes.

use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Reads `+ PID` and `- PID` until the pipe closes, then ends what is listed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
listed=' '
while read -r sign pid; do
    case "$sign" in
        +) listed="$listed$pid " ;;
        -) listed="${listed%% $pid *} ${listed#* $pid }" ;;
    esac
done
for pid in $listed; do kill -9 "$pid" 2>/dev/null; done
"#;

#[expect(clippy::zombie_processes, reason = "the shell outlives this process on purpose")]
fn pipe() -> &'static Mutex<ChildStdin> {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    PIPE.get_or_init(|| {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is there");
        Mutex::new(shell.stdin.take().expect("its input is a pipe"))
    })
}

/// The mark that a process runs. Dropped after the process has been waited for, so that its id cannot have been given
/// to another.
#[derive(Debug)]
pub struct Guard {
    pid: u32,
}

impl Guard {
    /// Lists a process.
    pub fn over(pid: u32) -> Self {
        say('+', pid);
        Self { pid }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        say('-', self.pid);
    }
}

fn say(sign: char, pid: u32) {
    // The lock keeps lines whole; a poisoned one has at worst lost a line.
    let mut pipe = pipe().lock().unwrap_or_else(|error| error.into_inner());
    // If the shell is gone, handles alone end the children.
    let _ = writeln!(pipe, "{sign} {pid}");
}
