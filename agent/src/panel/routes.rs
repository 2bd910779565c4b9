//! What is answered where, and to whom: the page's routes, and those of programs.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use ollama_coordinator_common::duration;
use serde::Deserialize;

use super::access::Refusal;
use super::form::{Action, Sent};
use super::page::{self, Notice};
use super::settings::Form as SettingsForm;
use super::{Opener, Panel, PanelLink, Shared};
use crate::error_chain;
use crate::pause::PauseError;
use crate::platform;
use crate::status::view::StatusView;

/// Nothing is loaded from anywhere else, nothing runs that is not a file of the panel, and no page
/// may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
/// How long an answer waits for saved settings to be in force.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// The largest form, with room.
const LARGEST_BODY: usize = 64 * 1024;

pub(super) fn router(panel: Panel) -> Router {
    let pages = Router::new()
        .route("/p/{page}/", get(show))
        .route("/p/{page}/settings", post(submit))
        .route("/p/{page}/pause", post(pause_here))
        .route("/p/{page}/resume", post(resume_here))
        .layer(middleware::from_fn_with_state(panel.clone(), admit_browser));
    let programs = Router::new()
        .route("/status", get(tell))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/ticket", post(make_link))
        .layer(middleware::from_fn_with_state(panel.clone(), admit_program));
    Router::new()
        .route("/", get(async || refused(Refusal::Secret)))
        .route("/open/{ticket}", get(open))
        .route(
            "/panel.css",
            get(async || asset("text/css", include_str!("panel.css"))),
        )
        .route(
            "/panel.js",
            get(async || asset("text/javascript", include_str!("panel.js"))),
        )
        .merge(pages)
        .merge(programs)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(panel.clone(), protect))
        .with_state(panel)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Answers only under this machine's own names, and has nothing kept, framed or read elsewhere.
async fn protect(State(Panel(panel)): State<Panel>, request: Request, next: Next) -> Response {
    let mut response = match panel.access.check_host(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal),
    };
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Trades a ticket for the cookie, and leads on to the page.
async fn open(
    State(Panel(panel)): State<Panel>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(ticket): Path<String>,
) -> Response {
    if panel.links.spend(&ticket, panel.opener_at(peer).await) {
        let cookie = [(SET_COOKIE, panel.access.cookie())];
        (cookie, Redirect::to(&panel.access.page())).into_response()
    } else {
        refused(Refusal::Ticket)
    }
}

/// Lets the panel's own page through.
async fn admit_browser(
    State(Panel(panel)): State<Panel>,
    Path(page): Path<String>,
    request: Request,
    next: Next,
) -> Response {
    let (method, headers) = (request.method(), request.headers());
    match panel.access.admit_browser(&page, method, headers) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

/// Lets programs of the same user through.
async fn admit_program(
    State(Panel(panel)): State<Panel>,
    request: Request,
    next: Next,
) -> Response {
    match panel.access.admit_program(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: Refusal) -> Response {
    let status = match refusal {
        Refusal::Host => StatusCode::MISDIRECTED_REQUEST,
        Refusal::Secret => StatusCode::UNAUTHORIZED,
        Refusal::Ticket => StatusCode::GONE,
        Refusal::Origin => StatusCode::FORBIDDEN,
    };
    (status, Html(page::refused(refusal).into_string())).into_response()
}

#[derive(Debug, Default, Deserialize)]
struct Shows {
    saved: Option<String>,
}

async fn show(State(Panel(panel)): State<Panel>, Query(shows): Query<Shows>) -> Response {
    let notice = shows.saved.is_some().then_some(Notice::Saved);
    panel.page(StatusCode::OK, panel.desk.form().await, notice)
}

async fn submit(State(Panel(panel)): State<Panel>, Form(sent): Form<Sent>) -> Response {
    match sent.action {
        Action::Test => {
            let (form, checks) = panel.desk.test(&sent).await;
            panel.page(StatusCode::OK, form, checks.map(Notice::Tried))
        }
        Action::Save => match panel.desk.save(sent).await {
            Ok(()) => {
                // The page then says how it is, whether or not that was in time.
                drop(tokio::time::timeout(SETTLED_WITHIN, panel.control.settled()).await);
                Redirect::to("./?saved=1").into_response()
            }
            Err(form) => panel.page(StatusCode::UNPROCESSABLE_ENTITY, form, None),
        },
    }
}

async fn tell(State(Panel(panel)): State<Panel>) -> Json<StatusView> {
    Json(panel.status())
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(rename = "for")]
    opener: Opener,
}

async fn make_link(
    State(Panel(panel)): State<Panel>,
    Query(Wanted { opener }): Query<Wanted>,
) -> Json<PanelLink> {
    Json(panel.links.fresh(opener))
}

#[derive(Debug, Deserialize)]
struct Length {
    r#for: Option<String>,
}

async fn pause(panel: State<Panel>, length: Query<Length>) -> Result<Json<StatusView>, Failed> {
    let State(Panel(panel)) = panel;
    panel.pause(&length).await?;
    Ok(Json(panel.status()))
}

async fn pause_here(panel: State<Panel>, length: Query<Length>) -> Result<Redirect, Failed> {
    let State(Panel(panel)) = panel;
    panel.pause(&length).await?;
    Ok(Redirect::to("./"))
}

async fn resume(State(Panel(panel)): State<Panel>) -> Result<Json<StatusView>, Failed> {
    panel.control.resume().await?;
    Ok(Json(panel.status()))
}

async fn resume_here(State(Panel(panel)): State<Panel>) -> Result<Redirect, Failed> {
    panel.control.resume().await?;
    Ok(Redirect::to("./"))
}

/// Why nothing was changed, as it is answered.
#[derive(Debug)]
struct Failed(StatusCode, String);

impl From<PauseError> for Failed {
    fn from(error: PauseError) -> Self {
        let status = match error {
            PauseError::Nothing | PauseError::TooLong => StatusCode::BAD_REQUEST,
            PauseError::File { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error_chain(&error))
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        (status, detail).into_response()
    }
}

impl Shared {
    fn status(&self) -> StatusView {
        StatusView::from(&*self.control.status().borrow())
    }

    async fn opener_at(&self, peer: SocketAddr) -> Opener {
        let (SocketAddr::V4(peer), own) = (peer, self.addr) else {
            return Opener::Anybody;
        };
        let asking = move || platform::is_of_another_user(peer, own);
        let asked = tokio::task::spawn_blocking(asking).await;
        if asked.expect("reading a list does not panic") {
            Opener::Anybody
        } else {
            Opener::Own
        }
    }

    fn page(&self, status: StatusCode, form: SettingsForm, notice: Option<Notice>) -> Response {
        let shown = self.control.status().borrow().clone();
        let page = page::panel(&shown, &form, notice.as_ref());
        (status, Html(page.into_string())).into_response()
    }

    async fn pause(&self, Length { r#for }: &Length) -> Result<(), Failed> {
        let length = r#for.as_deref().map(duration::parse).transpose();
        let length = length.map_err(|error| Failed(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(self.control.pause(length).await?)
    }
}
