//! Named cases of pages.

use super::world::{World, at, tick};
use crate::domain::{InstrumentId, Symbol, TimeRange, Venue};
use crate::query::page::TOKEN_LIFE;
use crate::query::{
    InstrumentFacts, InstrumentsRequest, Order, PageTokenInvalid, Selector, Span, Subject, TickPage, TicksError,
    TicksRequest,
};
use crate::store::Store;

const NAMES: [(&str, &str); 3] = [("A", "X"), ("B", "X"), ("A", "Y")];

fn range(start: Option<i64>, end: Option<i64>) -> Span {
    Span::Range(TimeRange::new(start.map(at), end.map(at)).unwrap())
}

fn first_page(subject: Subject, span: Span, order: Order, page_size: usize) -> TicksRequest {
    TicksRequest { subject, span, order, page_size, page_token: None, min_cursor: None }
}

/// Ten ticks of A X and B X: times 0 to 4, each time twice, the first six in chunks of two.
async fn ten_ticks() -> World {
    let mut world = World::new(&NAMES, 1_000).await;
    let ticks = (0..10).map(|n| tick(n as usize % 2, n / 2, "1.5", Some("2")));
    world.append(ticks.collect()).await;
    world.cut(InstrumentId(1), 3, 2).await;
    world.cut(InstrumentId(2), 3, 2).await;
    world.publish().await;
    world
}

/// All pages of a request: the positions of their ticks.
async fn walk(world: &World, mut request: TicksRequest) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    loop {
        let page = world.query.ticks(&request).await.unwrap();
        pages.push(seqs(&page));
        request.page_token = page.next_page_token;
        if request.page_token.is_none() {
            return pages;
        }
    }
}

fn seqs(page: &TickPage) -> Vec<u64> {
    page.ticks.iter().map(|tick| tick.log_seq).collect()
}

#[tokio::test]
async fn edge_cases_of_pages() {
    let world = ten_ticks().await;
    let (one, both) = (world.one(0), world.pooled(0));
    let (up, down) = (Order::Ascending, Order::Descending);
    let cases: [(&str, TicksRequest, &[&[u64]]); 12] = [
        ("start_eq_end", first_page(both.clone(), range(Some(2), Some(2)), up, 3), &[&[]]),
        ("end_beyond_tail", first_page(both.clone(), range(Some(3), Some(i64::MAX)), up, 9), &[&[7, 8, 9, 10]]),
        ("start_beyond_tail", first_page(both.clone(), range(Some(5), None), up, 9), &[&[]]),
        ("end_before_head", first_page(both.clone(), range(None, Some(0)), up, 9), &[&[]]),
        ("end_is_exclusive", first_page(both.clone(), range(None, Some(1)), up, 9), &[&[1, 2]]),
        ("page_1_walk", first_page(one.clone(), range(None, None), up, 1), &[&[1], &[3], &[5], &[7], &[9]]),
        ("page_ends_with_the_range", first_page(one.clone(), range(None, None), up, 5), &[&[1, 3, 5, 7, 9]]),
        ("descending_walk", first_page(one.clone(), range(Some(1), None), down, 2), &[&[9, 7], &[5, 3]]),
        ("descending_from_an_end", first_page(one, range(None, Some(3)), down, 2), &[&[5, 3], &[1]]),
        (
            "equal_times_across_pages",
            first_page(both.clone(), range(None, None), up, 3),
            &[&[1, 2, 3], &[4, 5, 6], &[7, 8, 9], &[10]],
        ),
        (
            "equal_times_descending",
            first_page(both, range(None, None), down, 3),
            &[&[10, 9, 8], &[7, 6, 5], &[4, 3, 2], &[1]],
        ),
        ("no_ticks_at_all", first_page(world.one(2), range(None, None), down, 3), &[&[]]),
    ];
    for (name, request, expected) in cases {
        assert_eq!(walk(&world, request).await, expected, "{name}");
    }
}

#[tokio::test]
async fn tokens_can_be_used_again_after_new_ticks_and_after_compaction() {
    let mut world = ten_ticks().await;
    let mut request = first_page(world.pooled(0), range(None, None), Order::Ascending, 4);
    let first = world.query.ticks(&request).await.unwrap();
    request.page_token = first.next_page_token.clone();
    for round in 0..4 {
        let second = world.query.ticks(&request).await.unwrap();
        assert_eq!((seqs(&second), second.as_of), (vec![5, 6, 7, 8], first.as_of), "round {round}");
        let mut third = request.clone();
        third.page_token = second.next_page_token;
        // The page size may change on the way.
        third.page_size = 9;
        assert_eq!(walk(&world, third).await, [[9, 10]], "round {round}");
        match round {
            // New ticks, one of them in the middle of the walk.
            0 => world.append(vec![tick(0, 2, "9", None), tick(1, 100, "9", None)]).await,
            // Everything goes to chunks, the late one to a late chunk.
            1 => {
                world.cut(InstrumentId(1), 9, 3).await;
                world.cut(InstrumentId(2), 9, 3).await;
            }
            // The day is merged, and the chunks that the first page came from are gone.
            _ => {
                world.tidy(InstrumentId(1), 2).await;
                world.tidy(InstrumentId(2), 100).await;
            }
        }
        world.publish().await;
        world.sweep().await;
    }
    let again = first_page(world.one(0), range(None, None), Order::Ascending, 9);
    assert_eq!(walk(&world, again).await, [[1, 3, 5, 11, 7, 9]]);
}

