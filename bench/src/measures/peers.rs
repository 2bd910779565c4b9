//! The proxy beside its peers: the same requests through each, in turns, in the same run.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::{Connection, request};
use crate::coordinator::work_dir;
use crate::load::{self, Load};
use crate::machine::{Foreign, Halves};
use crate::one_thread;
use crate::peers::{PEERS, Target, start_upstreams};
use crate::plan::Scale;
use crate::process::Process;
use crate::streams::{self, Streams};
use crate::table::percentile;
use crate::upstream::chat;
use figures::{Figure, Figures, Subject};

mod aims;
mod figures;
mod tables;

/// So many connections send small requests.
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const RATE: u32 = 1_000;
const RATE_CONNECTIONS: u32 = 32;
/// What answers less of the rate than this does not hold it.
const HELD: f64 = 0.95;
/// Streams for the time to the first chunk, one after another, each as short as this.
const FIRST_CHUNKS: usize = 30;
const SHORT_STREAM: (u64, Duration) = (4, Duration::from_millis(4));
const FEW: u32 = 100;
const FEW_PACE: Duration = Duration::from_millis(5);
const MANY: u32 = 1_000;
/// Without a pace nginx serves some of the streams and accepts no more.
const MANY_PACE: Duration = Duration::from_millis(20);
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// Two steps of what processor times are counted in.
const SETTLED: Duration = Duration::from_millis(20);

/// Measures all of them, shows how the coordinator meets its aims, and returns the tables.
pub(crate) async fn measure(scale: Scale) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || {
        let halves = Halves::find()?;
        halves.to_load()?;
        let measured = one_thread()?.block_on(side_by_side(&halves, scale));
        halves.to_all()?;
        let figures = measured?;
        aims::show_all(&figures);
        Ok(tables::render(&figures))
    })
    .await?
}

async fn side_by_side(halves: &Halves, scale: Scale) -> anyhow::Result<Figures> {
    let dir = work_dir()?;
    let (upstreams, addrs) = start_upstreams().await?;
    let mut figures = Figures::default();
    let mut targets = Vec::new();
    for peer in PEERS {
        match Target::start(peer, dir.path(), halves, &addrs).await {
            Ok(target) => targets.push(target),
            Err(missing) => figures.note(format!("SKIPPED {}: {missing:#}", peer.title())),
        }
    }
    for target in &targets {
        let memory = load::count(target.process.memory());
        figures.add(Figure::IdleMemory, target.peer, 0, memory);
        // Connections to the upstreams are opened here, not in the first window.
        let load = Load::full(CONNECTIONS[3], Duration::from_millis(200));
        let request = target.small_request();
        load::run(target.addr, load, move |_| request.clone()).await?;
    }
    for subject in Subject::ALL {
        for round in 0..scale.peer_rounds {
            for target in &targets {
                if round > 0 && target.peer.is_slow() {
                    continue;
                }
                let mut turn = Turn {
                    figures: &mut figures,
                    target,
                    round,
                    window: scale.window,
                };
                turn.take(subject).await;
            }
        }
    }
    // Not all of them stop when they are asked to.
    drop((targets, upstreams));
    Ok(figures)
}

/// One target measured once on one subject.
struct Turn<'a> {
    figures: &'a mut Figures,
    target: &'a Target,
    round: u64,
    window: Duration,
}

