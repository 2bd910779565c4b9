//! What was measured of which program in which round.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use super::MANY;
use crate::peers::Peer;
use crate::table::median;

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Small,
    Rate,
    FirstChunk,
    Few,
    Many,
}

impl Subject {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 5] = [
        Self::Small,
        Self::Rate,
        Self::FirstChunk,
        Self::Few,
        Self::Many,
    ];
}

impl Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "small requests",
            Self::Rate => "small requests at a fixed rate",
            Self::FirstChunk => "time to first chunk",
            Self::Few => "100 streams",
            Self::Many => "1,000 streams",
        })
    }
}

/// A figure of one program: times in microseconds, memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Processor time per small request over so many connections.
    Cpu(usize),
    /// Small requests answered per second over so many connections.
    PerSecond(usize),
    RateP50,
    RateP99,
    FirstChunk,
    /// Processor time per chunk of so many streams.
    ChunkCpu(u32),
    /// Chunks per second of so many streams.
    ChunksPerSecond(u32),
    TransitP50,
    TransitP99,
    IdleMemory,
    /// After the most connections.
    LoadedMemory,
    /// While the most streams go on.
    StreamsMemory,
    /// Processors' worth of work of others meanwhile.
    Foreign(Subject),
}

impl Figure {
    /// Returns what it is measured with; memory is read between two measures.
    pub(crate) fn subject(self) -> Option<Subject> {
        match self {
            Self::Cpu(_) | Self::PerSecond(_) => Some(Subject::Small),
            Self::RateP50 | Self::RateP99 => Some(Subject::Rate),
            Self::FirstChunk => Some(Subject::FirstChunk),
            Self::TransitP50 | Self::TransitP99 => Some(Subject::Few),
            Self::ChunkCpu(streams) | Self::ChunksPerSecond(streams) => Some(match streams {
                MANY => Subject::Many,
                _ => Subject::Few,
            }),
            Self::Foreign(subject) => Some(subject),
            Self::IdleMemory | Self::LoadedMemory | Self::StreamsMemory => None,
        }
    }
}

/// All figures, and what could not be measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rounds: BTreeMap<(Figure, Peer), BTreeMap<u64, f64>>,
    notes: BTreeSet<String>,
}

impl Figures {
    /// Keeps what came out in a round.
    pub(crate) fn add(&mut self, figure: Figure, peer: Peer, round: u64, value: f64) {
        let rounds = self.rounds.entry((figure, peer)).or_default();
        rounds.insert(round, value);
    }

    /// Keeps why something was not measured.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.insert(note);
    }

    /// Returns what was not measured.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// Returns the median over the rounds.
    pub(crate) fn median(&self, figure: Figure, peer: Peer) -> Option<f64> {
        let rounds = self.rounds.get(&(figure, peer))?;
        Some(median(rounds.values().copied().collect()))
    }

    /// Returns the median of how many times `other`'s figure of the same round it is.
    pub(crate) fn ratio(&self, figure: Figure, peer: Peer, other: Peer) -> Option<f64> {
        self.against((figure, peer), (figure, other), |is, other| is / other)
    }

    /// Returns the median of what it adds to the figure without a proxy in the same round.
    pub(crate) fn added(&self, figure: Figure, peer: Peer) -> Option<f64> {
        let direct = (figure, Peer::Direct);
        self.against((figure, peer), direct, |is, direct| is - direct)
    }

    /// Returns by what per cent the cost of a request grows between so many connections.
    pub(crate) fn growth(&self, from: usize, to: usize, peer: Peer) -> Option<f64> {
        let (few, many) = ((Figure::Cpu(from), peer), (Figure::Cpu(to), peer));
        self.against(many, few, |many, few| (many / few - 1.0) * 100.0)
    }

    fn against(
        &self,
        one: (Figure, Peer),
        other: (Figure, Peer),
        compare: impl Fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let others = self.rounds.get(&other)?;
        let rounds = self.rounds.get(&one)?.iter();
        let compared: Vec<f64> = rounds
            .filter_map(|(round, is)| Some(compare(*is, *others.get(round)?)))
            .collect();
        (!compared.is_empty()).then(|| median(compared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut figures = Figures::default();
        for (round, ours, nginx) in [(0, 20.0, 10.0), (1, 40.0, 20.0), (2, 36.0, 12.0)] {
            figures.add(Figure::Cpu(64), Peer::Coordinator, round, ours);
            figures.add(Figure::Cpu(64), Peer::Nginx, round, nginx);
        }

        let ratio = figures.ratio(Figure::Cpu(64), Peer::Coordinator, Peer::Nginx);

        assert_eq!(ratio, Some(2.0));
        let missing = figures.ratio(Figure::Cpu(64), Peer::Haproxy, Peer::Nginx);
        assert_eq!(missing, None);
    }
}
