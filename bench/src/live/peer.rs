//! Peers that are processes of this program: raw TCP, and tonic as its documentation has it.
//!
//! A peer prints its port, waits for its subscribers, and sends when it is told on standard input: `send COUNT`.

use std::io::{BufRead as _, Read as _, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::live_service_server::{LiveService, LiveServiceServer};
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::client;
use crate::ticks::{Tape, rows};

type Problem = Box<dyn std::error::Error>;

/// Runs a peer: `raw SUBSCRIBERS MESSAGE_BYTES WRITE_BYTES`, `tonic TICKS_PER_MESSAGE ENCODING CHANNEL`, or
/// `client URL ENCODING`, which is no peer of the server but its client.
pub fn run(arguments: &[String]) -> Result<(), Problem> {
    let number =
        |index: usize| -> Result<usize, Problem> { Ok(arguments.get(index).ok_or("a number is missing")?.parse()?) };
    match arguments.first().map(String::as_str) {
        Some("raw") => raw(number(1)?, number(2)?, number(3)?),
        Some("tonic") => {
            let columns = arguments.get(2).is_some_and(|encoding| encoding == "columns");
            tokio::runtime::Runtime::new()?.block_on(plain(number(1)?, columns, number(3)?))
        }
        Some("client") => {
            let url = arguments.get(1).ok_or("a URL is missing")?.clone();
            let columns = arguments.get(2).is_some_and(|encoding| encoding == "columns");
            say_port(0)?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(client::read(url, columns))
        }
        _ => Err("a peer is raw, tonic or client".into()),
    }
}

fn told() -> Option<usize> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok()?;
    line.strip_prefix("send ")?.trim().parse().ok()
}

fn say_port(port: u16) -> Result<(), Problem> {
    println!("{port}");
    std::io::stdout().flush()?;
    Ok(())
}

/// The same bytes to every socket, from one thread, in writes of one size.
fn raw(subscribers: usize, message_bytes: usize, write_bytes: usize) -> Result<(), Problem> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    say_port(listener.local_addr()?.port())?;
    let mut sockets = Vec::new();
    for _ in 0..subscribers {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        // The subscriber says something first, as all of them do.
        socket.read_exact(&mut [0])?;
        sockets.push(socket);
    }
    let piece: Vec<u8> = (0..write_bytes).map(|index| (index * 31 % 251) as u8).collect();
    while let Some(messages) = told() {
        let mut left = messages * message_bytes;
        while left > 0 {
            let size = left.min(write_bytes);
            for socket in &mut sockets {
                socket.write_all(&piece[..size])?;
            }
            left -= size;
        }
    }
    Ok(())
}

type Sent = Result<proto::SubscribeTicksResponse, Status>;
type Subscribers = Arc<Mutex<Vec<mpsc::Sender<Arc<proto::SubscribeTicksResponse>>>>>;

/// A service as tonic's tutorials write it: a channel for each subscriber, each message encoded for each.
#[derive(Debug)]
struct Plain {
    subscribers: Subscribers,
    /// Messages that may wait for one subscriber.
    channel: usize,
}

#[tonic::async_trait]
impl LiveService for Plain {
    type SubscribeTicksStream = Pin<Box<dyn Stream<Item = Sent> + Send>>;
    type SubscribeBarsStream = Pin<Box<dyn Stream<Item = Result<proto::SubscribeBarsResponse, Status>> + Send>>;

    async fn subscribe_ticks(
        &self,
        _: Request<proto::SubscribeTicksRequest>,
    ) -> Result<Response<Self::SubscribeTicksStream>, Status> {
        let (sender, receiver) = mpsc::channel(self.channel);
        self.subscribers.lock().expect("nobody panics").push(sender);
        let stream =
            ReceiverStream::new(receiver).map(|message: Arc<proto::SubscribeTicksResponse>| Ok((*message).clone()));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn subscribe_bars(
        &self,
        _: Request<proto::SubscribeBarsRequest>,
    ) -> Result<Response<Self::SubscribeBarsStream>, Status> {
        Err(Status::unimplemented("bars"))
    }

    async fn get_replay_window(
        &self,
        _: Request<proto::GetReplayWindowRequest>,
    ) -> Result<Response<proto::GetReplayWindowResponse>, Status> {
        Err(Status::unimplemented("window"))
    }
}

async fn plain(ticks: usize, columns: bool, channel: usize) -> Result<(), Problem> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let subscribers = Subscribers::default();
    let service = LiveServiceServer::new(Plain { subscribers: subscribers.clone(), channel });
    let serving = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    say_port(port)?;
    let mut tape = Tape::new(100, 1e6);
    let mut seq = 0;
    while let Some(count) = tokio::task::spawn_blocking(told).await? {
        for _ in 0..count {
            let trades: Vec<_> = tape.by_ref().take(ticks).collect();
            let event = if columns {
                let mut batch = crate::ticks::columns(&trades);
                // As complete as the server's columns, and names are told once.
                for instrument in &mut batch.instruments {
                    (instrument.instrument_id, instrument.venue, instrument.symbol) = (7, String::new(), String::new());
                }
                batch.log_seq_delta = trades.iter().map(|_| 1).collect();
                batch.receive_time_unix_nano_delta = batch.event_time_unix_nano_delta.clone();
                Event::Columns(batch)
            } else {
                let mut batch = rows(&trades);
                for (tick, trade) in batch.ticks.iter_mut().zip(&trades) {
                    // As complete as the server's rows.
                    seq += 1;
                    tick.instrument_id = trade.instrument + 1;
                    tick.log_seq = seq;
                    tick.receive_time = tick.event_time;
                    tick.origin = proto::Origin::Live as i32;
                    tick.action = proto::Action::New as i32;
                }
                Event::Rows(batch)
            };
            let message = Arc::new(proto::SubscribeTicksResponse { cursor: vec![7; 20].into(), event: Some(event) });
            let subscribers = subscribers.lock().expect("nobody panics").clone();
            for subscriber in &subscribers {
                // A full channel makes everybody wait: nothing is lost here either.
                let _ = subscriber.send(message.clone()).await;
            }
        }
    }
    Ok(())
}
