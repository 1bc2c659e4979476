//! All ticks of an instrument out of the server, counted in bytes by a client that reads nothing of them.

use std::time::Instant;

use bytes::Buf as _;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::history_service_client::HistoryServiceClient;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{INSTRUMENTS, Outcome, figure, wide};
use crate::figure::Figure;
use crate::process::Server;
use crate::ticks::symbol;

/// How long to scan for one figure, in seconds of the server's processor: its clock has steps of 10 ms.
const CPU_SECONDS: f64 = 2.0;

pub(super) async fn run(server: &Server, channel: &Channel, (store, total): (&str, usize), quick: bool) -> Outcome<()> {
    let statistics = proto::GetPriceStatisticsRequest {
        venue: "BENCH".into(),
        symbol: symbol(0),
        ..proto::GetPriceStatisticsRequest::default()
    };
    let count =
        HistoryServiceClient::new(channel.clone()).get_price_statistics(statistics).await?.into_inner().tick_count;
    let channel = wide(&server.url).await?;
    for (name, encoding) in [("columns", proto::Encoding::Columns), ("rows", proto::Encoding::Rows)] {
        let (cpu, start) = (server.cpu_seconds(), Instant::now());
        let (mut ticks, mut bytes, mut scans) = (0, 0, 0);
        while server.cpu_seconds() - cpu < if quick { CPU_SECONDS } else { 3.0 * CPU_SECONDS } {
            bytes += scan(&channel, 0, encoding).await?;
            ticks += count;
            scans += 1;
        }
        let (cpu, seconds) = (server.cpu_seconds() - cpu, start.elapsed().as_secs_f64());
        let case = format!("{store}: ReadTicks in {name}, all {count} ticks of one instrument, {scans} times");
        let rate = ticks as f64 / seconds;
        let columns = encoding == proto::Encoding::Columns;
        let goal = columns.then_some(("at least 20 M/s", rate >= 20e6));
        Figure { case: &case, metric: "out of the server", unit: "ticks/s", value: rate, peer: None, goal }
            .print("history");
        let goal = columns.then_some(("at most 50", cpu * 1e9 / ticks as f64 <= 50.0));
        let value = cpu * 1e9 / ticks as f64;
        Figure { case: &case, metric: "CPU of the server", unit: "ns/tick", value, peer: None, goal }.print("history");
        figure(&case, "on the wire", "B/tick", bytes as f64 / ticks as f64).print("history");
    }
    let (before, start) = (server.resident_memory_mib(), Instant::now());
    for instrument in 0..INSTRUMENTS {
        scan(&channel, instrument, proto::Encoding::Columns).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let case = format!("{store}: ReadTicks in columns, all instruments in turn");
    figure(&case, "out of the server", "ticks/s", total as f64 / seconds).print("history");
    figure(&case, "resident before", "MiB", before).print("history");
    figure(&case, "resident after", "MiB", server.resident_memory_mib()).print("history");
    let value = server.peak_memory_mib();
    let goal = Some(("under 200 MiB", value < 200.0));
    let case = format!("{store}: memory of the server, from its start to the end of all scans");
    Figure { case: &case, metric: "resident at most", unit: "MiB", value, peer: None, goal }.print("history");
    Ok(())
}

/// Reads everything once; how many bytes the messages have.
async fn scan(channel: &Channel, instrument: u32, encoding: proto::Encoding) -> Outcome<u64> {
    let request = proto::ReadTicksRequest {
        venue: "BENCH".into(),
        symbol: symbol(instrument),
        encoding: encoding.into(),
        ..proto::ReadTicksRequest::default()
    };
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/tapefeed.v1.HistoryService/ReadTicks");
    let mut messages = grpc.server_streaming(Request::new(request), path, Lengths).await?.into_inner();
    let mut bytes = 0;
    while let Some(length) = messages.message().await? {
        bytes += length;
    }
    Ok(bytes)
}

/// Counts the bytes of messages.
#[derive(Clone, Copy, Debug)]
struct Lengths;

impl Codec for Lengths {
    type Encode = proto::ReadTicksRequest;
    type Decode = u64;
    type Encoder = <ProstCodec<proto::ReadTicksRequest, proto::ReadTicksResponse> as Codec>::Encoder;
    type Decoder = Lengths;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<proto::ReadTicksRequest, proto::ReadTicksResponse>::default().encoder()
    }

    fn decoder(&mut self) -> Lengths {
        Lengths
    }
}

impl Decoder for Lengths {
    type Item = u64;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<u64>, Status> {
        let length = message.remaining();
        message.advance(length);
        Ok(Some(length as u64))
    }
}
