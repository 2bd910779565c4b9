//! `service run`: the process that Windows' service manager has started. No other system does so.

use super::{Product, ServiceError};

#[cfg(windows)]
mod dispatcher;

/// Serves until Windows asks for a stop.
pub(super) fn serve(product: &Product, flags: Vec<String>) -> Result<(), ServiceError> {
    #[cfg(windows)]
    return dispatcher::serve(product, flags);

    #[cfg(not(windows))]
    {
        let (_product, _flags) = (product, flags);
        Err(ServiceError::NotWindows)
    }
}
