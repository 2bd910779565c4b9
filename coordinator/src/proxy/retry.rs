//! Whether a request may be tried once more: a share of all requests, so that retries never
//! multiply the load of a fleet that is in trouble.

use std::sync::atomic::{AtomicI64, Ordering};

/// What one request adds, in hundredths of a retry: one retry for five requests.
const DEPOSIT: i64 = 20;
/// What one retry takes.
const PRICE: i64 = 100;
/// What is there at the start and kept at most: a burst of retries, as when a machine dies.
const MOST: i64 = 100 * PRICE;

/// An account that requests fill and retries empty.
#[derive(Debug)]
pub struct RetryBudget(AtomicI64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicI64::new(MOST))
    }
}

impl RetryBudget {
    /// Notes a request.
    pub fn deposit(&self) {
        // Once it is full, nothing is written: this is the usual case.
        if self.0.load(Ordering::Relaxed) < MOST {
            self.0.fetch_add(DEPOSIT, Ordering::Relaxed);
        }
    }

    /// Takes a retry from the account, if there is enough.
    pub fn withdraw(&self) -> bool {
        let take = |balance: i64| (balance >= PRICE).then(|| balance - PRICE);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawals(budget: &RetryBudget) -> i64 {
        let mut taken = 0;
        while budget.withdraw() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn burst_is_bounded_and_then_one_request_in_five_may_be_repeated() {
        let budget = RetryBudget::default();
        assert_eq!(withdrawals(&budget), MOST / PRICE);

        for _ in 0..50 {
            budget.deposit();
        }

        assert_eq!(withdrawals(&budget), 10);
    }

    #[test]
    fn account_does_not_grow_without_end() {
        let budget = RetryBudget::default();

        for _ in 0..100_000 {
            budget.deposit();
        }

        assert_eq!(withdrawals(&budget), MOST / PRICE);
    }

    #[test]
    fn full_account_takes_nothing_more() {
        let budget = RetryBudget::default();

        budget.deposit();
        assert_eq!(withdrawals(&budget), MOST / PRICE);
        for _ in 1..PRICE / DEPOSIT {
            budget.deposit();
        }

        assert!(!budget.withdraw(), "what did not fit in was not kept");
        budget.deposit();
        assert!(budget.withdraw());
    }
}
