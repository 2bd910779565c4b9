//! The panel of an agent's process, as a browser and as a command.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use ollama_agent::panel::PanelFile;
use serde_json::Value;

use super::DEADLINE;

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What came back.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Waits until the agent that uses the state directory has a panel.
pub(crate) async fn panel_of(state_dir: &Path) -> PanelFile {
    let asking = async {
        loop {
            if let Ok(Some(file)) = PanelFile::read(state_dir) {
                return file;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, asking).await;
    found.expect("the agent has a panel in time")
}

/// Sends one request with exactly these headers.
pub(crate) async fn send(
    file: &PanelFile,
    (method, path): (Method, &str),
    headers: &[(http::HeaderName, &str)],
    body: &str,
) -> Page {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", file.url));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let answer = tokio::time::timeout(DEADLINE, client.request(request)).await;
    let (head, body) = answer.expect("it answers in time").unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Page {
        status: head.status,
        headers: head.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Returns the path of a link that opens the panel once.
pub(crate) async fn ticket(file: &PanelFile) -> String {
    ticket_for(file, "anybody").await
}

pub(crate) async fn ticket_for(file: &PanelFile, opener: &str) -> String {
    let bearer = format!("Bearer {}", file.token);
    let headers = [(AUTHORIZATION, &*bearer)];
    let path = format!("/ticket?for={opener}");
    let made = send(file, (Method::POST, &path), &headers, "").await;
    let link: Value = serde_json::from_str(&made.text).unwrap();
    link["url"].as_str().unwrap().replacen(&file.url, "", 1)
}

/// A browser that was opened by the panel's link.
#[derive(Debug)]
pub(crate) struct Browser {
    file: PanelFile,
    page: String,
    cookie: String,
}

impl Browser {
    pub(crate) async fn open(file: PanelFile) -> Self {
        let opened = send(&file, (Method::GET, &ticket(&file).await), &[], "").await;
        assert_eq!(opened.status, StatusCode::SEE_OTHER);
        let page = opened.header(LOCATION).unwrap().to_owned();
        let cookie = opened.header(SET_COOKIE).unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { file, page, cookie }
    }

    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// Returns the path of the page, which ends with a slash.
    pub(crate) fn page(&self) -> &str {
        &self.page
    }

    /// Asks for the page itself, or for what is at a path below it.
    pub(crate) async fn get(&self, path: &str) -> Page {
        let (headers, path) = ([(COOKIE, &*self.cookie)], self.below(path));
        send(&self.file, (Method::GET, &path), &headers, "").await
    }

    fn below(&self, path: &str) -> String {
        format!("{}{path}", self.page)
    }

    pub(crate) async fn submit(&self, path: &str, form: &str) -> Page {
        let headers = [
            (COOKIE, &*self.cookie),
            (ORIGIN, &*self.file.url),
            (CONTENT_TYPE, "application/x-www-form-urlencoded"),
        ];
        send(
            &self.file,
            (Method::POST, &self.below(path)),
            &headers,
            form,
        )
        .await
    }

    pub(crate) fn host(&self) -> (http::HeaderName, &str) {
        (HOST, self.file.url.trim_start_matches("http://"))
    }
}
