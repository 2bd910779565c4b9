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

/// Who opens a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Opener {
    /// A browser of the agent's own user: the desktop is given it, where others see it.
    Own,
    /// Whoever has it: it was shown to somebody who asked for it.
    Anybody,
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
    pub(crate) fn fresh(&self, opener: Opener) -> PanelLink {
        let ticket = AgentSecret::generate();
        let now = Instant::now();
        self.tickets.lock().issue(&ticket, opener, now);
        let url = format!("{}/open/{}", self.url, ticket.expose());
        PanelLink { url }
    }

    /// Returns whether a ticket is good for who shows it, which it is once.
    pub(super) fn spend(&self, ticket: &str, shown_by: Opener) -> bool {
        let now = Instant::now();
        self.tickets.lock().spend(ticket, shown_by, now)
    }
}

/// The tickets that have not been used, oldest first. Pure.
#[derive(Debug, Default)]
struct Tickets(VecDeque<Ticket>);

#[derive(Debug)]
struct Ticket {
    hash: SecretHash,
    opener: Opener,
    until: Instant,
}

impl Tickets {
    fn issue(&mut self, ticket: &AgentSecret, opener: Opener, now: Instant) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Ticket {
            hash: ticket.hash(),
            opener,
            until: now + GOOD_FOR,
        });
    }

    fn spend(&mut self, ticket: &str, shown_by: Opener, now: Instant) -> bool {
        self.0.retain(|ticket| now < ticket.until);
        let Ok(ticket) = ticket.parse::<AgentSecret>() else {
            return false;
        };
        let hash = ticket.hash();
        let is_good = |known: &Ticket| {
            known.hash == hash && (shown_by == Opener::Own || known.opener == Opener::Anybody)
        };
        let place = self.0.iter().position(is_good);
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
            tickets.issue(ticket, Opener::Anybody, now);
        }
        let [soon, last_moment, late] = issued;

        assert!(tickets.spend(soon.expose(), Opener::Own, now));
        assert!(!tickets.spend(soon.expose(), Opener::Own, now));
        let end = now + GOOD_FOR;
        assert!(tickets.spend(
            last_moment.expose(),
            Opener::Own,
            end - Duration::from_millis(1)
        ));
        assert!(!tickets.spend(late.expose(), Opener::Own, end));
        let unknown = AgentSecret::generate();
        for ticket in ["", unknown.expose()] {
            assert!(!tickets.spend(ticket, Opener::Own, now));
        }
    }

    #[test]
    fn ticket_for_the_own_user_is_neither_good_for_others_nor_lost_by_their_tries() {
        let (now, mut tickets) = (Instant::now(), Tickets::default());
        let ticket = AgentSecret::generate();
        tickets.issue(&ticket, Opener::Own, now);

        assert!(!tickets.spend(ticket.expose(), Opener::Anybody, now));
        assert!(tickets.spend(ticket.expose(), Opener::Own, now));
    }

    #[test]
    fn no_number_of_links_takes_more_room() {
        let (now, mut tickets) = (Instant::now(), Tickets::default());
        let first = AgentSecret::generate();
        tickets.issue(&first, Opener::Anybody, now);

        for _ in 0..MOST {
            tickets.issue(&AgentSecret::generate(), Opener::Anybody, now);
        }

        assert_eq!(tickets.0.len(), MOST);
        assert!(!tickets.spend(first.expose(), Opener::Own, now));
    }
}
