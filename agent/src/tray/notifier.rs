//! The tray of Linux desktops: a `StatusNotifierItem`, spoken over the session's D-Bus in the agent's
//! own thread.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use ksni::menu::{StandardItem, SubMenu};
use ksni::{Category, OfflineReason, ToolTip, TrayMethods as _};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use zbus::{Connection, MessageStream};

use super::view::{View, Views};
use super::{Action, Entry, Item, TITLE};
use crate::app::{AgentError, finish};

/// Desktops choose the size that fits best.
const SIZES: [u16; 6] = [16, 22, 24, 32, 48, 64];

/// Until a session bus is there, or there again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs `agent` until it ends, and shows `views` meanwhile.
pub(super) fn run(
    runtime: Runtime,
    agent: impl Future<Output = Result<(), AgentError>>,
    views: Views,
    clicked: mpsc::Sender<Action>,
) -> Result<(), AgentError> {
    let serving = async {
        tokio::select! {
            ended = agent => ended,
            never = show(views, clicked) => match never {},
        }
    };
    finish(runtime, serving)
}

/// Shows the views in the session's tray for as long as it can be done, and waits until it can.
async fn show(mut views: Views, clicked: mpsc::Sender<Action>) -> Infallible {
    let mut has_told = false;
    loop {
        let shown = Shown {
            view: views.last(),
            clicked: clicked.clone(),
        };
        match appear(shown).await {
            Ok((handle, bus)) => {
                tokio::select! {
                    () = follow(&mut views, &handle) => {}
                    () = end_of(bus) => {
                        tracing::info!("The session's bus has ended, waiting for another");
                    }
                }
                // Its own connection does not tell it.
                drop(handle.shutdown());
            }
            Err(error) if !has_told => {
                has_told = true;
                tracing::info!(%error, "There is no tray to show the icon in, waiting for one");
            }
            Err(error) => tracing::debug!(%error, "There is still no tray"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Shows the item; with a second connection to its bus, that of the item does not tell its end.
async fn appear(shown: Shown) -> Result<(ksni::Handle<Shown>, Connection), ksni::Error> {
    let bus = Connection::session().await.map_err(ksni::Error::Dbus)?;
    let handle = shown.assume_sni_available(true).spawn().await?;
    Ok((handle, bus))
}

async fn end_of(bus: Connection) {
    let mut messages = MessageStream::from(bus);
    while messages.next().await.is_some_and(|message| message.is_ok()) {}
}

/// Keeps what is shown up to date for as long as it is shown.
async fn follow(views: &mut Views, handle: &ksni::Handle<Shown>) {
    let mut view = views.last();
    while handle.update(|shown| shown.view = view).await.is_some() {
        view = views.next().await;
    }
}

/// The item on the bus.
#[derive(Debug)]
struct Shown {
    view: View,
    clicked: mpsc::Sender<Action>,
}

impl ksni::Tray for Shown {
    const MENU_ON_ACTIVATE: bool = true;

    fn id(&self) -> String {
        env!("CARGO_PKG_NAME").to_owned()
    }

    fn category(&self) -> Category {
        Category::SystemServices
    }

    fn title(&self) -> String {
        TITLE.to_owned()
    }

    fn icon_pixmap(&self) -> Vec<ksni::Icon> {
        let drawn = SIZES.map(|size| self.view.icon.draw(size));
        let pixmaps = drawn.into_iter().map(|pixels| ksni::Icon {
            width: pixels.size.into(),
            height: pixels.size.into(),
            data: pixels.argb,
        });
        pixmaps.collect()
    }

    fn tool_tip(&self) -> ToolTip {
        ToolTip {
            title: TITLE.to_owned(),
            description: without_markup(&self.view.tooltip),
            ..ToolTip::default()
        }
    }

    fn menu(&self) -> Vec<ksni::MenuItem<Self>> {
        self.view.menu.0.iter().map(entry).collect()
    }

    fn watcher_online(&self) {
        tracing::info!("The tray is there again");
    }

    fn watcher_offline(&self, reason: OfflineReason) -> bool {
        let reason = match reason {
            OfflineReason::No => "it ended".to_owned(),
            OfflineReason::Error(error) => error.to_string(),
            _ => "unknown".to_owned(),
        };
        tracing::info!(
            reason,
            "There is no tray to show the icon in, waiting for one"
        );
        true
    }
}

fn entry(entry: &Entry) -> ksni::MenuItem<Shown> {
    match entry {
        Entry::Separator => ksni::MenuItem::Separator,
        Entry::Item(one) => item(one).into(),
        Entry::Submenu { label, items } => SubMenu {
            label: without_mnemonic(label),
            enabled: items.iter().any(|item| item.action.is_some()),
            submenu: items.iter().map(|one| item(one).into()).collect(),
            ..SubMenu::default()
        }
        .into(),
    }
}

fn item(item: &Item) -> StandardItem<Shown> {
    let action = item.action;
    StandardItem {
        label: without_mnemonic(&item.label),
        enabled: action.is_some(),
        activate: Box::new(move |shown: &mut Shown| {
            if let Some(action) = action
                && shown.clicked.try_send(action).is_err()
            {
                tracing::debug!(?action, "Too many clicks at once");
            }
        }),
        ..StandardItem::default()
    }
}

/// An underscore underlines the next letter; two are one.
fn without_mnemonic(label: &str) -> String {
    label.replace('_', "__")
}

/// Tooltips may hold HTML.
fn without_markup(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
