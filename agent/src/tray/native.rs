//! The trays of Windows and macOS. They belong to the thread that runs the system's event loop, which
//! has to be the main one, so the agent runs in another.

use std::convert::Infallible;
use std::thread;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tray_icon::menu::{
    ContextMenu, IsMenuItem, Menu as NativeMenu, MenuEvent, MenuId, MenuItem, PredefinedMenuItem,
    Submenu,
};
use tray_icon::{TrayIcon, TrayIconBuilder};
use winit::application::ApplicationHandler;
use winit::error::EventLoopError;
use winit::event::{StartCause, WindowEvent};
use winit::event_loop::{ActiveEventLoop, EventLoop, EventLoopProxy};
use winit::window::WindowId;

use super::view::{View, Views};
use super::{Action, Entry, Item, Menu, Pixels, TITLE};
use crate::app::{AgentError, finish};

/// Windows and macOS scale it to the size of their trays.
const SIZE: u16 = 48;

/// What the event loop is told by other threads.
#[derive(Debug)]
enum Message {
    Show(Box<View>),
    Clicked(MenuId),
    End,
}

/// Runs `agent` until it ends, and shows `views` meanwhile.
pub(super) fn run(
    runtime: Runtime,
    agent: impl Future<Output = Result<(), AgentError>> + Send + 'static,
    mut views: Views,
    clicked: mpsc::Sender<Action>,
) -> Result<(), AgentError> {
    let event_loop = match event_loop() {
        Ok(event_loop) => event_loop,
        Err(error) => {
            tracing::info!(%error, "There is no desktop to show the icon on");
            return finish(runtime, agent);
        }
    };
    let proxy = event_loop.create_proxy();
    MenuEvent::set_event_handler(Some(move |event: MenuEvent| {
        tell(&proxy, Message::Clicked(event.id));
    }));
    let mut tray = Tray {
        shown: None,
        view: views.last(),
        clicked,
    };
    let end = EndsLoop(event_loop.create_proxy());
    let serving = async move {
        tokio::select! {
            ended = agent => ended,
            never = forward(&mut views, &end.0) => match never {},
        }
    };
    let agent = thread::Builder::new().name("agent".to_owned());
    let agent = agent.spawn(move || finish(runtime, serving));
    let agent = agent.map_err(AgentError::Thread)?;
    if let Err(error) = event_loop.run_app(&mut tray) {
        tracing::warn!(%error, "The icon is gone, the agent serves on");
    }
    agent.join().unwrap_or(Err(AgentError::TaskEnded))
}

fn event_loop() -> Result<EventLoop<Message>, EventLoopError> {
    let mut builder = EventLoop::with_user_event();
    #[cfg(target_os = "macos")]
    {
        use winit::platform::macos::{ActivationPolicy, EventLoopBuilderExtMacOS as _};
        // No icon in the Dock, no menu at the top of the screen.
        builder.with_activation_policy(ActivationPolicy::Accessory);
    }
    builder.build()
}

/// Passes on what is to be shown.
async fn forward(views: &mut Views, proxy: &EventLoopProxy<Message>) -> Infallible {
    loop {
        let view = views.next().await;
        tell(proxy, Message::Show(Box::new(view)));
    }
}

fn tell(proxy: &EventLoopProxy<Message>, message: Message) {
    if proxy.send_event(message).is_err() {
        tracing::debug!("The tray's event loop has ended");
    }
}

/// Ends the event loop with the agent's thread, whatever ends that.
struct EndsLoop(EventLoopProxy<Message>);

impl Drop for EndsLoop {
    fn drop(&mut self) {
        tell(&self.0, Message::End);
    }
}

/// The icon in the system's tray, once it is there.
struct Tray {
    shown: Option<Shown>,
    view: View,
    clicked: mpsc::Sender<Action>,
}

impl ApplicationHandler<Message> for Tray {
    fn new_events(&mut self, _event_loop: &ActiveEventLoop, cause: StartCause) {
        if cause == StartCause::Init {
            self.show();
        }
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, message: Message) {
        match message {
            Message::Show(view) => self.update(*view),
            Message::Clicked(id) => self.click(&id),
            Message::End => event_loop.exit(),
        }
    }

