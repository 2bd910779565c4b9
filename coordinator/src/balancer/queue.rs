//! Who waits for a model: clients in turn, each client's requests in the order they came. Pure.

use std::collections::{HashMap, VecDeque};

/// Names one request that waits.
pub type TicketId = u64;

/// The requests that wait for one model.
#[derive(Debug, Default)]
pub struct FairQueue {
    /// The clients that wait, the next one to be served first.
    turns: VecDeque<u64>,
    by_client: HashMap<u64, VecDeque<TicketId>>,
    len: usize,
}

impl FairQueue {
    /// Returns how many requests wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a request behind those of its client.
    pub fn push(&mut self, client: u64, ticket: TicketId) {
        let own = self.by_client.entry(client).or_default();
        if own.is_empty() {
            self.turns.push_back(client);
        }
        own.push_back(ticket);
        self.len += 1;
    }

    /// Returns the next request that `may` be served, without taking it.
    pub fn next(&self, mut may: impl FnMut(TicketId) -> bool) -> Option<TicketId> {
        let waiting = self
            .turns
            .iter()
            .filter_map(|client| self.by_client.get(client));
        waiting.flatten().copied().find(|ticket| may(*ticket))
    }

    /// Takes a request because it is served: its client stands at the end of the line then.
    pub fn serve(&mut self, client: u64, ticket: TicketId) {
        if self.remove(client, ticket) && self.by_client.contains_key(&client) {
            self.turns.retain(|other| *other != client);
            self.turns.push_back(client);
        }
    }

    /// Takes a request that waits no more; returns whether it did.
    pub fn remove(&mut self, client: u64, ticket: TicketId) -> bool {
        let Some(own) = self.by_client.get_mut(&client) else {
            return false;
        };
        let Some(index) = own.iter().position(|other| *other == ticket) else {
            return false;
        };
        own.remove(index);
        self.len -= 1;
        if own.is_empty() {
            self.by_client.remove(&client);
            self.turns.retain(|other| *other != client);
        }
        true
    }

    /// Returns how many requests are served up to and with this one if nothing else happens.
    pub fn position(&self, client: u64, ticket: TicketId) -> Option<usize> {
        let own = self.by_client.get(&client)?;
        let rounds = own.iter().position(|other| *other == ticket)?;
        let mut before = 0;
        let mut is_behind = false;
        for other in &self.turns {
            let waiting = self.by_client.get(other).map_or(0, VecDeque::len);
            if *other == client {
                is_behind = true;
                before += rounds;
            } else {
                before += waiting.min(rounds + usize::from(!is_behind));
            }
        }
        Some(before + 1)
    }

    /// Returns all requests that wait, clients in turn.
    pub fn tickets(&self) -> Vec<TicketId> {
        let waiting = self
            .turns
            .iter()
            .filter_map(|client| self.by_client.get(client));
        waiting.flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue(tickets: &[(u64, TicketId)]) -> FairQueue {
        let mut queue = FairQueue::default();
        for (client, ticket) in tickets {
            queue.push(*client, *ticket);
        }
        queue
    }

    fn served(queue: &mut FairQueue, clients: &[(u64, TicketId)]) -> Vec<TicketId> {
        let mut order = Vec::new();
        while let Some(ticket) = queue.next(|_| true) {
            let (client, _) = clients.iter().find(|(_, other)| *other == ticket).unwrap();
            queue.serve(*client, ticket);
            order.push(ticket);
        }
        order
    }

    #[test]
    fn client_with_many_requests_does_not_hold_up_the_others() {
        let tickets = [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)];

        let order = served(&mut queue(&tickets), &tickets);

        assert_eq!(order, [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn request_that_may_not_be_served_now_keeps_its_place() {
        let queue = queue(&[(1, 10), (1, 11), (2, 20)]);

        assert_eq!(queue.next(|ticket| ticket != 10), Some(11));
        assert_eq!(queue.next(|ticket| ticket >= 20), Some(20));
        assert_eq!(queue.next(|_| false), None);
        assert_eq!(queue.position(1, 10), Some(1));
    }

    proptest! {
        #[test]
        fn position_tells_the_order_of_service(
            clients in proptest::collection::vec(0_u64..5, 1..30),
            left in proptest::collection::vec(any::<bool>(), 30),
        ) {
            let mut tickets: Vec<(u64, TicketId)> = clients.into_iter().zip(0..).collect();
            let mut queue = queue(&tickets);
            tickets.retain(|(client, ticket)| {
                let leaves = left[usize::try_from(*ticket).unwrap()];
                assert_eq!(leaves && queue.remove(*client, *ticket), leaves);
                !leaves
            });
            let mut told: Vec<(usize, TicketId)> = tickets
                .iter()
                .map(|(client, ticket)| (queue.position(*client, *ticket).unwrap(), *ticket))
                .collect();
            told.sort_unstable();
            prop_assert_eq!(queue.len(), tickets.len());

            let order = served(&mut queue, &tickets);

            let told: Vec<TicketId> = told.into_iter().map(|(_, ticket)| ticket).collect();
            prop_assert_eq!(order, told);
            prop_assert!(queue.is_empty() && queue.turns.is_empty() && queue.by_client.is_empty());
        }
    }
}
