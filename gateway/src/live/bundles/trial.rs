//! A new generation is on trial until a process has lived with it for a while. Whoever starts and finds the trial of a process that is
//! dead counts a death.
//!
//! One file per generation, `trial` beside its manifest; it is gone once the trial is over. A process that ends in order leaves it, and
//! is no death. Not here: what follows of deaths.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::super::copies::write_durably;

/// How long a process has to live with a generation.
pub(super) const TRIAL: Duration = Duration::from_secs(60);

/// Deaths that put a generation aside.
pub(super) const DEATHS: u32 = 2;

/// Deaths that put a generation aside that served and has none before it.
pub(super) const DEATHS_ALONE: u32 = 5;

/// First line of the file.
const FORMAT: &str = "tollgate trial 1";

/// A trial, as it stands on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trial {
    /// Processes that died of it.
    pub(super) deaths: u32,
    /// What it is put to.
    pub(super) phase: Phase,
    /// The process that is at it.
    pub(super) life: Option<Life>,
}

/// How far it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing else happens meanwhile: a death now is its own.
    Compiling,
    #[default]
    Serving,
}

/// One life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    process: u32,
    /// When it began, in the system's own measure; another process under the same number began later.
    began: u64,
}

impl Trial {
    /// The trial of the generation in this directory, if it is on trial. One that is damaged counts from the start again.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let bytes = fs::read(directory.join("trial")).ok()?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        Some(Self::parse(&text).unwrap_or_default())
    }

    /// Writes it down, durably.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let fresh = directory.join("trial.new");
        write_durably(&fresh, self.text().as_bytes())?;
        fs::rename(&fresh, directory.join("trial"))?;
        fs::File::open(directory)?.sync_all()
    }

    /// It is over.
    pub(super) fn end(directory: &Path) -> io::Result<()> {
        match fs::remove_file(directory.join("trial")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn text(&self) -> String {
        let phase = match self.phase {
            Phase::Compiling => "compiling",
            Phase::Serving => "serving",
        };
        let life = match self.life {
            Some(Life { process, began }) => format!("{process} {began}"),
            None => "none".to_owned(),
        };
        format!(
            "{FORMAT}\ndeaths {}\nphase {phase}\nlife {life}\n",
            self.deaths
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        if lines.next() != Some(FORMAT) {
            return None;
        }
        let deaths = lines.next()?.strip_prefix("deaths ")?.parse().ok()?;
        let phase = match lines.next()? {
            "phase compiling" => Phase::Compiling,
            "phase serving" => Phase::Serving,
            _ => return None,
        };
        let life = match lines.next()?.strip_prefix("life ")? {
            "none" => None,
            life => {
                let (process, began) = life.split_once(' ')?;
                Some(Life {
                    process: process.parse().ok()?,
                    began: began.parse().ok()?,
                })
            }
        };
        Some(Self {
            deaths,
            phase,
            life,
        })
    }
}

impl Life {
    /// Of this process.
    pub(super) fn own() -> Self {
        let process = std::process::id();
        Self {
            process,
            began: began(process).unwrap_or_default(),
        }
    }

    /// Another process that still lives, as a predecessor does that hands over.
    pub(super) fn goes_on_elsewhere(&self) -> bool {
        *self != Self::own() && began(self.process) == Some(self.began)
    }
}

/// When a process began; nothing where there is none, or where the system does not say.
fn began(process: u32) -> Option<u64> {
    /// Of proc_pid_stat(5), counted from the state, which comes after the name.
    const START_TIME: usize = 19;
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(START_TIME)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_read_as_it_was_written_and_a_damaged_one_counts_anew() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Trial::read(directory.path()), None);
        let trial = Trial {
            deaths: 1,
            phase: Phase::Compiling,
            life: Some(Life::own()),
        };
        trial.write(directory.path()).unwrap();
        assert_eq!(Trial::read(directory.path()), Some(trial));
        let whole = trial.text();
        for end in 0..whole.len() {
            fs::write(directory.path().join("trial"), &whole[..end]).unwrap();
            assert_eq!(Trial::read(directory.path()), Some(Trial::default()));
        }
        Trial::end(directory.path()).unwrap();
        Trial::end(directory.path()).unwrap();
        assert_eq!(Trial::read(directory.path()), None);
    }

    #[test]
    fn only_another_process_goes_on_elsewhere() {
        assert!(!Life::own().goes_on_elsewhere());
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let life = Life {
            process: other.id(),
            began: began(other.id()).unwrap(),
        };
        assert!(life.goes_on_elsewhere());
        let earlier = Life {
            began: life.began - 1,
            ..life
        };
        assert!(!earlier.goes_on_elsewhere());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!life.goes_on_elsewhere());
    }
}