impl Turn<'_> {
    async fn take(&mut self, subject: Subject) {
        let foreign = Foreign::watch();
        let taken = match subject {
            Subject::Small => self.small_requests().await,
            Subject::Rate => self.fixed_rate().await,
            Subject::FirstChunk => self.first_chunks().await,
            Subject::Few => self.few_streams().await,
            Subject::Many => self.many_streams().await,
        };
        if let Err(failure) = taken {
            let title = self.target.peer.title();
            self.figures
                .note(format!("FAILED {title}, {subject}: {failure:#}"));
        }
        if let Some(processors) = foreign.processors() {
            self.add(Figure::Foreign(subject), processors);
        }
        settle(&self.target.process).await;
    }

    fn add(&mut self, figure: Figure, value: f64) {
        self.figures
            .add(figure, self.target.peer, self.round, value);
    }

    async fn small_requests(&mut self) -> anyhow::Result<()> {
        let process = &self.target.process;
        for connections in CONNECTIONS {
            let request = self.target.small_request();
            let load = Load::full(connections, self.window);
            let before = process.cpu();
            let outcome = load::run(self.target.addr, load, move |_| request.clone());
            let outcome = outcome.await?.checked()?;
            let cost = process.cpu().saturating_sub(before);
            self.add(Figure::Cpu(connections), outcome.micros_each(cost));
            self.add(Figure::PerSecond(connections), outcome.per_second());
        }
        self.add(Figure::LoadedMemory, load::count(process.memory()));
        Ok(())
    }

    async fn fixed_rate(&mut self) -> anyhow::Result<()> {
        let request = self.target.small_request();
        let (addr, lasting) = (self.target.addr, self.window * 2);
        let outcome = load::at_rate(addr, &request, RATE_CONNECTIONS, RATE, lasting);
        let outcome = outcome.await?.checked()?;
        let per_second = outcome.per_second();
        anyhow::ensure!(
            per_second >= f64::from(RATE) * HELD,
            "it answers {per_second:.0}/s"
        );
        for (figure, per_cent) in [(Figure::RateP50, 50), (Figure::RateP99, 99)] {
            self.add(figure, micros(percentile(&outcome.latencies, per_cent)));
        }
        Ok(())
    }

    async fn first_chunks(&mut self) -> anyhow::Result<()> {
        let request = request("POST", self.target.path, None, &chat(Some(SHORT_STREAM)));
        let mut connection = Connection::open(self.target.addr).await?;
        let mut times = Vec::new();
        for _ in 0..FIRST_CHUNKS {
            let sent = Instant::now();
            let answer = connection.send(&request).await?;
            anyhow::ensure!(answer.is_success(), "a stream got {}", answer.status);
            times.push(answer.first_body_byte - sent);
        }
        self.add(Figure::FirstChunk, micros(percentile(&times, 50)));
        Ok(())
    }

    async fn few_streams(&mut self) -> anyhow::Result<()> {
        let streamed = self.streams(FEW, FEW_PACE).await?;
        for (figure, per_cent) in [(Figure::TransitP50, 50), (Figure::TransitP99, 99)] {
            self.add(figure, micros(percentile(&streamed.transits, per_cent)));
        }
        Ok(())
    }

    async fn many_streams(&mut self) -> anyhow::Result<()> {
        let streamed = self.streams(MANY, MANY_PACE).await?;
        self.add(Figure::StreamsMemory, load::count(streamed.memory));
        Ok(())
    }

    async fn streams(&mut self, count: u32, pace: Duration) -> anyhow::Result<streams::Streamed> {
        let streams = Streams {
            count,
            pace,
            window: self.window * 2,
        };
        let Target {
            peer,
            addr,
            path,
            process,
        } = self.target;
        let streamed = streams::run(*addr, path, streams, &[process]).await?;
        let begun = streamed.begun;
        anyhow::ensure!(begun > 0, "no stream began in time");
        if begun < count {
            let title = peer.title();
            self.figures.note(format!(
                "{title}: only {begun} of {count} streams had begun"
            ));
        }
        let chunks = load::count(streamed.chunks);
        let cost = streamed.cpu.as_secs_f64() * 1e6 / chunks.max(1.0);
        self.add(Figure::ChunkCpu(count), cost);
        let per_second = chunks / streamed.took.as_secs_f64();
        self.add(Figure::ChunksPerSecond(count), per_second);
        Ok(streamed)
    }
}

/// Waits until a program has dealt with what was broken off.
async fn settle(process: &Process) {
    let deadline = Instant::now() + SETTLED_WITHIN;
    while Instant::now() < deadline {
        let before = process.cpu();
        sleep(SETTLED_AFTER).await;
        if process.cpu().saturating_sub(before) <= SETTLED {
            return;
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
