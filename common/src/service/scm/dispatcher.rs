//! The conversation with Windows' service manager: starting, running, stopping, stopped.

use std::ffi::OsString;
use std::sync::OnceLock;
use std::time::Duration;

use windows_service::define_windows_service;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    self, ServiceControlHandlerResult, ServiceStatusHandle,
};
use windows_service::service_dispatcher;

use super::super::{Product, ServiceError};
use crate::shutdown::Shutdown;

/// Windows calls `service_main` without anything of ours, and only once in a process.
static STARTED: OnceLock<(Product, Vec<String>)> = OnceLock::new();

define_windows_service!(service_main, run);

/// Serves until Windows asks for a stop.
pub(super) fn serve(product: &Product, flags: Vec<String>) -> Result<(), ServiceError> {
    let (product, flags) = STARTED.get_or_init(|| (*product, flags));
    tracing::debug!(
        service = product.name,
        flags = flags.len(),
        "Asking Windows to start"
    );
    service_dispatcher::start(product.name, service_main).map_err(failed)
}

fn run(_arguments: Vec<OsString>) {
    let Some((product, flags)) = STARTED.get() else {
        return;
    };
    if let Err(error) = talk(product, flags.clone()) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "Windows was not told"
        );
    }
}

fn talk(product: &Product, flags: Vec<String>) -> Result<(), ServiceError> {
    let shutdown = Shutdown::default();
    let asked = shutdown.clone();
    let handle = service_control_handler::register(product.name, move |control| {
        if control == ServiceControl::Stop || control == ServiceControl::Preshutdown {
            asked.trigger();
        } else if control != ServiceControl::Interrogate {
            return ServiceControlHandlerResult::NotImplemented;
        }
        ServiceControlHandlerResult::NoError
    })
    .map_err(failed)?;
    tell(handle, ServiceState::Running, 0, product.stops_within)?;
    let code = (product.serve)(flags, shutdown);
    tell(handle, ServiceState::Stopped, code, Duration::ZERO)
}

fn tell(
    handle: ServiceStatusHandle,
    state: ServiceState,
    code: u8,
    stops_within: Duration,
) -> Result<(), ServiceError> {
    let controls_accepted = if state == ServiceState::Running {
        ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN
    } else {
        ServiceControlAccept::empty()
    };
    let exit_code = match code {
        0 => ServiceExitCode::Win32(0),
        code => ServiceExitCode::ServiceSpecific(code.into()),
    };
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted,
        exit_code,
        checkpoint: 0,
        wait_hint: stops_within,
        process_id: None,
    };
    handle.set_service_status(status).map_err(failed)
}

fn failed(error: windows_service::Error) -> ServiceError {
    ServiceError::Scm(error.to_string())
}
