//! Tells people how the tunnel is: each change once.

use std::mem::{Discriminant, discriminant};

use crate::coordinator::CoordinatorError;
use crate::error_chain;
use crate::status::LinkStatus;
use crate::status::writer::StatusWriter;

/// Follows the tunnel and writes the lines that an operator needs.
#[derive(Debug)]
pub(super) struct Narrator {
    status: StatusWriter,
    told: Option<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Up,
    Lost,
    Failed(Discriminant<CoordinatorError>),
}

impl Narrator {
    pub(super) fn new(status: StatusWriter) -> Self {
        Self { status, told: None }
    }

    /// Returns whether this follows a loss.
    pub(super) fn up(&mut self) -> bool {
        let before = self.told.replace(Told::Up);
        if before != Some(Told::Up) {
            tracing::info!("Tunnel is up, nothing has to be opened on this machine");
        }
        self.show(LinkStatus::TunnelUp);
        before.is_some_and(|before| before != Told::Up)
    }

    pub(super) fn lost(&mut self, error: Option<&hyper::Error>) {
        let error = error.map(|error| error_chain(error));
        tracing::warn!(error, "Tunnel lost, opening another");
        self.told = Some(Told::Lost);
        self.show(LinkStatus::TunnelDown);
    }

    pub(super) fn failed(&mut self, error: &CoordinatorError) {
        let told = Told::Failed(discriminant(error));
        let error = error_chain(error);
        if self.told.as_ref() == Some(&told) {
            tracing::debug!(error, "Still no tunnel");
        } else {
            tracing::warn!(
                error,
                "No tunnel, so the coordinator sends no requests here"
            );
            self.told = Some(told);
        }
        self.show(LinkStatus::TunnelDown);
    }

    /// Tells that nothing more is taken while `running` requests still run.
    pub(super) fn retired(&self, running: usize) {
        if running > 0 {
            tracing::info!(running, "Finishing the requests that run here");
        }
        self.show(LinkStatus::TunnelDown);
    }

    fn show(&self, link: LinkStatus) {
        self.status.write(|status| {
            let is_other = status.link != link;
            status.link = link;
            is_other
        });
    }
}
