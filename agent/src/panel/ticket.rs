//! What opens the panel in a browser: links with a ticket, which is good once and for a short time
//! only, because others see links: among the arguments of the program that opens them, in logs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::secret::{AgentSecret, SecretHash};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const GOOD_FOR: Duration = Duration::from_mins(1);
/// More than anybody opens within that time.
const MOST: usize = 16;

/// Makes links that open the panel; clones make them for the same one.
#[derive(Debug, Clone)]
pub(crate) struct PanelLinks {
    url: String,
    tickets: Arc<Mutex<Tickets>>,
}

/// A link that opens the panel, once and soon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PanelLink {
    /// The whole URL.
    pub(crate) url: String,
}

impl PanelLinks {
    /// Makes links to the panel at `url`, which has no path.
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            tickets: Arc::default(),
        }
    }

    /// Returns a link that has not been used.
    pub(crate) fn fresh(&self) -> PanelLink {
        let ticket = AgentSecret::generate();
        self.tickets.lock().issue(&ticket, Instant::now());
        let url = format!("{}/open/{}", self.url, ticket.expose());
        PanelLink { url }
    }

    /// Returns whether a ticket is good, which it is once.
    pub(super) fn spend(&self, ticket: &str) -> bool {
        self.tickets.lock().spend(ticket, Instant::now())
    }
}

/// The tickets that have not been used, oldest first. Pure.
#[derive(Debug, Default)]
struct Tickets(VecDeque<(SecretHash, Instant)>);

impl Tickets {
    fn issue(&mut self, ticket: &AgentSecret, now: Instant) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((ticket.hash(), now + GOOD_FOR));
    }

    fn spend(&mut self, ticket: &str, now: Instant) -> bool {
        self.0.retain(|(_, until)| now < *until);
        let Ok(ticket) = ticket.parse::<AgentSecret>() else {
            return false;
        };
        let hash = ticket.hash();
        let place = self.0.iter().position(|(known, _)| *known == hash);
        place.is_some_and(|place| self.0.remove(place).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_is_good_once_and_for_a_minute() {
        let (now, mut tickets) = (Instant::now(), Tickets::default());
        let issued = [(); 3].map(|()| AgentSecret::generate());
        for ticket in &issued {
            tickets.issue(ticket, now);
        }
        let [soon, last_moment, late] = issued;

        assert!(tickets.spend(soon.expose(), now));
        assert!(!tickets.spend(soon.expose(), now));
        let end = now + GOOD_FOR;
        assert!(tickets.spend(last_moment.expose(), end - Duration::from_millis(1)));
        assert!(!tickets.spend(late.expose(), end));
        assert!(!tickets.spend("", now));
        assert!(!tickets.spend(AgentSecret::generate().expose(), now));
    }

    #[test]
    fn no_number_of_links_takes_more_room() {
        let (now, mut tickets) = (Instant::now(), Tickets::default());
        let first = AgentSecret::generate();
        tickets.issue(&first, now);

        for _ in 0..MOST {
            tickets.issue(&AgentSecret::generate(), now);
        }

        assert_eq!(tickets.0.len(), MOST);
        assert!(!tickets.spend(first.expose(), now));
    }
}
