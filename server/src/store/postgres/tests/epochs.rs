//! Databases that have become other ones.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::domain::{Clock, Cursor, UnixNanos};
use crate::store::{Appended, ChunkId, EpochStart, ManifestChange, ReplicaId, Store, StoreError, Verdict};

/// As a promotion leaves it: the head was written on another timeline.
const PROMOTED: &str = "UPDATE log_head SET timeline = timeline - 1";

/// As a restore of a dump leaves it: the head was written by another cluster.
const RESTORED: &str = "UPDATE log_head SET system_identifier = system_identifier + 1";

#[tokio::test]
async fn the_first_append_after_a_promotion_begins_an_epoch_and_stores_nothing() {
    let Some(server) = TestServer::find() else { return };
    for moved in [PROMOTED, RESTORED] {
        let database = server.make_database().await;
        let store = open(&server.url_of(&database, "")).await.unwrap();
        let other_replica = open(&server.url_of(&database, "")).await.unwrap();
        let fence = store.claim_producer(&producer()).await.unwrap().fence;
        store.append(batch(fence, 1)).await.unwrap();
        execute(&mut server.connect(Some(&database)).await, moved).await;

        let Err(StoreError::EpochChanged(epoch)) = store.append(batch(fence, 2)).await else { panic!("{moved}") };
        assert_ne!(epoch, EPOCH);
        let head = store.head().await.unwrap();
        assert_eq!((head.epoch, head.position), (epoch, 3));
        let epochs = other_replica.epochs().await.unwrap();
        let expected = EpochStart { epoch, parent: Some(EPOCH), fork: 3, start_time: epochs[0].start_time };
        assert_eq!((epochs.len(), epochs[0]), (2, expected));

        // The other replica learns it too, and begins no further one. Claims of before are over.
        let told = other_replica.append(batch(fence, 2)).await;
        assert!(matches!(told, Err(StoreError::EpochChanged(known)) if known == epoch));
        let fenced = other_replica.append(Group { epoch, ..batch(fence, 2) }).await.unwrap();
        assert_eq!(fenced, Appended::Refused(vec![Verdict::Fenced]));
        let claim = store.claim_producer(&producer()).await.unwrap();
        assert_eq!(claim.last_batch_seq, 1);
        let appended = store.append(Group { epoch, ..batch(claim.fence, 2) }).await.unwrap();
        assert!(matches!(appended, Appended::Committed { first_seq: 4, .. }));
        assert_eq!(store.epochs().await.unwrap().len(), 2);
    }
    server.drop_databases().await;
}

#[tokio::test]
async fn a_promotion_is_noticed_without_writes_and_at_the_next_opening() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    let mut other = server.connect(Some(&database)).await;
    execute(&mut other, PROMOTED).await;
    let epoch = store.head().await.unwrap().epoch;
    assert_ne!(epoch, EPOCH);
    assert_eq!(store.head().await.unwrap().epoch, epoch);
    store.close().await;
    execute(&mut other, RESTORED).await;
    let store =
        PostgresStore::open(&server.url_of(&database, ""), PostgresOptions { seed: 8, ..options() }).await.unwrap();
    assert_ne!(store.head().await.unwrap().epoch, epoch);
    assert_eq!(store.epochs().await.unwrap().len(), 3);
    server.drop_databases().await;
}

#[tokio::test]
async fn chunks_and_changes_of_another_epoch_are_refused_until_the_manifest_is_read_again() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let store = open(&server.url_of(&database, "")).await.unwrap();
    store.manifest(0).await.unwrap();
    execute(&mut server.connect(Some(&database)).await, PROMOTED).await;
    let change = ManifestChange { hot_floor: 1, ..ManifestChange::default() };
    let Err(StoreError::EpochChanged(epoch)) = store.commit_manifest(change.clone()).await else { panic!("committed") };
    let read = store.chunk_bytes(&[ChunkId(1)]).await;
    assert!(matches!(read, Err(StoreError::EpochChanged(known)) if known == epoch));
    assert_eq!(store.manifest(0).await.unwrap().epoch, epoch);
    assert_eq!(store.chunk_bytes(&[ChunkId(1)]).await.unwrap(), []);
    store.commit_manifest(change).await.unwrap();
    server.drop_databases().await;
}

