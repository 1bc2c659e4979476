//! `deploy/tapefeed.service`: systemd understands it, and the server tells it what it waits for.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tapefeed_tests::process::{self, installed, repository};
use tapefeed_tests::{Options, Server, within};

fn unit() -> String {
    fs::read_to_string(repository().join("deploy/tapefeed.service")).expect("there is a unit")
}

#[tokio::test]
async fn systemd_finds_nothing_to_say_about_the_unit() {
    let Some(analyze) = installed("systemd-analyze") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("tapefeed.service");
    // The program need not be installed where this runs.
    let unit = unit();
    let patched = unit.replace("/usr/local/bin/tapefeed-server", "/bin/true");
    assert_ne!(unit, patched, "the unit starts the server");
    fs::write(&file, patched).expect("a temporary folder takes a file");
    let output = process::command(&analyze, folder.path()).arg("verify").arg(&file).output();
    let output = within("systemd-analyze", Duration::from_secs(60), output).await.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    // It reads the units of the machine too; what it says of them is not about ours.
    assert!(output.status.success() && !said.contains("tapefeed"), "{said}");
}

#[test]
fn the_unit_waits_longer_than_the_server_takes() {
    let unit = unit();
    assert!(unit.contains("\nTimeoutStopSec=25\n"), "the server ends by itself within 20 s");
    assert!(unit.contains("\nType=notify\n"));
    assert!(unit.contains(" serve --store sqlite:///var/lib/tapefeed/tapefeed.db\n"));
    assert!(unit.contains("\nStateDirectory=tapefeed\n"));
}

#[tokio::test]
async fn systemd_is_told_ready_and_stopping() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket has a timeout");
    let heard = || {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).expect("the server says something");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut server = Server::start(Options::serve().variable("NOTIFY_SOCKET", path.display().to_string())).await;
    assert_eq!(heard(), "READY=1");
    let ended = server.terminate().await;
    assert!(ended.success(), "{ended}");
    assert_eq!(heard(), "STOPPING=1");
}
