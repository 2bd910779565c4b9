//! From the start of the program to readiness, with a registry to load.

use std::path::Path;

use crate::coordinator::{Coordinator, Leases};
use crate::load::count;
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::{Aim, median, millis};

/// Starts and kills the coordinator again and again on the registry in `dir`.
pub(crate) async fn measure(bench: &Bench, dir: &Path, agents: u64) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let (mut ready, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let coordinator = Coordinator::start(dir, Leases::Long).await?;
        cpu.push(millis(coordinator.process.cpu()));
        ready.push(millis(coordinator.ready_after));
        let known = coordinator.count("agents").await?;
        anyhow::ensure!(known == agents, "{known} of {agents} agents came back");
        coordinator.process.kill().await?;
    }
    let is = median(ready);
    // 60 ms for 10,000 agents, 500 ms for 100,000.
    let aim = 60.0_f64.max(count(agents) / 200.0);
    show(
        &foreign,
        &format!("restart to ready, {agents} agents"),
        format!("{is:.0} ms ({:.0} ms CPU)", median(cpu)),
        String::new(),
        Aim::AtMost {
            aim,
            is,
            unit: " ms",
        },
    );
    Ok(())
}
