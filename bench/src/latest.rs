//! The inner read of ListLatestTicks, from the view in memory, against an HGET of the same price from Redis on loopback:
//! what a cache of results in Redis could save.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tapefeed_server::app::SystemClock;
use tapefeed_server::bus::LocalBus;
use tapefeed_server::domain::{Action, Batch, Clock as _, Decimal, Epoch, NewTick, Side, Symbol, TradeId, Venue};
use tapefeed_server::ingest::{Sender, Submission};
use tapefeed_server::query::Selector;
use tapefeed_server::replica::{HOT_TICK_LIMIT, HUB_BYTES, Parts, Replica};
use tapefeed_server::store::{MemoryStore, ProducerId};
use tapefeed_server::tape::compactor::Policy;
use tapefeed_tests::redis_server::RedisServer;

use crate::figure::{Figure, quantile};

/// Instruments that have a latest price.
const INSTRUMENTS: usize = 100;

pub async fn run(quick: bool) -> Result<(), Box<dyn std::error::Error>> {
    let redis = RedisServer::start().await.ok_or("redis-server is missing: apt-get install redis-server")?;
    let mut connection = redis.connect().await?;
    let clock = Arc::new(SystemClock);
    let parts = Parts {
        store: Arc::new(MemoryStore::new(clock.clone(), Epoch(1))),
        bus: Arc::new(LocalBus::new()),
        prices: None,
        clock: clock.clone(),
        seed: 1,
        policy: Policy::default(),
        hub_bytes: HUB_BYTES,
        hot_tick_limit: HOT_TICK_LIMIT,
        chunk_cache_bytes: tapefeed_server::query::CHUNK_CACHE_BYTES,
        header_cache_bytes: tapefeed_server::tape::HEADER_CACHE_BYTES,
        bars_table: false,
        metrics: Default::default(),
    };
    let replica = Replica::start(parts).await?;
    let mut names = Vec::new();
    for number in 0..INSTRUMENTS {
        names.push((Venue::new("BENCH")?, Symbol::new(&format!("S{number}"))?));
    }
    let tick = |index: usize| NewTick {
        instrument: (index % INSTRUMENTS) as u32,
        event_time: clock.now(),
        receive_time: None,
        price: Decimal::new(10_000 + index as i64, -2).expect("a price"),
        quantity: None,
        side: Side::Buy,
        trade_id: TradeId::Number(index as u64),
        action: Action::New,
    };
    let batch =
        Batch { instruments: names.clone(), ticks: (0..INSTRUMENTS * 100).map(tick).collect(), ..Batch::default() };
    let producer = ProducerId::new("bench")?;
    let claim = replica.ingest.claim(&producer).await?;
    let sender = Sender::Producer { producer, fence: claim.fence, batch_seq: 1 };
    let receipt = replica.ingest.submit(Submission { batch, sender, backfill: false }).await?.await??;
    let query = replica.query.get();
    query.view(Some(receipt.cursor)).await?;
    let value = r#"{"log_seq":10000,"epoch":"0000000000000001","event_time":"2024-08-09T12:00:00.000000000Z","price":"199.99"}"#;
    for (venue, symbol) in &names {
        redis::cmd("HSET")
            .arg("bench:latest")
            .arg(format!("{venue}/{symbol}"))
            .arg(value)
            .exec_async(&mut connection)
            .await?;
    }

    let rounds = if quick { 2_000 } else { 20_000 };
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (venue, symbol) = &names[round * 7 % INSTRUMENTS];
        let selectors = [Selector { venue: Some(venue.clone()), symbol: Some(symbol.clone()) }];
        let begin = Instant::now();
        let answer = query.latest(&selectors, None).await?;
        own.push(micros(begin.elapsed()));
        assert_eq!(answer.latest.len(), 1);
        let field = format!("{venue}/{symbol}");
        let begin = Instant::now();
        let found: String = redis::cmd("HGET").arg("bench:latest").arg(&field).query_async(&mut connection).await?;
        peer.push(micros(begin.elapsed()));
        assert_eq!(found.len(), value.len());
    }
    replica.stop().await;
    for (metric, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (value, peer) = (quantile(&mut own, share), quantile(&mut peer, share));
        let figure = Figure {
            case: "one latest price, from the view",
            metric,
            unit: "us",
            value,
            peer: Some(("HGET over loopback", peer)),
            goal: Some(("faster than a round trip to Redis", value < peer)),
        };
        figure.print("latest");
    }
    Ok(())
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
