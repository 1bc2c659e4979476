//! `ListIngestionRuns`: pages of runs, the newest first.
//!
//! A page token holds where the list goes on and the state it was asked for, under a checksum. It holds no secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::run;
use crate::domain::UnixNanos;
use crate::grpc::convert::page;
use crate::grpc::error::Refusal;
use crate::grpc::proto;
use crate::grpc::violation::Violations;
use crate::ingest::import::{Imports, ListPosition, State};
use crate::store::{RunId, StoreError};

/// Returns a page of runs.
pub(super) async fn list_ingestion_runs(
    imports: &Imports,
    request: proto::ListIngestionRunsRequest,
) -> Result<proto::ListIngestionRunsResponse, Refusal> {
    let proto::ListIngestionRunsRequest { state, page_size, page_token } = request;
    let mut violations = Violations::default();
    let state = violations.take("state", run::state(state));
    let limit = violations.take("page_size", page::size(page_size));
    let (Some(state), Some(limit)) = (state, limit) else {
        return Err(violations.refuse());
    };
    let after = match page_token.as_str() {
        "" => None,
        token => Some(read_token(token, state)?),
    };
    let (runs, next) = imports.list(state, after, limit).await.map_err(|error| {
        tracing::debug!(%error, "runs could not be listed");
        Refusal::from(StoreError::Unavailable(error.to_string()))
    })?;
    Ok(proto::ListIngestionRunsResponse {
        runs: runs.into_iter().map(Into::into).collect(),
        next_page_token: next.map(|position| token(&position, state)).unwrap_or_default(),
    })
}

const VERSION: u8 = 1;

/// Version, state, time, both names with their lengths, and CRC32C over all that.
fn token(position: &ListPosition, state: Option<State>) -> String {
    let ListPosition { create_time, run, stored } = position;
    let mut bytes = vec![VERSION, state_code(state)];
    bytes.extend_from_slice(&create_time.nanos().to_le_bytes());
    for name in [run.as_str(), stored.as_ref().map_or("", RunId::as_str)] {
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    BASE64.encode(bytes)
}

fn state_code(state: Option<State>) -> u8 {
    let wire = state.map_or(proto::IngestionRunState::Unspecified, proto::IngestionRunState::from);
    wire as i32 as u8
}

fn read_token(text: &str, state: Option<State>) -> Result<ListPosition, Refusal> {
    let broken = || Refusal::page_token_invalid("not a token of this service");
    let bytes = BASE64.decode(text).map_err(|_| broken())?;
    let (bytes, checksum) = bytes.split_last_chunk::<4>().ok_or_else(broken)?;
    if crc32c::crc32c(bytes).to_le_bytes() != *checksum {
        return Err(broken());
    }
    let ([version, told], rest) = bytes.split_first_chunk::<2>().ok_or_else(broken)?;
    if *version != VERSION {
        return Err(broken());
    }
    if *told != state_code(state) {
        return Err(Refusal::page_token_invalid("belongs to a list of another state"));
    }
    let (time, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
    let (run, rest) = name(rest).ok_or_else(broken)?;
    let (stored, _) = name(rest).ok_or_else(broken)?;
    Ok(ListPosition {
        create_time: UnixNanos::new(i64::from_le_bytes(*time)).map_err(|_| broken())?,
        run: RunId::new(run).map_err(|_| broken())?,
        stored: match stored {
            "" => None,
            stored => Some(RunId::new(stored).map_err(|_| broken())?),
        },
    })
}

/// A name with its length before it, and what follows.
fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_are_bound_to_their_state() {
        for stored in [None, Some(RunId::new("stored-run").unwrap())] {
            let position =
                ListPosition { create_time: UnixNanos::new(17).unwrap(), run: RunId::new("run_1").unwrap(), stored };
            let text = token(&position, Some(State::Failed));
            assert_eq!(read_token(&text, Some(State::Failed)).unwrap(), position);
            assert!(read_token(&text, None).is_err());
            for at in 0..text.len() {
                let mut damaged = text.clone().into_bytes();
                damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
                let damaged = String::from_utf8(damaged).unwrap();
                assert!(read_token(&damaged, Some(State::Failed)).is_err());
                assert!(read_token(&text[..at], Some(State::Failed)).is_err());
            }
        }
    }
}
