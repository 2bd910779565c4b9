//! Each way in which the fault proxy misbehaves, in front of an echo.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use ollama_simulator::fault_proxy::{Direction, FaultProxy, ProxyFault};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Sends back whatever it gets.
struct Echo {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(copy(&mut from, &mut to).await);
                });
            }
        });
        Self {
            addr,
            _serving: serving,
        }
    }
}

async fn proxied() -> (Echo, FaultProxy, TcpStream) {
    let echo = Echo::start().await;
    let proxy = FaultProxy::start(echo.addr).await.expect("a port is free");
    let mut client = TcpStream::connect(proxy.addr()).await.expect("it listens");
    round_trip(&mut client)
        .await
        .expect("without a fault bytes pass");
    (echo, proxy, client)
}

async fn round_trip(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"ping").await?;
    let mut back = [0; 4];
    client.read_exact(&mut back).await?;
    assert_eq!(&back, b"ping");
    Ok(())
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let (_echo, proxy, client) = proxied().await;

    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    assert_eq!(proxy.bytes(Direction::ToUpstream), 4);
    assert_eq!(proxy.bytes(Direction::ToClient), 4);
    drop(client);
    wait_for(
        "the end",
        PATIENCE,
        async || proxy.open(),
        |open| *open == 0,
    )
    .await;
}

#[tokio::test]
async fn end_of_one_direction_is_passed_on() {
    let (_echo, _proxy, mut client) = proxied().await;

    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();

    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn delay_holds_bytes_back_in_both_directions() {
    let (_echo, proxy, mut client) = proxied().await;
    let delay = Duration::from_millis(30);
    proxy.set_fault(ProxyFault::Delay(delay)).await;
    let started = Instant::now();

    round_trip(&mut client).await.unwrap();

    assert!(started.elapsed() >= delay * 2);
}

#[rstest]
#[case(Direction::ToClient)]
#[case(Direction::ToUpstream)]
#[tokio::test]
async fn cut_comes_after_exactly_as_many_bytes_as_told(#[case] direction: Direction) {
    let (_echo, proxy, mut client) = proxied().await;
    proxy
        .set_fault(ProxyFault::CutAfter {
            direction,
            bytes: 10,
        })
        .await;

    client.write_all(b"0123456789").await.unwrap();
    let mut rest = Vec::new();
    let ended = client.read_to_end(&mut rest).await;

    assert_eq!(proxy.bytes(direction), 10, "{ended:?} after {rest:?}");
    assert!(b"012345".starts_with(&rest[..]), "{rest:?}");
}

#[tokio::test]
async fn stalled_bytes_arrive_when_the_stall_is_over() {
    let (_echo, proxy, mut client) = proxied().await;
    proxy.set_fault(ProxyFault::Stall).await;
    client.write_all(b"late").await.unwrap();
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    new.write_all(b"late").await.unwrap();
    wait_for(
        "the new one",
        PATIENCE,
        async || proxy.accepted(),
        |seen| *seen == 2,
    )
    .await;
    // Connections are served in one thread here: what was written before has been looked at.
    tokio::task::yield_now().await;
    assert_eq!(proxy.bytes(Direction::ToUpstream), 4);

    proxy.set_fault(ProxyFault::None).await;

    for stalled in [&mut client, &mut new] {
        let mut back = [0; 4];
        stalled.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"late");
    }
}

#[tokio::test]
async fn black_hole_accepts_and_swallows() {
    let (_echo, proxy, mut client) = proxied().await;
    proxy.set_fault(ProxyFault::BlackHole).await;
    let before = proxy.bytes(Direction::ToUpstream);
    let megabytes = vec![0; 16 << 20];

    client.write_all(&megabytes).await.unwrap();
    let mut other = TcpStream::connect(proxy.addr()).await.unwrap();
    other.write_all(&megabytes).await.unwrap();

    assert_eq!(proxy.bytes(Direction::ToUpstream), before);
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn reset_hits_open_and_new_connections() {
    let (_echo, proxy, mut client) = proxied().await;

    proxy.set_fault(ProxyFault::Reset).await;

    let reset = client.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    let reset = new.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn reset_of_the_upstream_is_passed_on_as_a_reset() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap())
        .await
        .unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (connection, _) = upstream.accept().await.unwrap();

    connection.set_zero_linger().unwrap();
    drop(connection);

    let reset = client.read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn end_of_the_upstream_is_not_seen_through_a_black_hole() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start(upstream.local_addr().unwrap())
        .await
        .unwrap();
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let (connection, _) = upstream.accept().await.unwrap();
    proxy.set_fault(ProxyFault::BlackHole).await;

    drop(connection);
    let _new = TcpStream::connect(proxy.addr()).await.unwrap();
    wait_for(
        "the new one",
        PATIENCE,
        async || proxy.accepted(),
        |seen| *seen == 2,
    )
    .await;

    let would_block = client.try_read(&mut [0]).unwrap_err();
    assert_eq!(would_block.kind(), ErrorKind::WouldBlock);
    proxy.set_fault(ProxyFault::None).await;
    assert_eq!(
        client.read_u8().await.unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn refused_port_comes_back_with_the_same_number() {
    let (_echo, proxy, mut client) = proxied().await;

    proxy.set_fault(ProxyFault::Refuse).await;

    assert!(client.read_u8().await.is_err());
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    proxy.set_fault(ProxyFault::None).await;

    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut client).await.unwrap();
}

#[tokio::test]
async fn nothing_but_loopback_is_dialled() {
    let refused = FaultProxy::start(SocketAddr::from(([192, 0, 2, 1], 80))).await;

    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
}
