//! Memory: without agents, and of each.

use crate::coordinator::Coordinator;
use crate::load::count;
use crate::machine::Foreign;
use crate::plan::show;
use crate::table::Aim;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;

/// Shows the memory of a coordinator without agents, and returns it.
pub(crate) fn idle(coordinator: &Coordinator) -> u64 {
    let memory = coordinator.process.memory();
    let is = count(memory) / MIB;
    show(
        &Foreign::watch(),
        "memory without agents",
        format!("{is:.1} MiB"),
        String::new(),
        Aim::AtMost {
            aim: 15.0,
            is,
            unit: " MiB",
        },
    );
    memory
}

/// Shows how many agents fit into a GiB, by what `agents` of them take above `empty`.
pub(crate) fn per_agent(coordinator: &Coordinator, empty: u64, agents: u64) {
    let memory = coordinator.process.memory();
    let each = count(memory.saturating_sub(empty)) / count(agents);
    let is = GIB / each.max(1.0);
    show(
        &Foreign::watch(),
        &format!("agents per GiB, at {agents}"),
        format!(
            "{is:.0} ({each:.0} B each; {:.0} MiB in all)",
            count(memory) / MIB
        ),
        String::new(),
        Aim::AtLeast {
            aim: 500_000.0,
            is,
            unit: "",
        },
    );
}
