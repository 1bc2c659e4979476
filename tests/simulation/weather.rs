//! What the store has to suffer: latency at every place, failures before and after commits, and outages of one replica's
//! way to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::store::faults::{Fault, FaultAction};
use tapefeed_tests::stumbling::VIEW_MANIFEST;

/// How long a call waits for a store that is out of reach before it fails.
const OUT_OF_REACH: Duration = Duration::from_secs(2);

/// The weather over one replica and its store.
#[derive(Debug)]
pub struct Weather {
    dice: Mutex<SmallRng>,
    calm: AtomicBool,
    cut_off: AtomicBool,
    /// How many of a thousand calls fail, or take long.
    failing: u32,
    slow: u32,
}

impl Weather {
    /// Weather drawn from a seed.
    pub fn new(seed: u64) -> Arc<Weather> {
        let mut dice = SmallRng::seed_from_u64(seed);
        let (failing, slow) = (dice.random_range(0..30), dice.random_range(0..30));
        Arc::new(Weather {
            dice: Mutex::new(dice),
            calm: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            failing,
            slow,
        })
    }

    /// Nothing fails from now on.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.cut_off(false);
    }

    /// Whether the store cannot be reached.
    pub fn cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }
}

#[async_trait]
impl Fault for Weather {
    async fn hit(&self, point: &'static str) -> FaultAction {
        let mut waited = Duration::ZERO;
        while self.cut_off.load(Ordering::Relaxed) {
            if waited >= OUT_OF_REACH {
                return FaultAction::Fail;
            }
            let step = Duration::from_millis(50);
            tokio::time::sleep(step).await;
            waited += step;
        }
        let mut dice = self.dice.lock().expect("one thread");
        if !self.calm.load(Ordering::Relaxed) {
            let luck = dice.random_range(0..1_000);
            if luck < self.failing {
                return FaultAction::Fail;
            }
            if luck < self.failing + self.slow {
                return FaultAction::Delay(Duration::from_millis(dice.random_range(10..400)));
            }
        }
        match dice.random_range(0..4) {
            // A view that is made slowly lags behind its hub, as it does where there are many chunks.
            0..2 if point == VIEW_MANIFEST => FaultAction::Delay(Duration::from_millis(dice.random_range(5..150))),
            0 => FaultAction::Delay(Duration::from_millis(dice.random_range(1..4))),
            _ => FaultAction::Continue,
        }
    }
}
