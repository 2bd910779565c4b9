//! What is remembered: fine rows of the last minutes, coarse ones of the day. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::history::{HistoryView, Resolution};
use tokio::time::Instant;

use super::series::{self, GAP, Row};

/// So much too early is in time: timers are sometimes late, and the next one is not.
const EARLY: Duration = Duration::from_millis(500);
/// From fine to coarse; the finest that fits is taken.
const TIERS: [Tier; 4] = [
    Tier::new(Span::new(2, 10), Span::new(60, 24 * 60)),
    Tier::new(Span::new(10, 60), Span::new(300, 24 * 60)),
    Tier::new(Span::new(16, 30), Span::new(600, 24 * 60)),
    Tier::new(Span::new(60, 30), Span::new(1_800, 24 * 60)),
];
const FLEET: Tier = Tier::new(Span::new(2, 15), Span::new(60, 7 * 24 * 60));

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) mono: Instant,
    pub(super) wall: DateTime<Utc>,
}

/// One agent at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) id: AgentId,
    pub(super) is_online: bool,
    /// All tokens that it has answered.
    pub(super) tokens: u64,
    pub(super) row: Row,
}

/// How far apart moments are and for how long they are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From one moment to the next.
    pub step: Duration,
    /// How long.
    pub length: Duration,
}

impl Span {
    const fn new(step_seconds: u64, minutes: u64) -> Self {
        Self {
            step: Duration::from_secs(step_seconds),
            length: Duration::from_mins(minutes),
        }
    }

    fn rows(self) -> usize {
        let rows = self.length.as_millis() / self.step.as_millis();
        usize::try_from(rows).unwrap_or(usize::MAX)
    }
}

/// How finely agents are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The last minutes.
    pub fine: Span,
    /// The last day.
    pub coarse: Span,
}

impl Tier {
    const fn new(fine: Span, coarse: Span) -> Self {
        Self { fine, coarse }
    }

    fn bytes_per_agent(self) -> usize {
        (self.fine.rows() + self.coarse.rows()) * size_of::<Row>() + size_of::<Track>()
    }

    fn for_agents(agents: usize, max_bytes: usize) -> Option<Self> {
        let fits = |tier: &Self| agents.saturating_mul(tier.bytes_per_agent()) <= max_bytes;
        TIERS.into_iter().find(fits)
    }
}

/// Everything that is remembered.
#[derive(Debug)]
pub(super) struct Archive {
    max_bytes: usize,
    tier: Option<Tier>,
    fleet: Track,
    fleet_clock: Clock,
    agents: BTreeMap<AgentId, Track>,
    clock: Clock,
}

impl Archive {
    pub(super) fn new(max_bytes: usize) -> Self {
        let tier = Tier::for_agents(0, max_bytes);
        Self {
            max_bytes,
            tier,
            fleet: Track::default(),
            fleet_clock: Clock::default(),
            agents: BTreeMap::new(),
            clock: Clock::default(),
        }
    }

    pub(super) fn tier(&self) -> Option<Tier> {
        self.tier
    }

    /// Writes down a moment of a fleet of so many agents. Samples are asked for when they are due;
    /// agents that are not among them are forgotten.
    pub(super) fn record(
        &mut self,
        now: Moment,
        fleet: Row,
        agents: usize,
        samples: impl FnOnce() -> Vec<Sample>,
    ) {
        let due = self.fleet_clock.due(FLEET, now);
        self.fleet.push(FLEET, fleet, due);
        let tier = self.tier_for(agents);
        if tier != self.tier {
            self.agents.clear();
            self.clock = Clock::default();
            self.tier = tier;
        }
        let Some(tier) = tier else {
            return;
        };
        let due = self.clock.due(tier, now);
        if due.fine == 0 {
            return;
        }
        let mut before = std::mem::take(&mut self.agents);
        for sample in samples() {
            let mut track = before.remove(&sample.id).unwrap_or_default();
            let row = track.complete(&sample, tier.fine.step);
            track.push(tier, row, due);
            self.agents.insert(sample.id, track);
        }
    }

    pub(super) fn of_fleet(&self, resolution: Resolution) -> HistoryView {
        let names = &series::OF_FLEET;
        view(
            Some(&self.fleet),
            names,
            (FLEET, resolution),
            &self.fleet_clock,
        )
    }

