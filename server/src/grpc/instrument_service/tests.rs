//! The calls as a client makes them.

use tonic::{Code, Request};

use super::InstrumentService;
use crate::domain::{Cursor, Epoch, Published};
use crate::grpc::proto;
use crate::grpc::proto::instrument_service_server::InstrumentService as _;
use crate::ingest::import::Limits;
use crate::ingest::import::tests::Bench;
use crate::ingest::import::tests::published::{begin_run, details, submit};
use crate::query::tests::world::{World, tick};

async fn service() -> InstrumentService {
    let mut world = World::new(&[("B", "X"), ("A", "Y")], 0).await;
    let ticks = [(7, "1.25", Some("10")), (5, "3", None), (6, "2.5", Some("0.125"))];
    let ticks = ticks.map(|(time, price, quantity)| tick(0, time, price, quantity));
    world.append(ticks.into()).await;
    world.publish().await;
    InstrumentService::new(world.stop())
}

#[tokio::test]
async fn an_instrument_is_given_with_its_ends_and_decimals() {
    let service = service().await;
    let request = |venue: &str, symbol: &str| {
        Request::new(proto::GetInstrumentRequest {
            venue: venue.into(),
            symbol: symbol.into(),
            min_cursor: Default::default(),
        })
    };
    let found = service.get_instrument(request("B", "X")).await.unwrap().into_inner();
    let position = Cursor { epoch: Epoch(77), position: 3 };
    assert_eq!(found.as_of, bytes::Bytes::from(position));
    let found = found.instrument.unwrap();
    assert_eq!((found.instrument_id, found.venue.as_str(), found.symbol.as_str()), (1, "B", "X"));
    assert_eq!((found.tick_count, found.price_decimals, found.quantity_decimals), (3, 2, 3));
    let ends = [found.first_tick, found.last_tick].map(|tick| tick.unwrap().log_seq);
    assert_eq!(ends, [2, 1]);

    let empty = service.get_instrument(request("A", "Y")).await.unwrap().into_inner();
    let empty = empty.instrument.unwrap();
    assert_eq!((empty.tick_count, empty.first_tick, empty.last_tick), (0, None, None));
    let cases = [
        ("unknown", request("A", "X"), Code::NotFound),
        ("no venue", request("", "X"), Code::InvalidArgument),
        ("all symbols", request("A", "*"), Code::InvalidArgument),
    ];
    for (name, request, code) in cases {
        let status = service.get_instrument(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
    }
}

#[tokio::test]
async fn instruments_are_listed_in_pages() {
    let service = service().await;
    for symbol in ["", "*"] {
        let mut request = proto::ListInstrumentsRequest { symbol: symbol.into(), page_size: 1, ..Default::default() };
        let first = service.list_instruments(Request::new(request.clone())).await.unwrap();
        let first = first.into_inner();
        assert_eq!(first.instruments[0].symbol, "Y");
        request.page_token = first.next_page_token;
        let second = service.list_instruments(Request::new(request.clone())).await.unwrap();
        let second = second.into_inner();
        assert_eq!((second.instruments[0].symbol.as_str(), second.next_page_token.as_str()), ("X", ""));
        request.venue = "A".into();
        let other = service.list_instruments(Request::new(request)).await.unwrap_err();
        assert_eq!(other.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn instruments_come_with_what_their_venue_says() {
    let bench = Bench::new(Limits::default()).await;
    begin_run(&bench, "r").await;
    let told = vec![(0, details(19_943, "OLD")), (0, details(19_944, "BRPETRACNPR6")), (2, details(19_944, ""))];
    let published = Published { bars: Vec::new(), details: told };
    submit(&bench, "r", 1, &[("B3", "PETR4"), ("B3", "VALE3"), ("B3", "ZERO")], published, &[]).await;
    let service = InstrumentService::new(bench.replica.query.clone());
    let petr4 = proto::InstrumentDetails {
        isin: "BRPETRACNPR6".into(),
        issuer: "PETROBRAS".into(),
        share_class: "PN  EJ N1".into(),
        currency: "R$".into(),
        as_of_date: "2024-08-09".into(),
    };
    let request = proto::GetInstrumentRequest { venue: "B3".into(), symbol: "PETR4".into(), ..Default::default() };
    let one = service.get_instrument(Request::new(request)).await.unwrap().into_inner().instrument.unwrap();
    assert_eq!((one.tick_count, one.details.as_ref()), (0, Some(&petr4)));
    let all = service.list_instruments(Request::new(Default::default())).await.unwrap().into_inner();
    let found: Vec<_> = all.instruments.into_iter().map(|one| one.details).collect();
    let empty = proto::InstrumentDetails { isin: String::new(), ..petr4.clone() };
    assert_eq!(found, [Some(petr4), None, Some(empty)]);
}