    fn resumed(&mut self, _event_loop: &ActiveEventLoop) {}

    fn window_event(&mut self, _: &ActiveEventLoop, _window: WindowId, _event: WindowEvent) {}
}

struct Shown {
    icon: TrayIcon,
    actions: Vec<(MenuId, Action)>,
}

impl Tray {
    /// Puts the icon into the tray; without one, every later change tries again.
    fn show(&mut self) {
        let (menu, actions) = native(&self.view.menu);
        let built = TrayIconBuilder::new()
            .with_id(env!("CARGO_PKG_NAME"))
            .with_title(TITLE)
            .with_tooltip(&self.view.tooltip)
            .with_icon(picture(&self.view.icon.draw(SIZE)))
            .with_menu(menu)
            .build();
        match built {
            Ok(icon) => self.shown = Some(Shown { icon, actions }),
            Err(error) => tracing::info!(%error, "There is no tray to show the icon in"),
        }
    }

    fn update(&mut self, view: View) {
        let before = std::mem::replace(&mut self.view, view);
        let Some(shown) = &mut self.shown else {
            self.show();
            return;
        };
        let view = &self.view;
        if view.menu != before.menu {
            let (menu, actions) = native(&view.menu);
            shown.icon.set_menu(Some(menu));
            shown.actions = actions;
        }
        let icon = (view.icon != before.icon).then(|| picture(&view.icon.draw(SIZE)));
        let updated = icon.map_or(Ok(()), |icon| shown.icon.set_icon(Some(icon)));
        let updated = updated.and_then(|()| shown.icon.set_tooltip(Some(&view.tooltip)));
        if let Err(error) = updated {
            tracing::debug!(%error, "The icon could not be changed");
        }
    }

    fn click(&self, id: &MenuId) {
        let actions = self.shown.iter().flat_map(|shown| &shown.actions);
        for (_, action) in actions.filter(|(known, _)| known == id) {
            if self.clicked.try_send(*action).is_err() {
                tracing::debug!(?action, "Too many clicks at once");
            }
        }
    }
}

fn picture(pixels: &Pixels) -> tray_icon::Icon {
    let mut rgba = pixels.argb.clone();
    for pixel in rgba.chunks_exact_mut(4) {
        pixel.rotate_left(1);
    }
    let size = u32::from(pixels.size);
    tray_icon::Icon::from_rgba(rgba, size, size).expect("the picture is square")
}

/// Makes the system's menu, with what a click on each of its items asks for.
fn native(menu: &Menu) -> (Box<dyn ContextMenu>, Vec<(MenuId, Action)>) {
    let mut actions = Vec::new();
    let mut item = |item: &Item| -> Box<dyn IsMenuItem> {
        let native = MenuItem::new(without_mnemonic(&item.label), item.action.is_some(), None);
        actions.extend(item.action.map(|action| (native.id().clone(), action)));
        Box::new(native)
    };
    let entries = menu.0.iter().map(|entry| match entry {
        Entry::Separator => Box::new(PredefinedMenuItem::separator()) as Box<dyn IsMenuItem>,
        Entry::Item(one) => item(one),
        Entry::Submenu { label, items } => {
            let is_enabled = items.iter().any(|item| item.action.is_some());
            let submenu = Submenu::new(without_mnemonic(label), is_enabled);
            for one in items {
                append(submenu.append(&*item(one)));
            }
            Box::new(submenu)
        }
    });
    let entries: Vec<_> = entries.collect();
    let native = NativeMenu::new();
    for entry in &entries {
        append(native.append(&**entry));
    }
    (Box::new(native), actions)
}

fn append(appended: tray_icon::menu::Result<()>) {
    if let Err(error) = appended {
        tracing::debug!(%error, "A line of the menu could not be added");
    }
}

/// An ampersand underlines the next letter; two are one.
fn without_mnemonic(label: &str) -> String {
    label.replace('&', "&&")
}
