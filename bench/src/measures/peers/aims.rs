//! How the coordinator meets what the proxy is held to.

use super::figures::{Figure, Figures};
use super::{CONNECTIONS, FEW};
use crate::peers::Peer::{Coordinator, Direct, Nginx};
use crate::plan::show_row;
use crate::table::{Aim, Row};

const MIB: f64 = 1_048_576.0;

/// Shows a row for each aim that could be measured.
pub(crate) fn show_all(figures: &Figures) {
    let [.., many, most] = CONNECTIONS;
    let cost = Figure::Cpu(many);
    let (p50, p99) = (Figure::RateP50, Figure::RateP99);
    let rows = [
        against_nginx(figures, "CPU per small request, 64 connections", cost, 1.4),
        growth(figures, many, most),
        added(figures, "added at 1,000/s, p50", p50, 120.0),
        added(figures, "added at 1,000/s, p99", p99, 250.0),
        added(figures, "first chunk, p50", Figure::FirstChunk, 150.0),
        against_nginx(
            figures,
            "CPU per streamed chunk",
            Figure::ChunkCpu(FEW),
            1.3,
        ),
        transit(figures),
        memory(figures, "memory idle", Figure::IdleMemory, 15.0),
        memory(figures, "memory after load", Figure::LoadedMemory, 35.0),
    ];
    for row in rows.iter().flatten() {
        show_row(row);
    }
}

fn against_nginx(figures: &Figures, measure: &str, figure: Figure, aim: f64) -> Option<Row> {
    let cost = figures.median(figure, Coordinator)?;
    let is = figures.ratio(figure, Coordinator, Nginx)?;
    let nginx = figures.median(figure, Nginx)?;
    Some(Row {
        measure: format!("peers: {measure}"),
        result: format!("{cost:.1} µs: {is:.2} x nginx"),
        anchor: format!("nginx {nginx:.1} µs"),
        aim: Aim::AtMost {
            aim,
            is,
            unit: " x nginx",
        },
        foreign: foreign(figures, figure),
    })
}

fn growth(figures: &Figures, from: usize, to: usize) -> Option<Row> {
    let is = figures.growth(from, to, Coordinator)?;
    let nginx = figures.growth(from, to, Nginx);
    Some(Row {
        measure: format!("peers: CPU per small request, {from} to {to} connections"),
        result: format!("{is:+.0} %"),
        anchor: nginx.map_or_else(String::new, |growth| format!("nginx {growth:+.0} %")),
        aim: Aim::AtMost {
            aim: 25.0,
            is,
            unit: " %",
        },
        foreign: foreign(figures, Figure::Cpu(to)),
    })
}

fn added(figures: &Figures, measure: &str, figure: Figure, aim: f64) -> Option<Row> {
    let is = figures.added(figure, Coordinator)?;
    let direct = figures.median(figure, Direct)?;
    Some(Row {
        measure: format!("peers: {measure}"),
        result: format!("{is:.0} µs added"),
        anchor: format!("no proxy {direct:.0} µs"),
        aim: Aim::AtMost {
            aim,
            is,
            unit: " µs added",
        },
        foreign: foreign(figures, figure),
    })
}

fn transit(figures: &Figures) -> Option<Row> {
    let is = figures.median(Figure::TransitP99, Coordinator)? / 1e3;
    let nginx = figures.median(Figure::TransitP99, Nginx);
    Some(Row {
        measure: format!("peers: chunk transit, {FEW} streams, p99"),
        result: format!("{is:.2} ms"),
        anchor: nginx.map_or_else(String::new, |micros| {
            format!("nginx {:.2} ms", micros / 1e3)
        }),
        aim: Aim::AtMost {
            aim: 1.0,
            is,
            unit: " ms",
        },
        foreign: foreign(figures, Figure::TransitP99),
    })
}

fn memory(figures: &Figures, measure: &str, figure: Figure, aim: f64) -> Option<Row> {
    let is = figures.median(figure, Coordinator)? / MIB;
    let nginx = figures.median(figure, Nginx);
    Some(Row {
        measure: format!("peers: {measure}"),
        result: format!("{is:.1} MiB"),
        anchor: nginx.map_or_else(String::new, |bytes| format!("nginx {:.1} MiB", bytes / MIB)),
        aim: Aim::AtMost {
            aim,
            is,
            unit: " MiB",
        },
        foreign: None,
    })
}

/// Returns what others did while the coordinator's figure was measured.
fn foreign(figures: &Figures, figure: Figure) -> Option<f64> {
    figures.median(Figure::Foreign(figure.subject()?), Coordinator)
}