    pub(super) fn of_agent(&self, id: AgentId, resolution: Resolution) -> HistoryView {
        let tier = self.tier.unwrap_or(FLEET);
        let names = &series::OF_AGENT;
        view(self.agents.get(&id), names, (tier, resolution), &self.clock)
    }

    /// Keeps the tier while it fits and a finer one would not fit comfortably.
    fn tier_for(&self, agents: usize) -> Option<Tier> {
        let best = Tier::for_agents(agents, self.max_bytes);
        let comfortable = Tier::for_agents(agents + agents / 4, self.max_bytes);
        match self.tier {
            Some(now) if Some(now) != best && comfortable == Some(now) => Some(now),
            Some(_) | None => best,
        }
    }
}

/// How many rows are due: more than one after a pause, of which nothing is known.
#[derive(Debug, Clone, Copy)]
struct Due {
    fine: usize,
    coarse: usize,
}

/// When the last rows were written.
#[derive(Debug, Default)]
struct Clock {
    fine: Option<Moment>,
    coarse: Option<Moment>,
}

impl Clock {
    fn due(&mut self, tier: Tier, now: Moment) -> Due {
        Due {
            fine: due(&mut self.fine, tier.fine, now),
            coarse: due(&mut self.coarse, tier.coarse, now),
        }
    }
}

fn due(last: &mut Option<Moment>, span: Span, now: Moment) -> usize {
    let Some(before) = last else {
        *last = Some(now);
        return 1;
    };
    let elapsed = now.mono.saturating_duration_since(before.mono) + EARLY;
    let steps = elapsed.as_millis() / span.step.as_millis();
    if steps > 0 {
        *last = Some(now);
    }
    usize::try_from(steps).unwrap_or(usize::MAX)
}

/// The rows of one agent, or of the fleet; the last ones are of the clock's last moments.
#[derive(Debug, Default)]
struct Track {
    fine: VecDeque<Row>,
    coarse: VecDeque<Row>,
    sums: Mean,
    tokens: Option<u64>,
}

impl Track {
    #[expect(clippy::cast_precision_loss, reason = "numbers that are drawn")]
    fn complete(&mut self, sample: &Sample, step: Duration) -> Row {
        let before = self.tokens.replace(sample.tokens);
        if !sample.is_online {
            return GAP;
        }
        let mut row = sample.row;
        let tokens = before.map(|before| sample.tokens.saturating_sub(before));
        row[series::TOKENS] = tokens.map_or(f32::NAN, |tokens| tokens as f32 / step.as_secs_f32());
        row
    }

    fn push(&mut self, tier: Tier, row: Row, due: Due) {
        if due.fine > 0 {
            self.sums.add(&row);
            append(&mut self.fine, tier.fine.rows(), due.fine, row);
        }
        if due.coarse > 0 {
            let mean = std::mem::take(&mut self.sums).row();
            append(&mut self.coarse, tier.coarse.rows(), due.coarse, mean);
        }
    }
}

fn append(rows: &mut VecDeque<Row>, most: usize, due: usize, row: Row) {
    for _ in 1..due.min(most) {
        rows.push_back(GAP);
    }
    rows.push_back(row);
    while rows.len() > most {
        rows.pop_front();
    }
}

/// The mean of rows, leaving out what is unknown.
#[derive(Debug, Default)]
struct Mean {
    sums: [f32; GAP.len()],
    counts: [u16; GAP.len()],
}

impl Mean {
    fn add(&mut self, row: &Row) {
        for ((sum, count), value) in self.sums.iter_mut().zip(&mut self.counts).zip(row) {
            if !value.is_nan() {
                *sum += value;
                *count = count.saturating_add(1);
            }
        }
    }

    fn row(self) -> Row {
        let mut row = GAP;
        for ((value, sum), count) in row.iter_mut().zip(self.sums).zip(self.counts) {
            if count > 0 {
                *value = sum / f32::from(count);
            }
        }
        row
    }
}

