//! The queue between the reader of the network and the consumer, bounded by ticks.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Event;
use crate::{Cursor, Error};

/// One event on its way to the consumer, and the cursor after it.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) event: Result<Event, Error>,
    pub(super) cursor: Option<Cursor>,
    /// The room that the event takes until it is taken. An error needs none: it is the last.
    _room: Option<OwnedSemaphorePermit>,
}

/// The consumer is gone.
#[derive(Debug)]
pub(super) struct ConsumerGone;

#[derive(Debug)]
pub(super) struct Sender {
    /// Unbounded in itself: `room` is the bound.
    events: mpsc::UnboundedSender<Delivery>,
    room: Arc<Semaphore>,
    capacity: u32,
}

#[derive(Debug)]
pub(super) struct Receiver(mpsc::UnboundedReceiver<Delivery>);

pub(super) fn bounded(capacity: u32) -> (Sender, Receiver) {
    let (events, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(capacity as usize));
    let sender = Sender { events, room, capacity };
    (sender, Receiver(receiver))
}

impl Sender {
    /// Waits for room: an event takes as much as it has ticks or bars, at least 1. One larger than the queue waits for all of it.
    pub(super) async fn push(&self, event: Event, cursor: Option<Cursor>) -> Result<(), ConsumerGone> {
        let ticks = match &event {
            Event::Ticks { ticks, .. } => u32::try_from(ticks.len()).unwrap_or(u32::MAX),
            Event::Bars { bars, .. } => u32::try_from(bars.len()).unwrap_or(u32::MAX),
            _ => 1,
        };
        let cost = ticks.clamp(1, self.capacity);
        let room = self.room.clone().acquire_many_owned(cost).await;
        self.send(Delivery { event: Ok(event), cursor, _room: Some(room.map_err(|_| ConsumerGone)?) })
    }

    /// Sends the last item.
    pub(super) fn fail(&self, error: Error) {
        // A consumer that is gone does not miss the error.
        let _ = self.send(Delivery { event: Err(error), cursor: None, _room: None });
    }

    fn send(&self, delivery: Delivery) -> Result<(), ConsumerGone> {
        self.events.send(delivery).map_err(|_| ConsumerGone)
    }
}

impl Receiver {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.0.poll_recv(context)
    }
}
