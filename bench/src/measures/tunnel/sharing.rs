//! One tunnel, three uses at once: a reader that takes nothing, a large upload, and a stream whose
//! chunks should not notice.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::PATH;
use super::way::Way;
use crate::client::request;
use crate::load;
use crate::machine::{Foreign, Halves};
use crate::peers::start_upstreams;
use crate::plan::show;
use crate::streams::{self, Streams};
use crate::table::{Aim, millis, percentile};
use crate::upstream::chat;

const UPLOAD: usize = 1024 * 1024 * 1024;
const PIECE: usize = 64 * 1024;
const UPLOADED_WITHIN: Duration = Duration::from_mins(2);
const ONE: Streams = Streams {
    count: 1,
    pace: Duration::from_millis(10),
    window: Duration::from_secs(3),
};
/// So many chunks, as fast as they are taken: far more than all buffers hold.
const ENDLESS: (u64, Duration) = (10_000_000, Duration::ZERO);
const BLOB: &str =
    "/api/blobs/sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

/// Measures a stream alone, then beside the others, directly and in a tunnel.
pub(super) async fn measure(halves: &Halves) -> anyhow::Result<()> {
    let (_upstreams, addrs) = start_upstreams().await?;
    let direct = Way::start(halves, &addrs[..1], &["--advertise", "127.0.0.1"]).await?;
    let [(alone, _), (beside, _)] = pair(&direct).await?;
    let anchor = format!("direct {alone:.2} and {beside:.2} ms");
    drop(direct);
    let tunnel = Way::start(halves, &addrs[..1], &[]).await?;
    let foreign = Foreign::watch();
    let [(alone, before), (beside, memory)] = pair(&tunnel).await?;
    let mib = load::count(memory.saturating_sub(before)) / 1_048_576.0;
    show(
        &foreign,
        "tunnel: chunk's way beside a 1 GiB upload and a reader that takes nothing, p50",
        format!(
            "{beside:.2} ms: {:.1} x alone ({alone:.2} ms); both ends {mib:+.0} MiB",
            beside / alone
        ),
        anchor,
        Aim::AtMost {
            aim: 2.0,
            is: beside / alone,
            unit: " x alone",
        },
    );
    Ok(())
}

/// Returns how long a chunk is on its way, alone and beside the others, and the memory then.
async fn pair(way: &Way) -> anyhow::Result<[(f64, u64); 2]> {
    let alone = one_stream(way).await?;
    let _lazy = reader_that_takes_nothing(way.addr()).await?;
    let addr = way.addr();
    let uploading = upload(addr);
    let watching = async {
        sleep(Duration::from_millis(200)).await;
        one_stream(way).await
    };
    let (uploaded, beside) = tokio::join!(timeout(UPLOADED_WITHIN, uploading), watching);
    uploaded.context("the upload took too long")??;
    Ok([alone, beside?])
}

async fn one_stream(way: &Way) -> anyhow::Result<(f64, u64)> {
    let streamed = streams::run(way.addr(), PATH, ONE, &way.processes()).await?;
    let p50 = millis(percentile(&streamed.transits, 50));
    Ok((p50, way.memory()))
}

/// Asks for more than is ever read.
async fn reader_that_takes_nothing(addr: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    let ask = request("POST", PATH, None, &chat(Some(ENDLESS)));
    stream.write_all(&ask).await?;
    let mut first = [0; 16];
    stream.read_exact(&mut first).await?;
    Ok(stream)
}

async fn upload(addr: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    let head = format!("POST {BLOB} HTTP/1.1\r\nhost: bench\r\ncontent-length: {UPLOAD}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![0; PIECE];
    for _ in 0..UPLOAD / PIECE {
        stream.write_all(&piece).await?;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(
        answer.ends_with(b"201"),
        "the upload got {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}
