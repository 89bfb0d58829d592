//! What the kernel says about this process, read from `/proc/self` when the page is asked for.
//!
//! Where a file cannot be read (another system, a hardened container) its series are left out.

use std::fs;

use super::series::{head, line};

/// Clock ticks per second in `/proc`: fixed at 100 by the kernel's interface on every machine we build for.
const TICKS: u64 = 100;

/// Writes the process families under their customary names.
pub(super) fn write_page(page: &mut String) {
    if let Some(ticks) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(cpu_ticks)
    {
        head(
            page,
            "process_cpu_seconds_total",
            "counter",
            "CPU time, user and system.",
        );
        let (seconds, hundredths) = (ticks / TICKS, ticks % TICKS);
        line(
            page,
            format_args!("process_cpu_seconds_total {seconds}.{hundredths:02}"),
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = status_number(&status, "VmRSS:") {
        head(
            page,
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
        );
        line(
            page,
            format_args!(
                "process_resident_memory_bytes {}",
                kibibytes.saturating_mul(1024)
            ),
        );
    }
    if let Some(threads) = status_number(&status, "Threads:") {
        head(page, "process_threads", "gauge", "Threads.");
        line(page, format_args!("process_threads {threads}"));
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // The listing itself holds one.
        let open = entries.count().saturating_sub(1);
        head(page, "process_open_fds", "gauge", "Open file descriptors.");
        line(page, format_args!("process_open_fds {open}"));
    }
    if let Some(limit) = fs::read_to_string("/proc/self/limits")
        .ok()
        .as_deref()
        .and_then(fd_limit)
    {
        head(
            page,
            "process_max_fds",
            "gauge",
            "Limit of open file descriptors.",
        );
        line(page, format_args!("process_max_fds {limit}"));
    }
}

/// Fields 14 and 15; counted after the command, which may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn status_number(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

fn fd_limit(limits: &str) -> Option<u64> {
    let values = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 120 34 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("garbage"), None);
    }

    #[test]
    fn numbers_are_found_by_name() {
        assert_eq!(
            status_number("Name:\tx\nVmRSS:\t  512 kB\nThreads:\t3\n", "VmRSS:"),
            Some(512)
        );
        assert_eq!(
            fd_limit("Max open files            1024   4096   files\n"),
            Some(1024)
        );
        assert_eq!(
            fd_limit("Max open files            unlimited unlimited files\n"),
            None
        );
    }
}
