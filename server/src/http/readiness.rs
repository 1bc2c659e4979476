//! Whether the server serves, and what it depends on.

use serde::Serialize;

/// The state of everything that the server depends on, as `/readyz` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether the server is stopping.
    pub draining: bool,
    /// How many entries of the log the answers are behind.
    pub lag: u64,
    /// What the server depends on, in a fixed order.
    pub dependencies: Vec<Dependency>,
}

/// Something that the server depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// Its role: `store`, `bus`, `hub`.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What there is to say about it. Empty if nothing; never a secret, a path or SQL.
    pub detail: String,
}

/// How a dependency is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Up,
    /// It does not work as it should, and calls are served all the same.
    Degraded,
    /// It does not work, and calls fail.
    Down,
}

impl Dependency {
    /// One that works.
    pub fn up(name: &'static str, detail: impl Into<String>) -> Dependency {
        Dependency { name, state: State::Up, detail: detail.into() }
    }

    /// One that does not work.
    pub fn down(name: &'static str, detail: impl Into<String>) -> Dependency {
        Dependency { name, state: State::Down, detail: detail.into() }
    }
}

impl Readiness {
    /// Whether calls are served.
    pub fn is_ready(&self) -> bool {
        let down = |dependency: &Dependency| dependency.state == State::Down;
        !self.draining && !self.dependencies.iter().any(down)
    }

    /// The answer of `/readyz`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Answer<'a> {
            ready: bool,
            #[serde(flatten)]
            readiness: &'a Readiness,
        }
        let answer = Answer { ready: self.is_ready(), readiness: self };
        let mut json = serde_json::to_string(&answer).expect("names and text are always JSON");
        json.push('\n');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_down_or_stopping_is_not_ready() {
        let mut readiness = Readiness { draining: false, lag: 3, dependencies: vec![Dependency::up("store", "")] };
        assert_eq!(
            readiness.to_json(),
            "{\"ready\":true,\"draining\":false,\"lag\":3,\"dependencies\":[{\"name\":\"store\",\"state\":\"up\",\"detail\":\"\"}]}\n"
        );
        readiness.dependencies[0].state = State::Degraded;
        assert!(readiness.is_ready());
        readiness.dependencies[0].state = State::Down;
        assert!(!readiness.is_ready());
        readiness.dependencies.clear();
        readiness.draining = true;
        assert!(!readiness.is_ready());
    }
}
