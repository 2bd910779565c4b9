//! The panel's page. Every text that came from elsewhere is escaped by the markup itself.

use std::time::SystemTime;

use maud::{DOCTYPE, Markup, html};
use ollama_coordinator_common::doctor::Check;

use super::access::Refusal;
use super::findings::findings;
use super::form::Field;
use super::settings::Form;
use super::summary::{Tone, facts, summary};
use crate::autostart::AtLogin;
use crate::config::{Origin, Setting};
use crate::status::AgentStatus;

/// What came of what was just done.
#[derive(Debug, Clone)]
pub(super) enum Notice {
    /// The settings are kept.
    Saved,
    /// The coordinator was tried.
    Tried(Vec<Check>),
}

/// Returns the whole page.
pub(super) fn panel(status: &AgentStatus, form: &Form, notice: Option<&Notice>) -> Markup {
    document(&html! {
        header.top {
            h1 { "Ollama Agent" }
            p.muted { (status.machine_name) }
        }
        (status_section(status))
        (settings_section(status, form, notice))
    })
}

/// Returns the page for somebody who may not see the other one.
pub(super) fn refused(refusal: Refusal) -> Markup {
    let (title, detail) = match refusal {
        Refusal::Secret => (
            "This page opens by its link",
            "Choose “Open this machine's settings” in the tray, or run ollama-agent panel on this \
             machine and open the link that it prints. What an earlier start of the agent has opened \
             is closed.",
        ),
        Refusal::Ticket => (
            "This link opens nothing any more",
            "A link opens this page once, within a minute after it was made. For another one choose \
             “Open this machine's settings” in the tray, or run ollama-agent panel on this machine and \
             open the link that it prints. If this one was new and nobody has used it here, another \
             user of this machine may have: then restart the agent.",
        ),
        Refusal::Origin => (
            "Another page has sent you here",
            "Nothing was done. To use the settings of this machine, open them from the tray, or by \
             the link that ollama-agent panel prints.",
        ),
        Refusal::Host => (
            "This is not the name of this page",
            "The settings panel answers as 127.0.0.1 and localhost only.",
        ),
    };
    document(&html! {
        header.top { h1 { "Ollama Agent" } }
        section.card { h2 { (title) } p { (detail) } }
    })
}

fn document(body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Ollama Agent" }
                link rel="stylesheet" href="/panel.css";
                script src="/panel.js" defer {}
            }
            body { main { (body) } }
        }
    }
}

fn status_section(status: &AgentStatus) -> Markup {
    let summary = summary(status, SystemTime::now());
    html! {
        section #status .card aria-labelledby="headline" {
            div.state.(class(summary.tone)) role="status" {
                (mark(summary.tone))
                div {
                    h2 #headline { (summary.headline) }
                    p { (summary.detail) }
                }
            }
            dl.facts {
                @for (name, value) in facts(status) {
                    dt { (name) }
                    dd { (value) }
                }
            }
            (pause_buttons(status))
        }
    }
}

fn pause_buttons(status: &AgentStatus) -> Markup {
    html! {
        div.buttons {
            @if status.paused.is_some() {
                form method="post" action="resume" { button.primary { "Resume sharing" } }
            } @else if status.coordinator.is_some() {
                form method="post" action="pause?for=30m" { button { "Pause 30 minutes" } }
                form method="post" action="pause?for=1h" { button { "Pause 1 hour" } }
                form method="post" action="pause" { button { "Pause until I resume" } }
            }
        }
    }
}

fn settings_section(status: &AgentStatus, form: &Form, notice: Option<&Notice>) -> Markup {
    let pending = form.pending.iter().copied();
    let (by_start, by_save): (Vec<_>, Vec<_>) = pending.partition(|it| it.needs_a_start());
    html! {
        section.card aria-labelledby="settings" {
            h2 #settings { "Settings" }
            @if let Some(Notice::Saved) = notice {
                (saved(status.is_outdated || !by_save.is_empty() || form.error.is_some()))
            }
            @if !by_save.is_empty() {
                p.notice role="status" {
                    "Changed elsewhere, and not in force: " (listed(&by_save)) ". Save applies it."
                }
            }
            @if !by_start.is_empty() {
                p.notice role="status" {
                    "In force with the next start of the agent only: " (listed(&by_start)) "."
                }
            }
            @if let Some(error) = &form.error {
                p.notice.bad role="alert" { (error) }
            }
            form method="post" action="settings" {
                @for field in &form.fields {
                    (input(field))
                    @if let (Setting::Coordinator, Some(Notice::Tried(checks))) = (field.setting, notice) {
                        (findings(checks))
                    }
                }
                @if let Some(is_on) = form.starts_at_login.choice() {
                    label.check {
                        input type="checkbox" name="start_at_login" value="yes" checked[is_on];
                        "Start when I log in"
                    }
                }
                @if let AtLogin::Service(entry) = &form.starts_at_login {
                    p.muted.small { "Starts by itself, as a service (" code { (entry) } "), so not at login too." }
                }
                div.buttons {
                    button.primary name="action" value="save" { "Save" }
                    button name="action" value="test" { "Test connection" }
                }
            }
            @if let Some(file) = &form.file {
                p.muted.small { "Kept in " code { (file) } ". What is empty is decided by the agent." }
            }
        }
    }
}

