//! What processes take, as the system says, looked at again and again.

use std::time::Duration;

use ollama_simulator::history::{Moment, Recorder};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PERIOD: Duration = Duration::from_millis(250);

/// What a process takes at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    pub(super) at: Moment,
    pub(super) memory_kib: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
}

/// Figures that are being taken.
pub(super) struct Figures {
    stop: CancellationToken,
    takers: JoinSet<(usize, Vec<Gauges>)>,
}

impl Figures {
    /// Looks at these processes from now on.
    pub(super) fn of(processes: &[u32], recorder: &Recorder) -> Self {
        let (stop, mut takers) = (CancellationToken::new(), JoinSet::new());
        for (index, process) in processes.iter().copied().enumerate() {
            let (recorder, stop) = (recorder.clone(), stop.clone());
            takers.spawn(async move {
                let mut taken = Vec::new();
                while stop.run_until_cancelled(sleep(PERIOD)).await.is_some() {
                    taken.push(of_process(process, recorder.now()));
                }
                (index, taken)
            });
        }
        Self { stop, takers }
    }

    /// Returns what was taken of each process, in their order.
    pub(super) async fn end(self) -> Vec<Vec<Gauges>> {
        self.stop.cancel();
        let mut all = self.takers.join_all().await;
        all.sort_by_key(|(index, _)| *index);
        all.into_iter().map(|(_, taken)| taken).collect()
    }
}

/// Looks at a process, which must run.
pub(super) fn of_process(process: u32, at: Moment) -> Gauges {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("the process runs");
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next());
        value
            .and_then(|value| value.parse().ok())
            .expect("it is a number")
    };
    let open = std::fs::read_dir(format!("/proc/{process}/fd"));
    Gauges {
        at,
        memory_kib: number("VmRSS:"),
        descriptors: open.expect("the process is ours").count() as u64,
        threads: number("Threads:"),
    }
}