fn view(
    track: Option<&Track>,
    names: &[&'static str],
    (tier, resolution): (Tier, Resolution),
    clock: &Clock,
) -> HistoryView {
    let none = VecDeque::new();
    let (span, rows, last) = match resolution {
        Resolution::Fine => (tier.fine, track.map(|it| &it.fine), clock.fine),
        Resolution::Coarse => (tier.coarse, track.map(|it| &it.coarse), clock.coarse),
    };
    let rows = rows.unwrap_or(&none);
    let series = names.iter().enumerate().map(|(column, name)| {
        let values = rows.iter().map(|row| Some(row[column]));
        let values = values.map(|value| value.filter(|value| !value.is_nan()));
        ((*name).to_owned(), values.collect())
    });
    HistoryView {
        step_ms: u64::try_from(span.step.as_millis()).unwrap_or(u64::MAX),
        length_ms: u64::try_from(span.length.as_millis()).unwrap_or(u64::MAX),
        end: last.map(|last| last.wall),
        series: series.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MIB: usize = 1 << 20;

    fn moment(start: Instant, seconds: u64) -> Moment {
        Moment {
            mono: start + Duration::from_secs(seconds),
            wall: DateTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn sample(id: AgentId, tokens: u64) -> Sample {
        let mut row = GAP;
        row[0] = 3.0;
        Sample {
            id,
            is_online: true,
            tokens,
            row,
        }
    }

    #[rstest]
    #[case(10, 64, Some(2))]
    #[case(1_000, 64, Some(2))]
    #[case(3_000, 64, Some(10))]
    #[case(9_000, 64, Some(16))]
    #[case(20_000, 64, Some(60))]
    #[case(100_000, 64, None)]
    #[case(100, 1, Some(16))]
    fn finest_tier_that_fits_is_taken(
        #[case] agents: usize,
        #[case] mib: usize,
        #[case] step: Option<u64>,
    ) {
        let tier = Tier::for_agents(agents, mib * MIB);

        let step = step.map(Duration::from_secs);
        assert_eq!(tier.map(|tier| tier.fine.step), step);
    }

    #[test]
    fn pause_is_a_gap_and_not_a_line() {
        let (start, id) = (Instant::now(), AgentId::new());
        let mut archive = Archive::new(64 * MIB);

        for seconds in [0, 2, 4, 10, 12] {
            let samples = || vec![sample(id, seconds * 10)];
            archive.record(moment(start, seconds), GAP, 1, samples);
        }

        let seen = archive.of_agent(id, Resolution::Fine);
        let is_known: Vec<bool> = seen.series["in_flight"]
            .iter()
            .map(Option::is_some)
            .collect();
        assert_eq!(is_known, [true, true, true, false, false, true, true]);
        assert_eq!(seen.series["tokens_per_second"][1], Some(10.0));
        assert_eq!(seen.end, Some(moment(start, 12).wall));
    }

    #[test]
    fn agents_are_looked_at_only_when_their_rows_are_due() {
        let (start, mut looks) = (Instant::now(), Vec::new());
        let mut archive = Archive::new(64 * MIB);

        for (seconds, agents) in [(0, 3_000), (2, 3_000), (10, 3_000), (12, 1_000_000)] {
            archive.record(moment(start, seconds), GAP, agents, || {
                looks.push(seconds);
                Vec::new()
            });
        }

        assert_eq!(looks, [0, 10]);
        let fleet = archive.of_fleet(Resolution::Fine);
        assert_eq!(fleet.series["queued"].len(), 7);
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_said() {
        let (start, id) = (Instant::now(), AgentId::new());
        let mut archive = Archive::new(64 * MIB);

        for step in 0..1_000 {
            archive.record(moment(start, step * 2), GAP, 1, || vec![sample(id, 0)]);
        }

        let fine = archive.of_agent(id, Resolution::Fine);
        let coarse = archive.of_agent(id, Resolution::Coarse);
        assert_eq!(fine.series["in_flight"].len(), 300);
        assert_eq!(coarse.series["in_flight"].len(), 34);
        assert_eq!(coarse.series["in_flight"][30], Some(3.0));
        archive.record(moment(start, 3_000), GAP, 0, Vec::new);
        assert!(archive.of_agent(id, Resolution::Fine).series["in_flight"].is_empty());
    }
}
