//! The tables of the peers, as Markdown: one per subject, a row per program.

use std::fmt::Write as _;

use super::figures::{Figure, Figures, Subject};
use super::{CONNECTIONS, FEW, MANY};
use crate::peers::{PEERS, Peer};

const MIB: f64 = 1_048_576.0;

/// Returns all tables, and below them what was not measured.
pub(crate) fn render(figures: &Figures) -> String {
    let mut lines = table(
        "CPU per small request, µs, and as a multiple of nginx's",
        "1 connection | 16 | 64 | 256 | 64 to 256 | Requests/s, 64 | Foreign CPUs",
        |peer| small_requests(figures, peer),
    );
    lines.extend(table(
        "Latency: small requests at 1,000/s, and the first chunk of one stream",
        "p50 | added | p99 | added | Foreign CPUs | First chunk p50 | added | Foreign CPUs",
        |peer| latencies(figures, peer),
    ));
    lines.extend(table(
        "Streams: 100 with a chunk every 5 ms each, 1,000 with one every 20 ms; CPU per chunk in µs",
        "100: CPU per chunk | Transit p50 | p99 | Foreign CPUs | 1,000: chunks/s of 50,000 | CPU per chunk | Foreign CPUs",
        |peer| streams(figures, peer),
    ));
    lines.extend(table(
        "Resident memory, MiB",
        "Idle | After 256 connections | With 1,000 streams",
        |peer| memory(figures, peer),
    ));
    lines.extend(figures.notes().map(|note| format!("- {note}")));
    lines.join("\n")
}

fn table(title: &str, columns: &str, cells: impl Fn(Peer) -> Vec<Option<String>>) -> Vec<String> {
    let rule = "---|".repeat(columns.split(" | ").count());
    let mut lines = vec![
        format!("**{title}**"),
        String::new(),
        format!("| | {columns} |"),
        format!("|---|{rule}"),
    ];
    for peer in PEERS {
        let cells = cells(peer);
        if cells.iter().any(Option::is_some) {
            let shown = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
            let shown: Vec<String> = cells.into_iter().map(shown).collect();
            lines.push(format!("| {} | {} |", peer.title(), shown.join(" | ")));
        }
    }
    lines.push(String::new());
    lines
}

fn small_requests(figures: &Figures, peer: Peer) -> Vec<Option<String>> {
    let cost = |connections| beside_nginx(figures, Figure::Cpu(connections), peer);
    let growth = figures.growth(CONNECTIONS[2], CONNECTIONS[3], peer);
    let per_second = figures.median(Figure::PerSecond(CONNECTIONS[2]), peer);
    let mut cells = CONNECTIONS.map(cost).to_vec();
    cells.push(growth.map(|growth| format!("{growth:+.0} %")));
    cells.push(whole(per_second));
    cells.push(foreign(figures, Subject::Small, peer));
    cells
}

fn latencies(figures: &Figures, peer: Peer) -> Vec<Option<String>> {
    let micros = |value: Option<f64>| value.map(|micros| format!("{micros:.0} µs"));
    let both = |figure| {
        let added = figures.added(figure, peer).filter(|_| peer != Peer::Direct);
        let added = added.map(|micros| format!("{micros:+.0} µs"));
        [micros(figures.median(figure, peer)), added]
    };
    let mut cells = Vec::new();
    cells.extend(both(Figure::RateP50));
    cells.extend(both(Figure::RateP99));
    cells.push(foreign(figures, Subject::Rate, peer));
    cells.extend(both(Figure::FirstChunk));
    cells.push(foreign(figures, Subject::FirstChunk, peer));
    cells
}

fn streams(figures: &Figures, peer: Peer) -> Vec<Option<String>> {
    let transit = |figure| {
        let transit = figures.median(figure, peer);
        transit.map(|micros| format!("{micros:.0} µs"))
    };
    vec![
        beside_nginx(figures, Figure::ChunkCpu(FEW), peer),
        transit(Figure::TransitP50),
        transit(Figure::TransitP99),
        foreign(figures, Subject::Few, peer),
        whole(figures.median(Figure::ChunksPerSecond(MANY), peer)),
        beside_nginx(figures, Figure::ChunkCpu(MANY), peer),
        foreign(figures, Subject::Many, peer),
    ]
}

fn memory(figures: &Figures, peer: Peer) -> Vec<Option<String>> {
    [
        Figure::IdleMemory,
        Figure::LoadedMemory,
        Figure::StreamsMemory,
    ]
    .map(|figure| {
        let bytes = figures.median(figure, peer);
        bytes.map(|bytes| format!("{:.0}", bytes / MIB))
    })
    .to_vec()
}

/// Returns a cost, and how many times nginx's it is.
fn beside_nginx(figures: &Figures, figure: Figure, peer: Peer) -> Option<String> {
    let mut cell = format!("{:.1}", figures.median(figure, peer)?);
    if let Some(ratio) = figures.ratio(figure, peer, Peer::Nginx) {
        write!(cell, ", {ratio:.2} x").ok()?;
    }
    Some(cell)
}

fn whole(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.0}"))
}

fn foreign(figures: &Figures, subject: Subject, peer: Peer) -> Option<String> {
    let processors = figures.median(Figure::Foreign(subject), peer);
    processors.map(|processors| format!("{processors:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_a_dash_and_has_its_reason_below() {
        let mut figures = Figures::default();
        figures.add(Figure::Cpu(64), Peer::Nginx, 0, 10.0);
        figures.add(Figure::Cpu(64), Peer::Coordinator, 0, 12.5);
        figures.note("SKIPPED haproxy: it is not installed".to_owned());

        let text = render(&figures);

        assert!(text.contains("| **coordinator** | – | – | 12.5, 1.25 x | – | – | – | – |\n"));
        assert!(!text.contains("| haproxy |"));
        assert!(text.ends_with("- SKIPPED haproxy: it is not installed"));
    }
}
