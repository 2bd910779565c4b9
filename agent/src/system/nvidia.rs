//! NVIDIA's GPUs, as its driver's own tool lists them.

use std::process::Stdio;
use std::time::Duration;

use ollama_coordinator_common::protocol::system::Gpu;
use tokio::process::Command;

use super::GpuReading;

const TOOL: &str = "nvidia-smi";
const QUERY: &str = "--query-gpu=name,memory.total,driver_version,utilization.gpu,memory.used,\
                     temperature.gpu";
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the driver; `None` when the tool is missing, fails or takes too long.
pub(super) async fn read() -> Option<Vec<GpuReading>> {
    let asked = Command::new(TOOL)
        .args([QUERY, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, asked).await.ok()?.ok()?;
    if !output.status.success() {
        return None;
    }
    Some(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads one GPU per line; a figure that the GPU does not tell, such as `[N/A]`, stays unknown.
fn parse(csv: &str) -> Vec<GpuReading> {
    csv.lines().filter_map(reading).collect()
}

fn reading(line: &str) -> Option<GpuReading> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [name, memory, driver, busy, used, temperature] = fields.as_slice() else {
        return None;
    };
    let mebibytes = |text: &str| text.parse::<u64>().ok()?.checked_mul(1024 * 1024);
    let told = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty() && !t.starts_with('['));
    Some(GpuReading {
        gpu: Gpu {
            name: told(name)?,
            memory_bytes: mebibytes(memory),
            driver: told(driver),
        },
        busy_percent: busy.parse().ok(),
        memory_used_bytes: mebibytes(used),
        temperature_celsius: temperature.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_gpu_is_a_line() {
        let csv = "NVIDIA GeForce RTX 3090, 24576, 570.86, 12, 1024, 45\n\
                   NVIDIA GB10, [N/A], 580.1, [N/A], [Not Supported], 50\n";

        let gpus = parse(csv);

        assert_eq!(gpus.len(), 2);
        assert_eq!(gpus[0].gpu.name, "NVIDIA GeForce RTX 3090");
        assert_eq!(gpus[0].gpu.memory_bytes, Some(24_576 * 1024 * 1024));
        assert_eq!(gpus[0].gpu.driver.as_deref(), Some("570.86"));
        assert_eq!(gpus[0].busy_percent, Some(12.0));
        assert_eq!(gpus[0].memory_used_bytes, Some(1024 * 1024 * 1024));
        assert_eq!(gpus[0].temperature_celsius, Some(45.0));
        assert_eq!(gpus[1].gpu.memory_bytes, None);
        assert_eq!(gpus[1].busy_percent, None);
    }

    #[test]
    fn other_output_names_no_gpu() {
        assert_eq!(parse("No devices were found\n"), []);
        assert_eq!(parse(""), []);
    }

    proptest! {
        #[test]
        fn any_output_is_read_without_a_panic(csv in "(\\PC|,|\n){0,200}") {
            prop_assert!(parse(&csv).len() <= csv.lines().count());
        }
    }
}
