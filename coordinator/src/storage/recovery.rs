//! How the stored registry was come by, in words for the log and `/readyz`.

use std::fmt;
use std::path::PathBuf;

/// What loading had to do to get at the agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// The file was there and whole.
    Clean,
    /// There was nothing to load: the first start.
    New,
    /// The registry of an earlier product was taken over.
    Imported {
        /// From where; that file is unchanged.
        path: PathBuf,
        /// How many agents were taken over.
        agents: usize,
        /// How many of its entries made no sense.
        skipped: usize,
    },
    /// Some records made no sense; the others are loaded.
    Quarantined {
        /// How many.
        records: usize,
        /// Where they are kept.
        evidence: PathBuf,
    },
    /// The file is whole, the journal after it is not; what can be believed is loaded.
    DamagedJournal {
        /// What was wrong with the journal.
        cause: String,
        /// Where it is kept.
        evidence: Vec<PathBuf>,
        /// How many agents are loaded.
        agents: usize,
        /// How many records made no sense.
        quarantined: usize,
    },
    /// The file was damaged or missing; the last good copy is loaded, with its journals.
    FromBackup {
        /// What was wrong with the file, and with journals.
        cause: String,
        /// Where the damaged files are kept; nowhere when the file was missing.
        evidence: Vec<PathBuf>,
        /// How many agents the copy had.
        agents: usize,
        /// How many records of the copy made no sense.
        quarantined: usize,
    },
    /// File and copy were damaged: the registry starts empty and agents register again.
    Empty {
        /// What was wrong with the file.
        cause: String,
        /// Where the damaged files are kept.
        evidence: Vec<PathBuf>,
    },
}

impl Recovery {
    /// Returns the stable word for this outcome.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::New => "new",
            Self::Imported { .. } => "imported",
            Self::Quarantined { .. } => "quarantined_records",
            Self::DamagedJournal { .. } => "damaged_journal",
            Self::FromBackup { .. } => "recovered_from_backup",
            Self::Empty { .. } => "recovered_empty",
        }
    }

    /// Returns whether data may be missing, so that somebody should look.
    pub fn is_suspicious(&self) -> bool {
        match self {
            Self::Clean | Self::New | Self::Imported { .. } => false,
            Self::Quarantined { .. }
            | Self::DamagedJournal { .. }
            | Self::FromBackup { .. }
            | Self::Empty { .. } => true,
        }
    }

    /// Returns whether the file on disk is not (or no longer) what was loaded.
    pub(super) fn calls_for_a_new_file(&self) -> bool {
        match self {
            Self::Clean | Self::New => false,
            Self::Imported { .. }
            | Self::Quarantined { .. }
            | Self::DamagedJournal { .. }
            | Self::FromBackup { .. }
            | Self::Empty { .. } => true,
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => f.write_str("registry loaded"),
            Self::New => f.write_str("no registry yet"),
            Self::Imported {
                path,
                agents,
                skipped,
            } => write!(
                f,
                "{agents} agents imported from {}, {skipped} entries skipped",
                path.display()
            ),
            Self::Quarantined { records, evidence } => write!(
                f,
                "{records} unusable records set aside in {}",
                evidence.display()
            ),
            Self::DamagedJournal {
                cause,
                evidence,
                agents,
                quarantined,
            } => {
                write!(f, "{cause}: {agents} agents loaded")?;
                if *quarantined > 0 {
                    write!(f, ", {quarantined} records set aside")?;
                }
                write_evidence(f, evidence)
            }
            Self::FromBackup {
                cause,
                evidence,
                agents,
                quarantined,
            } => {
                write!(f, "{cause}: {agents} agents loaded from the backup")?;
                if *quarantined > 0 {
                    write!(f, ", {quarantined} of its records set aside")?;
                }
                write_evidence(f, evidence)
            }
            Self::Empty { cause, evidence } => {
                write!(f, "{cause} and no usable backup: the registry starts empty")?;
                write_evidence(f, evidence)
            }
        }
    }
}

fn write_evidence(f: &mut fmt::Formatter<'_>, evidence: &[PathBuf]) -> fmt::Result {
    for path in evidence {
        write!(f, "; damaged file kept as {}", path.display())?;
    }
    Ok(())
}
