//! `ListRejectedLines`: pages of the lines that a run rejected, in the order of the file.
//!
//! A page token holds the run and the last line given, under a checksum. It holds no secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::run;
use crate::grpc::convert::page;
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::ingest::import::{Imports, RejectPage};
use crate::store::RunId;

/// Returns a page of rejected lines.
pub(super) async fn list_rejected_lines(
    imports: &Imports,
    request: proto::ListRejectedLinesRequest,
) -> Result<proto::ListRejectedLinesResponse, Refusal> {
    let proto::ListRejectedLinesRequest { run_id, page_size, page_token } = request;
    let mut violations = Violations::default();
    let run = violations.take("run_id", RunId::new(&run_id));
    let limit = violations.take("page_size", page::size(page_size));
    let (Some(run), Some(limit)) = (run, limit) else {
        return Err(violations.refuse());
    };
    let after_line = match page_token.as_str() {
        "" => 0,
        token => read_token(token, &run)?,
    };
    let page = imports.rejects(&run, after_line, limit).await.map_err(|error| run::refusal(error, &run))?;
    let RejectPage { rejects, next_after, rejected, kept } = page;
    Ok(proto::ListRejectedLinesResponse {
        rejected_lines: rejects.into_iter().map(run::wire_reject).collect(),
        next_page_token: next_after.map(|line| token(line, &run)).unwrap_or_default(),
        reject_count: rejected,
        kept_count: kept,
    })
}

/// Tells these tokens from those of other lists.
const KIND: u8 = b'L';

const VERSION: u8 = 1;

/// Kind, version, line, the run's name, and CRC32C over all that.
fn token(line: u64, run: &RunId) -> String {
    let mut bytes = vec![KIND, VERSION];
    bytes.extend_from_slice(&line.to_le_bytes());
    bytes.extend_from_slice(run.as_str().as_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    BASE64.encode(bytes)
}

/// The line that a token goes on behind.
fn read_token(text: &str, run: &RunId) -> Result<u64, Refusal> {
    let broken = || Refusal::page_token_invalid("not a token of this service");
    let bytes = BASE64.decode(text).map_err(|_| broken())?;
    let (bytes, checksum) = bytes.split_last_chunk::<4>().ok_or_else(broken)?;
    if crc32c::crc32c(bytes).to_le_bytes() != *checksum {
        return Err(broken());
    }
    let (mark, rest) = bytes.split_first_chunk::<2>().ok_or_else(broken)?;
    if *mark != [KIND, VERSION] {
        return Err(broken());
    }
    let (line, name) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
    if name != run.as_str().as_bytes() {
        return Err(Refusal::page_token_invalid("belongs to the lines of another run"));
    }
    Ok(u64::from_le_bytes(*line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_are_bound_to_their_run() {
        let run = RunId::new("run_1").unwrap();
        let text = token(10_001, &run);
        assert_eq!(read_token(&text, &run).unwrap(), 10_001);
        for other in ["run_2", "run_", "run_11"] {
            assert!(read_token(&text, &RunId::new(other).unwrap()).is_err(), "{other}");
        }
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert!(read_token(&String::from_utf8(damaged).unwrap(), &run).is_err());
            assert!(read_token(&text[..at], &run).is_err());
        }
    }
}
