//! What the panel does with settings: shows them, tries them, saves them.

use std::sync::Arc;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::doctor::{Check, CheckId, connection};
use parking_lot::Mutex;

use super::form::{self, Field, Sent};
use crate::autostart::{self, AtLogin, Start};
use crate::config::{Args, Config, ConfigError, DEFAULT_COORDINATOR_PORT, Given, Setting};
use crate::control::Control;
use crate::doctor::TIMEOUTS;
use crate::error_chain;
use crate::settings::SettingsFile;

/// Reads and writes the settings file for the panel, one request at a time. Clones do it for the same
/// agent.
#[derive(Debug, Clone)]
pub(super) struct SettingsDesk {
    given: Given,
    control: Control,
    writing: Arc<Mutex<()>>,
}

/// The form, with what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) fields: Vec<Field>,
    /// Whether the agent starts at login.
    pub(super) starts_at_login: AtLogin,
    /// Where the settings are kept.
    pub(super) file: Option<String>,
    /// Why they cannot be shown or kept.
    pub(super) error: Option<String>,
    /// What is not in force as it is written or given now.
    pub(super) pending: Vec<Setting>,
}

impl SettingsDesk {
    pub(super) fn new(given: Given, control: Control) -> Self {
        Self {
            given,
            control,
            writing: Arc::default(),
        }
    }

    /// Returns the form as the settings are.
    pub(super) async fn form(&self) -> Form {
        let desk = self.clone();
        blocking(move || desk.current()).await
    }

    /// Tries the coordinator of a form, without keeping anything.
    pub(super) async fn test(&self, sent: &Sent) -> (Form, Option<Vec<Check>>) {
        let mut form = self.form().await;
        form::fill(&mut form.fields, sent);
        let mut fields = form.fields.iter();
        let coordinator = fields.find(|field| field.setting == Setting::Coordinator);
        let Some(coordinator) = coordinator.filter(|field| !field.value.is_empty()) else {
            return (form, None);
        };
        let checks = try_coordinator(&coordinator.value).await;
        (form, Some(checks))
    }

    /// Keeps the settings of a form, and goes on with what the file then says, whoever wrote it.
    ///
    /// # Errors
    /// Returns the form with what is wrong.
    pub(super) async fn save(&self, sent: Sent) -> Result<(), Form> {
        let desk = self.clone();
        blocking(move || {
            let _alone = desk.writing.lock();
            let mut form = desk.current();
            form::fill(&mut form.fields, &sent);
            if form.error.is_some() || form.fields.iter().any(|field| field.error.is_some()) {
                return Err(form);
            }
            match keep(&desk.given, &form, &sent) {
                Ok(config) => desk.control.apply(config),
                Err(error) => {
                    let error = Some(error);
                    return Err(Form { error, ..form });
                }
            }
            Ok(())
        })
        .await
    }

    fn current(&self) -> Form {
        let given = &self.given;
        let file = given.settings_file();
        let read = || {
            let file = match file {
                Some(path) => SettingsFile::open(path)?.args().clone(),
                None => Args::default(),
            };
            let resolved = given.resolve_with(&file)?;
            let in_force = self.control.wanted().borrow().settings();
            let pending = resolved.config.settings().differences(&in_force);
            Ok::<_, ConfigError>((form::fields(given, &resolved, &file), pending))
        };
        let ((fields, pending), error) = match read() {
            Ok(read) => (read, None),
            Err(error) => ((Vec::new(), Vec::new()), Some(error_chain(&error))),
        };
        Form {
            fields,
            starts_at_login: AtLogin::look(),
            file: file.map(|path| path.display().to_string()),
            error,
            pending,
        }
    }
}

/// Looks at the way to a coordinator, layer by layer.
async fn try_coordinator(url: &str) -> Vec<Check> {
    match BaseUrl::parse(url.trim(), DEFAULT_COORDINATOR_PORT) {
        Ok(server) => {
            let dial = Dial::from_environment();
            connection::look(&server, &dial, TIMEOUTS).await.checks
        }
        Err(error) => vec![
            Check::error(CheckId::Settings, error.to_string()).with_remedy(
                "write it as the coordinator prints it, such as http://192.168.1.10:11400",
            ),
        ],
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("reading and writing files does not panic")
}

fn keep(given: &Given, form: &Form, sent: &Sent) -> Result<Config, String> {
    let told = |error: &dyn std::error::Error| error_chain(error);
    set_autostart(given, form, sent)
        .map_err(|error| format!("start at login: {}", told(&error)))?;
    let path = given.settings_file();
    let path = path.ok_or_else(|| told(&ConfigError::NoHome))?;
    let mut file = SettingsFile::open(path).map_err(|error| told(&error))?;
    let changes = form::news(&file, form::changes(&form.fields));
    let is_news = !changes.is_empty();
    if is_news {
        file = file.changed(changes).map_err(|error| told(&error))?;
    }
    let resolved = given.resolve_with(file.args());
    let resolved = resolved.map_err(|error| told(&error))?;
    if is_news {
        file.save().map_err(|error| told(&error))?;
        tracing::info!(file = %path.display(), "Settings were saved from the panel");
    }
    Ok(resolved.config)
}

fn set_autostart(given: &Given, form: &Form, sent: &Sent) -> std::io::Result<()> {
    match (form.starts_at_login.choice(), sent.start_at_login.is_some()) {
        (Some(false), true) => autostart::turn_on(&Start::this_program(given)?),
        (Some(true), false) => autostart::turn_off(),
        (Some(true), true) | (Some(false), false) | (None, _) => Ok(()),
    }
}