#[tokio::test]
async fn a_period_looks_back_from_the_first_pages_now() {
    let world = ten_ticks().await;
    world.set_now(4);
    let period = Span::Period(std::time::Duration::from_nanos(2));
    let mut request = first_page(world.one(0), period, Order::Ascending, 1);
    let first = world.query.ticks(&request).await.unwrap();
    assert_eq!((seqs(&first), first.now), (vec![5], at(4)));
    world.set_now(1_000);
    request.page_token = first.next_page_token;
    let second = world.query.ticks(&request).await.unwrap();
    assert_eq!((seqs(&second), second.now), (vec![7], at(4)));
    assert_eq!(second.next_page_token, None);
}

#[tokio::test]
async fn tokens_that_do_not_fit_say_why() {
    let world = ten_ticks().await;
    let asked = || first_page(world.one(0), range(None, None), Order::Ascending, 2);
    let page = world.query.ticks(&asked()).await.unwrap();
    let token = page.next_page_token;
    let with = |request: TicksRequest, token: &str| TicksRequest { page_token: Some(token.to_owned()), ..request };
    let fits = token.clone().unwrap();
    let other = World::new(&NAMES, 1_000).await;
    let instruments = InstrumentsRequest {
        selector: Selector { venue: None, symbol: None },
        page_size: 1,
        page_token: None,
        min_cursor: None,
    };
    let foreign_kind = world.query.list_instruments(&instruments).await.unwrap();
    let foreign_kind = foreign_kind.next_page_token.unwrap();
    use PageTokenInvalid::{Malformed, OtherRequest};
    let cases = [
        ("text", with(asked(), "hello"), Malformed),
        ("a cut token", with(asked(), &fits[1..]), Malformed),
        ("another method's", with(asked(), &foreign_kind), OtherRequest),
        ("another symbol", with(TicksRequest { subject: world.one(2), ..asked() }, &fits), OtherRequest),
        ("all venues", with(TicksRequest { subject: world.pooled(0), ..asked() }, &fits), OtherRequest),
        ("another range", with(TicksRequest { span: range(Some(0), None), ..asked() }, &fits), OtherRequest),
        ("another order", with(TicksRequest { order: Order::Descending, ..asked() }, &fits), OtherRequest),
    ];
    for (name, request, expected) in cases {
        match world.query.ticks(&request).await {
            Err(TicksError::PageToken(found)) => assert_eq!(found, expected, "{name}"),
            found => panic!("{name}: {found:?}"),
        }
    }
    let life = TOKEN_LIFE.as_nanos() as i64;
    world.set_now(1_000 + life);
    assert_eq!(seqs(&world.query.ticks(&with(asked(), &fits)).await.unwrap()), [5, 7]);
    world.set_now(1_001 + life);
    let expired = world.query.ticks(&with(asked(), &fits)).await;
    assert!(matches!(expired, Err(TicksError::PageToken(PageTokenInvalid::Expired))));
    other.renew(world.view().await.epoch());
    let moved = other.query.ticks(&with(asked(), &fits)).await;
    assert!(matches!(moved, Err(TicksError::PageToken(PageTokenInvalid::OtherLog))));
}

#[tokio::test]
async fn instruments_are_listed_by_venue_and_symbol_as_they_were() {
    let names = [("B", "X"), ("A", "Z"), ("A", "X"), ("C", "X")];
    let mut world = World::new(&names, 0).await;
    world.append(vec![tick(0, 5, "1.25", Some("0.5")), tick(0, 4, "100", None)]).await;
    world.publish().await;
    let select =
        |venue: &str, symbol: &str| Selector { venue: Venue::new(venue).ok(), symbol: Symbol::new(symbol).ok() };
    let cases = [
        (select("", ""), vec!["A X", "A Z", "B X", "C X"]),
        (select("A", ""), vec!["A X", "A Z"]),
        (select("", "X"), vec!["A X", "B X", "C X"]),
        (select("B", "X"), vec!["B X"]),
        (select("B", "Z"), vec![]),
    ];
    for page_size in 1..5 {
        for (selector, expected) in &cases {
            let mut request =
                InstrumentsRequest { selector: selector.clone(), page_size, page_token: None, min_cursor: None };
            let mut found = Vec::new();
            loop {
                let page = world.query.list_instruments(&request).await.unwrap();
                found.extend(page.instruments.iter().map(name));
                request.page_token = page.next_page_token;
                if request.page_token.is_none() {
                    break;
                }
            }
            assert_eq!(found, *expected, "{selector:?} by {page_size}");
        }
    }

    // What comes while somebody turns pages is not shown to him.
    let mut request = InstrumentsRequest { selector: select("", ""), page_size: 2, page_token: None, min_cursor: None };
    let first = world.query.list_instruments(&request).await.unwrap();
    let coming = ["B", "D"].map(|venue| (Venue::new(venue).unwrap(), Symbol::new("NEW").unwrap()));
    world.store.register(&coming).await.unwrap();
    world.query.registry().refresh().await.unwrap();
    world.append(vec![tick(0, 6, "9", None)]).await;
    world.publish().await;
    request.page_token = first.next_page_token;
    request.page_size = 9;
    let second = world.query.list_instruments(&request).await.unwrap();
    let names: Vec<String> = second.instruments.iter().map(name).collect();
    assert_eq!(names, ["B X", "C X"]);
    assert_eq!(second.as_of, first.as_of);
    let facts = &second.instruments[0];
    assert_eq!((facts.price_decimals, facts.quantity_decimals), (2, 1));
    assert_eq!(facts.tick_count, 2);
    assert_eq!(facts.last.as_ref(), Some(&world.ticks[0]));
}

fn name(facts: &InstrumentFacts) -> String {
    format!("{} {}", facts.instrument.venue, facts.instrument.symbol)
}