fn saved(is_pending: bool) -> Markup {
    html! {
        p.notice.good role="status" {
            @if is_pending {
                "Saved. The settings are not in force yet."
            } @else {
                "Saved. The settings are in force."
            }
        }
    }
}

fn listed(settings: &[Setting]) -> String {
    let labels: Vec<&str> = settings.iter().map(|it| words(*it).label).collect();
    labels.join(", ")
}

fn input(field: &Field) -> Markup {
    let Words { label, help, kind } = words(field.setting);
    let id = field.setting.key();
    let error_id = format!("{id}-error");
    let help_id = format!("{id}-help");
    let described = match &field.error {
        Some(_) => format!("{error_id} {help_id}"),
        None => help_id.clone(),
    };
    let is_fixed = field.fixed_by.is_some();
    html! {
        div.field {
            label for=(id) { (label) }
            input #(id) name=(id) type="text" inputmode=(kind) value=(field.value)
                placeholder=(field.otherwise) readonly[is_fixed] autocomplete="off"
                spellcheck="false" aria-describedby=(described)
                aria-invalid=[field.error.as_ref().map(|_| "true")];
            @if let Some(error) = &field.error {
                p.error #(error_id) { (error) }
            }
            p.muted.small #(help_id) {
                @match &field.fixed_by {
                    Some(origin) => (fixed(field.setting, origin)),
                    None => (help),
                }
            }
        }
    }
}

fn fixed(setting: Setting, origin: &Origin) -> String {
    match origin {
        Origin::Environment(name) => format!("Fixed by the environment variable {name}."),
        Origin::Flag | Origin::File | Origin::Default => format!(
            "Fixed by the flag {} with which the agent was started.",
            setting.flag()
        ),
    }
}

struct Words {
    label: &'static str,
    help: &'static str,
    kind: &'static str,
}

fn words(setting: Setting) -> Words {
    let (label, help, kind) = match setting {
        Setting::Coordinator => (
            "Coordinator",
            "Its URL, such as http://192.168.1.10:11400; the port may be left out.",
            "url",
        ),
        Setting::MachineName => (
            "Name of this machine",
            "What others see. Empty: the system's name.",
            "text",
        ),
        Setting::Runtime => (
            "Runtime",
            "Where Ollama, or another model server, answers on this machine.",
            "url",
        ),
        Setting::Capacity => (
            "Requests at once",
            "1 to 10000. Empty: as many as the runtime says.",
            "numeric",
        ),
        Setting::Advertise
        | Setting::StateDir
        | Setting::RegisterRetryInterval
        | Setting::RegisterMaxAttempts
        | Setting::HeartbeatInterval
        | Setting::LogFormat
        | Setting::Panel => (setting.key(), "", "text"),
    };
    Words { label, help, kind }
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Resting => "resting",
        Tone::Waiting => "waiting",
        Tone::Bad => "bad",
    }
}

/// The state by its shape, not by its colour alone; the shapes of the dashboard.
fn mark(tone: Tone) -> Markup {
    html! {
        svg viewBox="0 0 12 12" width="28" height="28" aria-hidden="true" {
            @match tone {
                Tone::Good => circle cx="6" cy="6" r="4.5" fill="currentColor" {},
                Tone::Resting => path d="M3 2h2v8H3zM7 2h2v8H7z" fill="currentColor" {},
                Tone::Waiting => circle cx="6" cy="6" r="4" fill="none" stroke="currentColor"
                    stroke-width="1.5" stroke-dasharray="2 2" {},
                Tone::Bad => path d="M6 1l5.500 10H.500z" fill="currentColor" {},
            }
        }
    }
}
