//! What the machine is and how busy it is. Nothing here blocks the async threads.

mod nvidia;

use ollama_coordinator_common::protocol::system::{Gpu, Metrics, SystemInfo};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant};

use crate::platform;

/// Asking NVIDIA's driver means starting a process, which is not done with every sample.
const NVIDIA_PERIOD: Duration = Duration::from_secs(30);

/// One GPU and its load, as far as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuReading {
    /// What it is.
    pub gpu: Gpu,
    /// How busy it is, in per cent.
    pub busy_percent: Option<f32>,
    /// Bytes of its memory in use.
    pub memory_used_bytes: Option<u64>,
    /// Its temperature.
    pub temperature_celsius: Option<f32>,
}

/// Describes the machine; what the system does not tell stays unknown.
pub async fn describe() -> SystemInfo {
    let (nvidia, machine) = tokio::join!(nvidia::read(), spawn_blocking(describe_machine));
    let (mut info, cards) = machine.unwrap_or_default();
    let gpus = merged(nvidia.as_deref(), cards.as_deref());
    info.gpus = gpus.map(|gpus| gpus.into_iter().map(|reading| reading.gpu).collect());
    info
}

/// Publishes the machine's load every `period`, for ever.
pub async fn watch_load(period: Duration, load: watch::Sender<Option<Metrics>>) {
    let mut nvidia = nvidia::read().await;
    let mut nvidia_read_at = Instant::now();
    // A share of processor time is measured between two samples: the first one has none.
    let mut system = System::new().ok();
    loop {
        let (sampled, sample) = match spawn_blocking(move || sample(system)).await {
            Ok(sampled) => sampled,
            Err(error) => {
                tracing::debug!(%error, "Could not sample the machine's load");
                (None, (Metrics::default(), None))
            }
        };
        system = sampled;
        let (mut metrics, cards) = sample;
        if nvidia.is_some() && nvidia_read_at.elapsed() >= NVIDIA_PERIOD {
            nvidia = nvidia::read().await;
            nvidia_read_at = Instant::now();
        }
        add_gpus(
            &mut metrics,
            merged(nvidia.as_deref(), cards.as_deref()).as_deref(),
        );
        load.send_replace(Some(metrics));
        tokio::time::sleep(period).await;
    }
}

type Cards = Option<Vec<GpuReading>>;

fn describe_machine() -> (SystemInfo, Cards) {
    let kinds = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds).ok();
    let cpus = system.as_ref().map(System::cpus).unwrap_or_default();
    let brand = cpus.first().map(|cpu| cpu.brand().trim().to_owned());
    let info = SystemInfo {
        os: System::long_os_version().ok(),
        arch: Some(System::cpu_arch()).filter(|arch| !arch.is_empty()),
        cpu: brand.filter(|brand| !brand.is_empty()),
        cpu_cores: u32::try_from(cpus.len()).ok().filter(|cores| *cores > 0),
        memory_bytes: system
            .as_ref()
            .map(System::total_memory)
            .filter(|bytes| *bytes > 0),
        gpus: None,
    };
    (info, platform::graphics_cards())
}

fn sample(system: Option<System>) -> (Option<System>, (Metrics, Cards)) {
    let mut metrics = Metrics::default();
    let system = system.map(|mut system| {
        let is_first = system.cpus().is_empty();
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let share = system.global_cpu_usage().clamp(0.0, 100.0);
        metrics.cpu_percent = (!is_first).then_some(share);
        metrics.memory_used_bytes = Some(system.used_memory());
        system
    });
    (system, (metrics, platform::graphics_cards()))
}

/// Returns all GPUs; `None` only when nobody could tell.
fn merged(nvidia: Option<&[GpuReading]>, cards: Option<&[GpuReading]>) -> Cards {
    if nvidia.is_none() && cards.is_none() {
        return None;
    }
    Some([nvidia.unwrap_or_default(), cards.unwrap_or_default()].concat())
}

fn add_gpus(metrics: &mut Metrics, gpus: Option<&[GpuReading]>) {
    let gpus = gpus.unwrap_or_default();
    let busy: Vec<f32> = gpus.iter().filter_map(|gpu| gpu.busy_percent).collect();
    if let Ok(count @ 1..) = u16::try_from(busy.len()) {
        metrics.gpu_percent = Some(busy.iter().sum::<f32>() / f32::from(count));
    }
    metrics.gpu_memory_used_bytes = gpus
        .iter()
        .filter_map(|gpu| gpu.memory_used_bytes)
        .reduce(u64::saturating_add);
    metrics.gpu_temperature_celsius = gpus
        .iter()
        .filter_map(|gpu| gpu.temperature_celsius)
        .reduce(f32::max);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(busy: Option<f32>, used: Option<u64>, temperature: Option<f32>) -> GpuReading {
        GpuReading {
            gpu: Gpu {
                name: "GPU".to_owned(),
                memory_bytes: None,
                driver: None,
            },
            busy_percent: busy,
            memory_used_bytes: used,
            temperature_celsius: temperature,
        }
    }

    #[test]
    fn load_of_several_gpus_becomes_one_figure_each() {
        let mut metrics = Metrics::default();
        let gpus = [
            reading(Some(20.0), Some(5), Some(40.0)),
            reading(Some(60.0), Some(7), Some(70.0)),
            reading(None, None, None),
        ];

        add_gpus(&mut metrics, Some(&gpus));

        assert_eq!(metrics.gpu_percent, Some(40.0));
        assert_eq!(metrics.gpu_memory_used_bytes, Some(12));
        assert_eq!(metrics.gpu_temperature_celsius, Some(70.0));
    }

    #[test]
    fn unknown_load_stays_unknown() {
        let mut metrics = Metrics::default();

        add_gpus(&mut metrics, None);

        assert_eq!(metrics, Metrics::default());
    }

    #[test]
    fn no_gpu_is_known_only_when_somebody_was_asked() {
        let card = [reading(None, None, None)];

        assert_eq!(merged(None, None), None);
        assert_eq!(merged(None, Some(&[])), Some(vec![]));
        assert_eq!(merged(Some(&card), Some(&card)).unwrap().len(), 2);
    }

    #[tokio::test]
    async fn machine_is_described_and_its_load_is_published() {
        let info = describe().await;
        let (tx, mut rx) = watch::channel(None);

        let sampling = watch_load(Duration::from_hours(1), tx);
        let metrics = tokio::select! {
            () = sampling => unreachable!("sampling never ends"),
            metrics = rx.wait_for(Option::is_some) => metrics.unwrap().clone().unwrap(),
        };

        assert!(
            info.memory_bytes > metrics.memory_used_bytes,
            "{info:?} {metrics:?}"
        );
        assert!(info.cpu_cores > Some(0), "{info:?}");
    }
}
