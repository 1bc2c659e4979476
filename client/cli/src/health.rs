//! `tapefeed health`: whether the server and its services take calls.

use clap::Args as ClapArgs;
use serde::Serialize;
use tapefeed_client::{Client, Code, Health};

use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Align, Table};

/// The whole server, then each of its services.
const SERVICES: [&str; 5] = [
    "",
    "tapefeed.v1.InstrumentService",
    "tapefeed.v1.HistoryService",
    "tapefeed.v1.LiveService",
    "tapefeed.v1.IngestService",
];

/// Ask whether the server takes calls; exit with 1 if it, or one of its services, does not
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only these services, by their full names
    services: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    status: &'static str,
}

pub(crate) async fn run(client: &Client, args: Args, output: &mut Output) -> Result<(), Failure> {
    let services = match args.services.is_empty() {
        true => SERVICES.map(str::to_owned).to_vec(),
        false => args.services,
    };
    let mut table = Table::new(&[("SERVICE", Align::Left), ("STATUS", Align::Left)]);
    let mut unwell = Vec::new();
    for service in &services {
        let health = match client.health(service).await {
            Ok(health) => health,
            Err(error) if error.code() == Some(Code::NotFound) => Health::Unknown,
            Err(error) => return Err(error.into()),
        };
        let name = match service.as_str() {
            "" => "(server)",
            service => service,
        };
        if health != Health::Serving {
            unwell.push(format!("{name} is {}", health.as_str()));
        }
        if output.is_json() {
            let status = health.as_str();
            output.object(&Line { service, status })?;
        } else {
            table.row(vec![name.to_owned(), health.as_str().to_owned()]);
        }
    }
    if !output.is_json() {
        output.table(table, "")?;
    }
    output.flush()?;
    match unwell.is_empty() {
        true => Ok(()),
        false => Err(Failure::message(unwell.join(", "))),
    }
}
