//! The settings panel: a page on 127.0.0.1 that shows the status and edits the settings, and the few
//! routes by which commands of the same user ask the running agent.

mod access;
mod address;
mod findings;
mod form;
mod page;
mod routes;
mod settings;
mod summary;
mod ticket;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::net::TcpListener;

use self::access::Access;
pub use self::address::PanelFile;
use self::settings::SettingsDesk;
pub(crate) use self::ticket::{Opener, PanelLink, PanelLinks};
use crate::config::Given;
use crate::control::Control;

/// How long answers may take that are under way at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// What the handlers share.
#[derive(Debug, Clone)]
struct Panel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    addr: SocketAddrV4,
    access: Access,
    links: PanelLinks,
    control: Control,
    desk: SettingsDesk,
}

/// Serves the panel, and leaves its address in the state directory. The agent does without it when
/// that is not possible.
pub(crate) async fn start(port: u16, given: Given, control: &Control, tasks: &Tasks) {
    let listener = match bind(port).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "There is no settings panel: nothing can listen on 127.0.0.1");
            return;
        }
    };
    let Ok(SocketAddr::V4(addr)) = listener.local_addr() else {
        return;
    };
    let access = Access::new(addr.port());
    let file = PanelFile {
        url: format!("http://{addr}"),
        token: access.token().expose().to_owned(),
        pid: std::process::id(),
    };
    match file.leave(control.state_dir()) {
        Ok(()) => tracing::info!(
            panel.url = file.url,
            "Settings panel is up; `ollama-agent panel` prints the link that opens it"
        ),
        Err(error) => {
            tracing::warn!(%error, "Commands do not find this agent: its address cannot be kept");
            // That of a process before would send them to the wrong one.
            PanelFile::remove(control.state_dir());
        }
    }
    let links = PanelLinks::new(file.url);
    control.set_panel(Some(links.clone()));
    let panel = Panel(Arc::new(Shared {
        addr,
        access,
        links,
        control: control.clone(),
        desk: SettingsDesk::new(given, control.clone()),
    }));
    let (stop, control) = (tasks.token().clone(), control.clone());
    tasks.spawn("panel", OnExit::Log, async move {
        let answers = routes::router(panel).into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, answers)
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future();
        // An open page must not hold up the exit.
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            ended = serving => drop(ended),
            () = late => {}
        }
        control.set_panel(None);
        PanelFile::remove(control.state_dir());
        Ok::<_, Infallible>(())
    });
}

/// Takes the port that is wanted, else any free one.
async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            tracing::info!(port, "The panel's port is taken, using another");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        bound => bound,
    }
}
