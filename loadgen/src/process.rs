//! Processor time and memory of a process and all its descendants, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

/// What a process tree has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Seconds in user space, of all threads.
    pub user_secs: f64,
    /// Seconds in the kernel, of all threads.
    pub system_secs: f64,
    /// Resident memory in bytes, pages shared between the processes counted once (proportional set size).
    pub memory_bytes: u64,
    /// Living processes.
    pub processes: u64,
    /// Their open descriptors; 0 where they may not be seen.
    pub descriptors: u64,
}

impl Usage {
    /// What the process `pid` and its living descendants have used, and their descendants that ended and were waited
    /// for; none if there is no such process.
    pub fn of_tree(pid: u32) -> Option<Self> {
        Self::gather(pid, memory)
    }

    /// The same, with the resident set size as memory: cheap enough to be asked for all the time.
    pub fn glance(pid: u32) -> Option<Self> {
        Self::gather(pid, |pid| field(pid, "status", "VmRSS:"))
    }

    fn gather(pid: u32, memory: impl Fn(u32) -> Option<u64>) -> Option<Self> {
        let stats: BTreeMap<u32, Stat> = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| {
                Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
            })
            .collect();
        stats.get(&pid)?;
        let mut usage = Self::default();
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        for (&member, stat) in &stats {
            if !is_descendant(member, pid, &stats) {
                continue;
            }
            usage.user_secs += stat.user_ticks as f64 * tick;
            usage.system_secs += stat.system_ticks as f64 * tick;
            usage.memory_bytes += memory(member).unwrap_or(0);
            usage.processes += 1;
            usage.descriptors += fs::read_dir(format!("/proc/{member}/fd")).map_or(0, Iterator::count) as u64;
        }
        Some(usage)
    }

    /// The time used since `before`, with the memory as it is now.
    pub fn since(self, before: Self) -> Self {
        Self {
            user_secs: self.user_secs - before.user_secs,
            system_secs: self.system_secs - before.system_secs,
            ..self
        }
    }

    /// Seconds in user space and in the kernel.
    pub fn total_secs(&self) -> f64 {
        self.user_secs + self.system_secs
    }
}

/// The part of `/proc/PID/stat` that matters here (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The second field is a name in parentheses that may hold spaces and parentheses; the third follows it.
        let rest = line.rsplit_once(") ")?.1;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            user_ticks: number(14)? + number(16)?,
            system_ticks: number(15)? + number(17)?,
        })
    }
}

/// Whether `pid` is `ancestor` or descends from it.
fn is_descendant(pid: u32, ancestor: u32, stats: &BTreeMap<u32, Stat>) -> bool {
    let mut at = pid;
    // A chain of parents is no longer than there are processes; the bound guards against a torn picture.
    for _ in 0..stats.len() {
        if at == ancestor {
            return true;
        }
        match stats.get(&at) {
            Some(stat) if stat.parent != 0 => at = stat.parent,
            _ => return false,
        }
    }
    false
}

/// The proportional set size, or the resident set size where the former may not be read.
fn memory(pid: u32) -> Option<u64> {
    field(pid, "smaps_rollup", "Pss:").or_else(|| field(pid, "status", "VmRSS:"))
}

/// A line of a file in `/proc/PID`, which is in kibibytes, in bytes.
fn field(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        let line = "12 (a) b) c) S 7 1 1 0 -1 4194304 9 0 0 0 150 25 5 1 20 0 4 0 100";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 7, user_ticks: 155, system_ticks: 26 }));
    }

    #[test]
    fn our_own_tree_has_memory_and_one_process_at_least() {
        let usage = Usage::of_tree(std::process::id()).unwrap();
        assert!(usage.memory_bytes > 100_000);
        assert!(usage.processes >= 1 && usage.descriptors >= 3);
    }

    #[test]
    fn nobody_has_no_usage() {
        assert_eq!(Usage::of_tree(u32::MAX), None);
    }

    #[test]
    fn descent_follows_parents_and_ends() {
        let stat = |parent| Stat { parent, user_ticks: 0, system_ticks: 0 };
        let stats = BTreeMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (8, stat(9)), (9, stat(8))]);
        assert!(is_descendant(6, 5, &stats));
        assert!(!is_descendant(5, 6, &stats));
        assert!(!is_descendant(8, 5, &stats));
    }
}