#[tokio::test]
async fn a_fork_that_the_identity_begins_too_is_one_and_knows_what_followers_share() {
    let Some(server) = TestServer::find() else { return };
    for moved in [None, Some(PROMOTED)] {
        let database = server.make_database().await;
        let store = open(&server.url_of(&database, "")).await.unwrap();
        store.append(group(3, "first")).await.unwrap();
        store.append(group(2, "second")).await.unwrap();
        if let Some(moved) = moved {
            execute(&mut server.connect(Some(&database)).await, moved).await;
        }
        let common = Cursor { epoch: EPOCH, position: 3 };
        for epoch in [Epoch(u64::MAX), Epoch(u64::MAX), Epoch(9)] {
            let head = store.fork_epoch(epoch, common).await.unwrap();
            assert_eq!((head.epoch, head.position), (Epoch(u64::MAX), 5));
        }
        let epochs = store.epochs().await.unwrap();
        assert_eq!((epochs.len(), epochs[0].parent, epochs[0].fork), (2, Some(EPOCH), 3));
    }
    server.drop_databases().await;
}

#[derive(Debug)]
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

#[tokio::test]
async fn the_lease_of_the_upkeep_has_one_holder_and_moves_when_it_ends() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let hands = Arc::new(Hands(AtomicI64::new(1_000)));
    let options = PostgresOptions { clock: Some(hands.clone()), ..options() };
    let store = PostgresStore::open(&server.url_of(&database, ""), options).await.unwrap();
    let (first, second) = (ReplicaId(u64::MAX), ReplicaId(2));
    // At a time, one asks: whether it leads then.
    let steps = [
        (1_000, first, true),
        (1_000, second, false),
        (1_050, first, true),
        (1_100, second, false),
        (1_149, second, false),
        (1_150, second, true),
        (1_150, first, false),
        // The clock was set back: a lease from the future has ended.
        (700, first, true),
        (700, second, false),
    ];
    for (number, (now, replica, leads)) in steps.into_iter().enumerate() {
        hands.0.store(now, Ordering::SeqCst);
        assert_eq!(store.lead(replica, Duration::from_nanos(100)).await.unwrap(), leads, "step {number}");
    }
    // By the database's own clock.
    let store = open(&server.url_of(&database, "")).await.unwrap();
    assert!(store.lead(second, Duration::from_secs(600)).await.unwrap());
    assert!(!store.lead(first, Duration::from_secs(600)).await.unwrap());
    server.drop_databases().await;
}

#[tokio::test]
async fn where_the_identity_is_hidden_the_store_works_without_it() {
    let Some(server) = TestServer::find() else { return };
    let database = server.make_database().await;
    let user = format!("{database}_user");
    let mut admin = server.connect(Some(&database)).await;
    execute(&mut admin, &format!("CREATE ROLE {user} LOGIN")).await;
    execute(&mut admin, &format!("GRANT ALL ON SCHEMA public TO {user}")).await;
    execute(&mut admin, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC").await;
    let url = server.url_of(&database, &format!("user={user}"));
    let store = open(&url).await.unwrap();
    store.append(group(1, "bytes")).await.unwrap();
    store.close().await;
    // Told later, it is taken down and begins no epoch; hidden again, what is known is not compared.
    execute(&mut admin, &format!("GRANT EXECUTE ON FUNCTION pg_control_system() TO {user}")).await;
    open(&url).await.unwrap().close().await;
    let known: bool =
        sqlx::query_scalar("SELECT timeline IS NOT NULL FROM log_head").fetch_one(&mut admin).await.unwrap();
    assert!(known);
    execute(&mut admin, &format!("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM {user}")).await;
    execute(&mut admin, PROMOTED).await;
    let store = open(&url).await.unwrap();
    assert_eq!(store.head().await.unwrap().epoch, EPOCH);
    assert_eq!(store.epochs().await.unwrap().len(), 1);
    execute(&mut admin, &format!("DROP OWNED BY {user}")).await;
    server.drop_databases().await;
    execute(&mut server.connect(None).await, &format!("DROP ROLE {user}")).await;
}
