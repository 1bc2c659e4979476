//! What a client pays for a tick in rows and in columns: a process of its own that subscribes through tonic and decodes
//! everything.

use std::path::Path;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_client::LiveServiceClient;
use tapefeed_proto::v1::subscribe_ticks_response::Event;

use super::Problem;
use super::child::Peer;
use super::load::{CREDIT, Load};
use crate::figure::{Figure, quantile};
use crate::process::Server;

/// Ticks of a batch, and so of a message.
const BATCH: usize = 256;

pub async fn run(binary: &Path, quick: bool) -> Result<(), Problem> {
    let span = Duration::from_millis(if quick { 1_000 } else { 3_000 });
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let server = Server::start(binary, &folder.path().join("client.db")).await?;
    let mut load = Load::start(&server.url, "bench-client").await?;
    load.publish(2_000).await?;
    let mut costs: [Vec<f64>; 2] = Default::default();
    for _ in 0..3 {
        for (encoding, costs) in ["rows", "columns"].into_iter().zip(&mut costs) {
            let client = Peer::own(&["client".into(), server.url.clone(), encoding.into()]).await?;
            load.publish(BATCH).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let (cpu, begun) = (client.cpu_seconds(), Instant::now());
            let mut ticks = 0;
            while begun.elapsed() < span {
                if load.outstanding() == CREDIT {
                    load.acknowledged().await?;
                }
                load.send(BATCH).await?;
                ticks += BATCH;
            }
            while load.outstanding() > 0 {
                load.acknowledged().await?;
            }
            let mut cpus = client.cpu_seconds();
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if client.cpu_seconds() == cpus {
                    break;
                }
                cpus = client.cpu_seconds();
            }
            costs.push((cpus - cpu) * 1e9 / ticks as f64);
        }
    }
    let [rows, columns] = costs.map(|mut costs| quantile(&mut costs, 0.5));
    let case = "a client in Rust, columns, 256 ticks a batch, 8 batches ahead";
    let goal = Some(("at most half of rows", columns <= rows / 2.0));
    let (metric, peer) = ("client CPU a tick", Some(("the same in rows", rows)));
    Figure { case, metric, unit: "ns", value: columns, peer, goal }.print("live");
    Ok(())
}

/// The client's process: subscribes, and looks at every tick until it is ended.
pub async fn read(url: String, columns: bool) -> Result<(), Problem> {
    let channel = tonic::transport::Endpoint::from_shared(url)?
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect()
        .await?;
    let encoding = if columns { proto::Encoding::Columns } else { proto::Encoding::Rows };
    let request = proto::SubscribeTicksRequest {
        selectors: vec![proto::Selector { venue: String::new(), symbol: "*".into() }],
        encoding: encoding as i32,
        ..proto::SubscribeTicksRequest::default()
    };
    let mut stream = LiveServiceClient::new(channel).subscribe_ticks(request).await?.into_inner();
    let mut sum = 0i64;
    while let Some(message) = stream.message().await? {
        match message.event {
            Some(Event::Rows(batch)) => {
                sum = batch.ticks.iter().filter_map(|tick| tick.price).fold(sum, |sum, price| sum ^ price.mantissa);
            }
            Some(Event::Columns(columns)) => {
                let mut last = vec![0; columns.instruments.len()];
                for (&index, &delta) in columns.instrument_index.iter().zip(&columns.price_mantissa) {
                    last[index as usize] += delta;
                    sum ^= last[index as usize];
                }
            }
            _ => {}
        }
    }
    // So that nothing of it is left out.
    println!("{sum}");
    Ok(())
}
