//! Durable ticks through PublishTicks against row inserts into SQLite by hand, CPU per tick of whoever stores.

use std::path::Path;
use std::time::Instant;

use sqlx::{ConnectOptions as _, Connection as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::ingest_service_client::IngestServiceClient;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::{publish_ticks_request, publish_ticks_response};

use crate::figure::{Figure, quantile};
use crate::process::{Server, cpu_seconds};
use crate::ticks::{Tape, Trade, columns, rows};

/// Ticks of one batch, and rows of one transaction.
const BATCH: usize = 1_000;

/// Batches that a publisher keeps outstanding: the server's credit.
const OUTSTANDING: usize = 8;

pub(super) async fn run(server: &Server, folder: &Path, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let rounds = if quick { 3 } else { 5 };
    let count = if quick { 200_000 } else { 1_000_000 };
    let trades: Vec<Trade> = Tape::new(100, 1e6).take(count).collect();
    let (mut by_columns, mut by_rows, mut by_insert) = (Vec::new(), Vec::new(), Vec::new());
    let (mut columns_rate, mut rows_rate, mut insert_rate) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (cpu, rate) = publish(server, &format!("columns-{round}"), &trades, true).await?;
        by_columns.push(cpu);
        columns_rate.push(rate);
        let (cpu, rate) = publish(server, &format!("rows-{round}"), &trades, false).await?;
        by_rows.push(cpu);
        rows_rate.push(rate);
        let part = &trades[..count / 4];
        let (cpu, rate) = insert(&folder.join(format!("rows-{round}.db")), part).await?;
        by_insert.push(cpu);
        insert_rate.push(rate);
    }
    let insert_cpu = quantile(&mut by_insert, 0.5);
    let insert_rate = quantile(&mut insert_rate, 0.5);
    let peer = "SQLite INSERT, 1,000 rows a transaction, index on (symbol, time)";
    for (case, cpu, rate) in [
        ("publish columns of 1,000", &mut by_columns, &mut columns_rate),
        ("publish rows of 1,000", &mut by_rows, &mut rows_rate),
    ] {
        let cpu = quantile(cpu, 0.5);
        Figure {
            case,
            metric: "CPU of the storing process, compaction included",
            unit: "ns/tick",
            value: cpu,
            peer: Some((peer, insert_cpu)),
            goal: None,
        }
        .print("base");
        Figure {
            case,
            metric: "acknowledged",
            unit: "ticks/s",
            value: quantile(rate, 0.5),
            peer: Some((peer, insert_rate)),
            goal: None,
        }
        .print("base");
    }
    Ok(())
}

/// Publishes all trades; CPU of the server in ns a tick, and ticks a second until the last acknowledgement.
pub(crate) async fn publish(
    server: &Server,
    producer: &str,
    trades: &[Trade],
    in_columns: bool,
) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut client = IngestServiceClient::connect(server.url.clone()).await?;
    let requests: Vec<_> = trades
        .chunks(BATCH)
        .enumerate()
        .map(|(index, chunk)| {
            let content = if in_columns { Content::Columns(columns(chunk)) } else { Content::Rows(rows(chunk)) };
            let batch = proto::PublishBatch { batch_seq: index as u64 + 1, content: Some(content) };
            proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Batch(batch)) }
        })
        .collect();
    let batches = requests.len();
    let (sender, receiver) = tokio::sync::mpsc::channel(OUTSTANDING);
    let claim = proto::ProducerClaim { producer_id: producer.into(), backfill: true, held_fence: 0 };
    sender.send(proto::PublishTicksRequest { message: Some(publish_ticks_request::Message::Claim(claim)) }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut responses = client.publish_ticks(stream).await?.into_inner();
    let cpu = server.cpu_seconds();
    let start = Instant::now();
    let mut requests = requests.into_iter();
    let mut acknowledged = 0;
    while let Some(response) = responses.message().await? {
        match response.message {
            Some(publish_ticks_response::Message::Grant(_)) => {
                for request in requests.by_ref().take(OUTSTANDING) {
                    sender.send(request).await?;
                }
            }
            Some(publish_ticks_response::Message::Ack(_)) => {
                acknowledged += 1;
                if acknowledged == batches {
                    break;
                }
                if let Some(request) = requests.next() {
                    sender.send(request).await?;
                }
            }
            None => (),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    // Compaction of what was published is part of the cost.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let cpu = server.cpu_seconds() - cpu;
    Ok((cpu * 1e9 / trades.len() as f64, trades.len() as f64 / seconds))
}

/// Inserts trades as rows; CPU of this process in ns a row, and rows a second.
async fn insert(path: &Path, trades: &[Trade]) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .connect()
        .await?;
    sqlx::query(
        "CREATE TABLE ticks (symbol TEXT, time INTEGER, price TEXT, quantity TEXT, side INTEGER, trade_id TEXT)",
    )
    .execute(&mut connection)
    .await?;
    sqlx::query("CREATE INDEX by_time ON ticks (symbol, time)").execute(&mut connection).await?;
    let cpu = cpu_seconds("self");
    let start = Instant::now();
    for chunk in trades.chunks(BATCH) {
        let mut transaction = connection.begin().await?;
        for trade in chunk {
            sqlx::query("INSERT INTO ticks VALUES (?, ?, ?, ?, ?, ?)")
                .bind(crate::ticks::symbol(trade.instrument))
                .bind(trade.event_time)
                .bind(format!("{}.{:02}", trade.price / 100, trade.price % 100))
                .bind(format!("{}.{:03}", trade.quantity / 1_000, trade.quantity % 1_000))
                .bind(trade.buy)
                .bind(trade.id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds("self") - cpu;
    Ok((cpu * 1e9 / trades.len() as f64, trades.len() as f64 / seconds))
}
