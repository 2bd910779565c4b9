//! macOS and other Unixes: what Linux's `/sys` tells is not known here.

use crate::system::GpuReading;

/// Returns nothing: the GPU is part of the processor and its memory is the machine's.
pub(crate) fn graphics_cards() -> Option<Vec<GpuReading>> {
    None
}
