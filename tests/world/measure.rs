//! What a running gateway takes of the machine, and how to give it less.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use super::World;

/// What it held at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub resident_kib: u64,
    pub descriptors: usize,
    /// Lines of `/metrics`.
    pub series: usize,
}

impl World {
    pub fn footprint(&self) -> Footprint {
        Footprint {
            resident_kib: self.memory_kib("VmRSS:"),
            descriptors: self.descriptors(),
            series: self
                .metrics()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .count(),
        }
    }

    /// The most it ever held.
    pub fn peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, field: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|rest| rest.split_whitespace().next());
        kib.and_then(|kib| kib.parse().ok()).expect("a size")
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("the process runs")
            .count()
    }

    /// Values of a label in `/metrics` that begin with this.
    pub fn labels(&self, label: &str, beginning: &str) -> BTreeSet<String> {
        let opening = format!("{label}=\"{beginning}");
        let metrics = self.metrics();
        let found = metrics.lines().filter_map(|line| {
            let rest = line.split_once(&opening)?.1;
            Some(format!("{beginning}{}", rest.split('"').next()?))
        });
        found.collect()
    }

    /// CPU time it takes in `period`.
    pub fn cpu_time_in(&self, period: Duration) -> Duration {
        let before = self.cpu_time();
        std::thread::sleep(period);
        self.cpu_time() - before
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat");
        // After the name, which may hold spaces: state is field 3, user and system time are 14 and 15.
        let rest = stat.rsplit_once(')').expect("a name").1;
        let times = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Lets it open no further file until the returned guard goes; `None`, said aloud, where this machine cannot do that.
    pub fn starve(&self) -> Option<Starved> {
        let limits = self.proc("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let hard = line
            .and_then(|line| line.split_whitespace().nth(4))
            .expect("a limit");
        let starved = Starved {
            id: self.id(),
            hard: hard.to_owned(),
        };
        if starved.limit("1") {
            return Some(starved);
        }
        eprintln!("skipped: prlimit is not there or not permitted");
        std::mem::forget(starved);
        None
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.id())).expect("the process runs")
    }
}

/// A gateway that may open no further file.
pub struct Starved {
    id: u32,
    hard: String,
}

impl Starved {
    fn limit(&self, soft: &str) -> bool {
        let limit = format!("--nofile={soft}:{}", self.hard);
        let id = self.id.to_string();
        let set = Command::new("prlimit")
            .args(["--pid", &id, &limit])
            .status();
        set.is_ok_and(|status| status.success())
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        let _the_process_may_be_gone = self.limit(&self.hard);
    }
}
