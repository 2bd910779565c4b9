//! The agent's item on the session bus, as a panel sees it.

use std::collections::HashMap;

use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedValue, Structure, Value};
use zbus::{Connection, Proxy};

use super::desktop::eventually;

const ITEM: &str = "org.kde.StatusNotifierItem";
const MENU: &str = "com.canonical.dbusmenu";

type Pixmap = (i32, i32, Vec<u8>);
type Layout = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);

/// An icon with its menu.
#[derive(Debug)]
pub(crate) struct Item {
    bus: Connection,
    name: String,
}

/// One line of the menu, as a panel would draw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    id: i32,
    pub(crate) label: String,
    pub(crate) is_enabled: bool,
    depth: usize,
}

impl Item {
    pub(crate) fn new(bus: Connection, name: String) -> Self {
        Self { bus, name }
    }

    pub(crate) async fn id(&self) -> String {
        self.item().await.get_property("Id").await.unwrap()
    }

    pub(crate) async fn title(&self) -> String {
        self.item().await.get_property("Title").await.unwrap()
    }

    /// Returns what is shown when the pointer rests on the icon.
    pub(crate) async fn tooltip(&self) -> String {
        let tooltip: (String, Vec<Pixmap>, String, String) =
            self.item().await.get_property("ToolTip").await.unwrap();
        tooltip.3
    }

    /// Returns the icon in all its sizes.
    pub(crate) async fn pixmaps(&self) -> Vec<Pixmap> {
        self.item().await.get_property("IconPixmap").await.unwrap()
    }

    /// Returns the lines of the menu, separators left out, submenus indented.
    pub(crate) async fn menu(&self) -> Vec<Line> {
        let (_revision, layout): (u32, Layout) = self
            .dbusmenu()
            .await
            .call("GetLayout", &(0, -1, Vec::<&str>::new()))
            .await
            .unwrap();
        let mut lines = Vec::new();
        for child in layout.2 {
            collect(child.into(), 0, &mut lines);
        }
        lines
    }

    pub(crate) async fn menu_text(&self) -> String {
        let lines = self.menu().await;
        let lines = lines.iter().map(|line| {
            let indent = "  ".repeat(line.depth);
            let mark = if line.is_enabled { "" } else { " (off)" };
            format!("{indent}{}{mark}\n", line.label)
        });
        lines.collect()
    }

    /// Waits until the first line of the menu is this, and returns the icon of that moment.
    pub(crate) async fn says(&self, expected: &str) -> Vec<Pixmap> {
        eventually(expected, async || {
            let first = self.menu().await.swap_remove(0).label;
            (first == expected).then_some(())
        })
        .await;
        self.pixmaps().await
    }

    /// Clicks on a line that can be clicked.
    pub(crate) async fn click(&self, label: &str) {
        let lines = self.menu().await;
        let line = lines.iter().find(|line| line.label == label);
        let line = line.unwrap_or_else(|| panic!("{label} is not in {lines:#?}"));
        assert!(line.is_enabled, "{label}");
        let event = (line.id, "clicked", Value::from(0), 0u32);
        let () = self.dbusmenu().await.call("Event", &event).await.unwrap();
    }

    async fn item(&self) -> Proxy<'_> {
        proxy(&self.bus, &self.name, "/StatusNotifierItem", ITEM).await
    }

    async fn dbusmenu(&self) -> Proxy<'_> {
        proxy(&self.bus, &self.name, "/MenuBar", MENU).await
    }
}

pub(crate) async fn proxy<'a>(
    bus: &'a Connection,
    name: &'a str,
    path: &'a str,
    interface: &'a str,
) -> Proxy<'a> {
    let builder = zbus::proxy::Builder::new(bus)
        .destination(name)
        .unwrap()
        .path(path)
        .unwrap()
        .interface(interface)
        .unwrap()
        .cache_properties(CacheProperties::No);
    builder.build().await.unwrap()
}

fn collect(entry: Value<'_>, depth: usize, lines: &mut Vec<Line>) {
    let entry: Structure<'_> = entry.try_into().unwrap();
    let (id, properties, children): (i32, HashMap<String, Value<'_>>, Vec<Value<'_>>) =
        entry.try_into().unwrap();
    if let Some(Value::Str(label)) = properties.get("label") {
        lines.push(Line {
            id,
            label: label.to_string(),
            is_enabled: properties.get("enabled") != Some(&Value::Bool(false)),
            depth,
        });
    }
    for child in children {
        collect(child, depth + 1, lines);
    }
}
