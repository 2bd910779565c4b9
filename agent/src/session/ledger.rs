//! What was said to the coordinator and what it acknowledged, so that each message says only
//! what is new. Pure.

use ollama_coordinator_common::id::{InstanceId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};

use super::state::Coordinator;

/// The account of one session.
#[derive(Debug)]
pub struct Ledger {
    session: SessionId,
    epoch: Option<u64>,
    seq: u64,
    coordinator: Option<InstanceId>,
    acknowledged: Option<RuntimeReport>,
    /// A restarted coordinator gets the whole report with the next heartbeat, which is spread.
    owes_whole_report: bool,
}

impl Ledger {
    /// Opens the account of a session that has said nothing.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            epoch: None,
            seq: 0,
            coordinator: None,
            acknowledged: None,
            owes_whole_report: false,
        }
    }

    /// Returns whose account it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Returns the epoch that was granted last.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Notes that a registration was accepted, and the report that came with it.
    pub fn granted(&mut self, epoch: u64, instance: InstanceId, report: Option<RuntimeReport>) {
        self.epoch = Some(epoch);
        self.coordinator = Some(instance);
        self.acknowledged = report;
        self.owes_whole_report = false;
    }

    /// Returns the next heartbeat, without load figures; a report goes with it when it has news.
    pub fn heartbeat(&mut self, report: Option<RuntimeReport>) -> HeartbeatRequest {
        self.seq += 1;
        HeartbeatRequest {
            session: Some(self.session),
            epoch: self.epoch,
            seq: Some(self.seq),
            draining: None,
            paused: None,
            runtime: report.filter(|report| self.acknowledged.as_ref() != Some(report)),
            metrics: None,
        }
    }

    /// Notes that a heartbeat was accepted, and the news that went with it.
    pub fn renewed(
        &mut self,
        epoch: u64,
        instance: InstanceId,
        news: Option<RuntimeReport>,
    ) -> Coordinator {
        if news.is_some() {
            self.acknowledged = news;
            self.owes_whole_report = false;
        }
        self.epoch = Some(epoch);
        if self.coordinator == Some(instance) {
            return Coordinator::Same;
        }
        self.coordinator = Some(instance);
        self.acknowledged = None;
        self.owes_whole_report = true;
        Coordinator::Restarted
    }

    /// Returns whether a report should not wait for the next heartbeat: it is about what can be
    /// served, not about what is in memory, and not what a restarted coordinator gets anyhow.
    pub fn is_urgent(&self, report: &RuntimeReport) -> bool {
        if self.owes_whole_report {
            return false;
        }
        match &self.acknowledged {
            Some(known) => !known.serves_the_same_as(report),
            None => report.status == RuntimeStatus::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model};

    #[test]
    fn restarted_coordinator_is_owed_the_whole_report() {
        let known = RuntimeReport {
            status: RuntimeStatus::Running,
            ..RuntimeReport::default()
        };
        let [before, after] = [1, 2].map(InstanceId::from_u128);
        let mut ledger = Ledger::new(SessionId::from_u128(1));
        ledger.granted(1, before, Some(known.clone()));
        let beat = ledger.heartbeat(Some(known.clone()));
        assert_eq!(
            (beat.seq, beat.epoch, beat.runtime),
            (Some(1), Some(1), None)
        );

        assert_eq!(ledger.renewed(1, after, None), Coordinator::Restarted);

        assert!(!ledger.is_urgent(&known), "it goes with the next heartbeat");
        let beat = ledger.heartbeat(Some(known.clone()));
        assert_eq!((beat.seq, beat.runtime.as_ref()), (Some(2), Some(&known)));
        assert_eq!(ledger.renewed(1, after, beat.runtime), Coordinator::Same);
        assert_eq!(ledger.heartbeat(Some(known)).runtime, None);
    }

    #[test]
    fn only_what_changes_routing_is_urgent() {
        let known = RuntimeReport {
            status: RuntimeStatus::Running,
            models: vec![Model::named("a")],
            ..RuntimeReport::default()
        };
        let loaded = LoadedModel {
            name: "a".to_owned(),
            size: None,
            size_vram: None,
            expires_at: None,
            context_length: None,
        };
        let busier = RuntimeReport {
            loaded_models: vec![loaded],
            ..known.clone()
        };
        let grown = RuntimeReport {
            models: vec![Model::named("a"), Model::named("b")],
            ..known.clone()
        };

        let unheard = Ledger::new(SessionId::from_u128(1));
        let mut heard = Ledger::new(SessionId::from_u128(1));
        heard.granted(1, InstanceId::from_u128(1), Some(known.clone()));

        assert!(!heard.is_urgent(&busier));
        assert!(heard.is_urgent(&grown));
        assert!(heard.is_urgent(&RuntimeReport::default()));
        assert!(unheard.is_urgent(&known));
        assert!(!unheard.is_urgent(&RuntimeReport::default()));
    }
}
