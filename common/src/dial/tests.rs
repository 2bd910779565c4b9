use super::*;
use proptest::prelude::*;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const WITHIN: Duration = Duration::from_secs(20);

const VARIABLES: Variables = Variables {
    https: "HTTPS_PROXY",
    http: "HTTP_PROXY",
};

fn url(text: &str) -> BaseUrl {
    BaseUrl::parse(text, 11400).unwrap()
}

#[rstest]
#[case::name("hub.example.org", Some("http://proxy:3128"))]
#[case::public_address("203.0.113.9", Some("http://proxy:3128"))]
#[case::public_address_v6("[2001:db8::1]", Some("http://proxy:3128"))]
#[case::name_that_is_excepted("a.internal.example.org", None)]
#[case::address_that_is_excepted("198.51.100.7", None)]
#[case::loopback("127.0.0.1", None)]
#[case::loopback_v6("[::1]", None)]
#[case::private("10.1.2.3", None)]
#[case::private_v6("[fd00::5]", None)]
#[case::link_local("169.254.1.1", None)]
#[case::shared("100.100.1.1", None)]
#[case::name_without_a_dot("gpu-hub", None)]
#[case::name_of_this_network("gpu-hub.local", None)]
fn proxy_leads_out_of_the_network_and_not_where_it_is_excepted(
    #[case] server: &str,
    #[case] expected: Option<&str>,
) {
    let proxies = Matcher::builder()
        .https("http://user:secret@proxy:3128")
        .no("internal.example.org, 198.51.100.0/24")
        .build();

    let proxy = Dial::through(proxies, VARIABLES).proxy_of(&url(server));

    assert_eq!(proxy.as_deref(), expected);
}

#[rstest]
#[case::https(Matcher::builder().https("http://a:1").http("http://b:2").all("http://c:3"), "http://a:1")]
#[case::all(Matcher::builder().all("http://c:3"), "http://c:3")]
#[case::http(Matcher::builder().http("http://b:2"), "http://b:2")]
fn https_proxy_comes_first(
    #[case] proxies: hyper_util::client::proxy::matcher::Builder,
    #[case] expected: &str,
) {
    let proxy = Dial::through(proxies.build(), VARIABLES).proxy_of(&url("hub.example.org"));

    assert_eq!(proxy.as_deref(), Some(expected));
}

proptest! {
    #[test]
    fn settings_of_proxies_never_panic_show_no_password_and_spare_what_is_near(
        proxy in prop_oneof!["(http://)?([a-z]{1,3}:hidden@)?[a-z0-9.]{1,9}(:[0-9]{1,6})?", any::<String>()],
        except in prop_oneof!["([a-z.*]{0,9}|[0-9./:]{0,14})(,[ a-z.*0-9/]{0,12}){0,3}", any::<String>()],
        server in "[a-z0-9.-]{1,20}",
    ) {
        let proxies = Matcher::builder().https(proxy).no(except).build();
        let dial = Dial::through(proxies, VARIABLES);
        if let Ok(server) = BaseUrl::parse(&server, 11400) {
            let shown = dial.proxy_of(&server).unwrap_or_default();
            prop_assert!(!shown.contains("hidden"), "{shown}");
        }
        for near in ["127.0.0.1", "[::1]", "10.0.0.1", "gpu-hub", "gpu-hub.local"] {
            prop_assert_eq!(dial.proxy_of(&url(near)), None);
        }
    }

    #[test]
    fn excepted_domain_is_excepted_with_all_below_it(
        name in "[a-z]{1,8}\\.(org|net)", below in "[a-z]{1,8}",
    ) {
        let no = format!(" {name} ,198.51.100.0/24");
        let dial = Dial::through(Matcher::builder().https("http://proxy:3128").no(no).build(), VARIABLES);

        prop_assert_eq!(dial.proxy_of(&url(&name)), None);
        prop_assert_eq!(dial.proxy_of(&url(&format!("{below}.{name}"))), None);
        let beside = format!("{below}{name}");
        prop_assert!(dial.proxy_of(&url(&beside)).is_some());
    }
}

/// Connects through a proxy that answers `answer`, and returns what it was asked.
async fn through_proxy(answer: &'static [u8]) -> (Result<Dialled, HttpError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://me:pass%20word@{}", listener.local_addr().unwrap());
    let dial = Dial::through(Matcher::builder().https(proxy).build(), VARIABLES);
    let server = url("hub.example.org");
    let proxying = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
        }
        stream.write_all(answer).await.unwrap();
        (stream, String::from_utf8(asked).unwrap())
    };
    let (dialled, (_stream, asked)) = tokio::join!(dial.connect(&server, WITHIN), proxying);
    (dialled, asked)
}

#[tokio::test]
async fn proxy_is_asked_for_the_server_with_the_credentials_of_its_url() {
    let (dialled, asked) = through_proxy(b"HTTP/1.1 200 OK\r\n\r\n").await;

    dialled.unwrap();
    let asked = asked.to_ascii_lowercase();
    assert!(
        asked.starts_with("connect hub.example.org:11400 http/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("host: hub.example.org:11400\r\n"), "{asked}");
    // `me:pass word` in Base64.
    assert!(
        asked.contains("proxy-authorization: basic bwu6cgfzcyb3b3jk\r\n"),
        "{asked}"
    );
}

#[rstest]
#[case::refused(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "status 403")]
#[case::credentials(
    b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n",
    "user name and password"
)]
#[case::out_of_turn(b"HTTP/1.1 200 OK\r\n\r\nhello", "in the server's place")]
#[case::nonsense(b"SSH-2.0-OpenSSH\r\n\r\n", "exchange with it failed")]
#[tokio::test]
async fn proxy_that_does_not_lead_on_is_named_without_its_credentials(
    #[case] answer: &'static [u8],
    #[case] expected: &str,
) {
    let (dialled, _asked) = through_proxy(answer).await;

    let error = dialled.unwrap_err();
    let HttpError::Proxy { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains(expected), "{source}");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("http://127.0.0.1:"), "{shown}");
    assert!(
        !shown.contains("pass") && !shown.contains("bWU6"),
        "{shown}"
    );
}

#[tokio::test]
async fn proxy_of_another_kind_is_refused() {
    let dial = Dial::through(
        Matcher::builder().all("socks5://127.0.0.1:1").build(),
        VARIABLES,
    );

    let error = dial.connect(&url("hub.example.org"), WITHIN).await;

    let HttpError::Proxy { proxy, source, .. } = error.unwrap_err() else {
        panic!("no proxy was used");
    };
    assert_eq!(proxy, "socks5://127.0.0.1:1");
    assert!(matches!(source, ProxyError::Unsupported), "{source}");
}
