//! Places inside the database's functions at which tests make a transaction stumble.
//!
//! The functions look at settings of their session; here the tests' wishes become settings. Production has none, and
//! sends nothing.

use sqlx::PgConnection;

use super::failure::Failure;
use crate::store::faults::{FaultAction, Faults};

/// Says whether the next transaction stumbles at one of the places. Afterwards [`disarm`] takes it back; a connection
/// on which something failed is thrown away anyway.
pub(super) async fn arm(
    connection: &mut PgConnection,
    faults: &Faults,
    points: &[&'static str],
) -> Result<bool, Failure> {
    let mut armed = false;
    for point in points {
        let action = match faults.ask(point).await {
            FaultAction::Continue => continue,
            FaultAction::Fail => "fail".to_owned(),
            FaultAction::Delay(span) => span.as_secs_f64().to_string(),
            // From outside, a process that ends while the database works has ended before or after it.
            FaultAction::Abort => std::process::abort(),
        };
        set(connection, point, &action).await?;
        armed = true;
    }
    Ok(armed)
}

/// Takes back what [`arm`] has set.
pub(super) async fn disarm(connection: &mut PgConnection, points: &[&'static str]) -> Result<(), Failure> {
    for point in points {
        set(connection, point, "").await?;
    }
    Ok(())
}

async fn set(connection: &mut PgConnection, point: &str, action: &str) -> Result<(), Failure> {
    sqlx::query("SELECT set_config('tapefeed.' || $1, $2, false)")
        .bind(point) // $1 the place
        .bind(action) // $2 `fail`, or seconds to wait
        .execute(connection)
        .await?;
    Ok(())
}
