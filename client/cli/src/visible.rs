//! Waits until what was stored can be read, so that the next command sees it.

use tapefeed_client::{Client, Code, Cursor};

use crate::failure::Failure;
use crate::output::notice;

/// How many deadlines of a call the server gets.
const ATTEMPTS: u32 = 6;

/// Waits until the server's answers include a cursor. What is stored stays stored if that takes too long.
pub(crate) async fn wait(client: &Client, cursor: &Cursor) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        match client.await_cursor(cursor).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some(Code::DeadlineExceeded) => {}
            Err(error) => {
                notice(&format!("stored, but the server cannot show it yet: {error}"))?;
                return Ok(());
            }
        }
    }
    notice("stored, but the server needs longer to show it")?;
    Ok(())
}
