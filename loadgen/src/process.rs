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
        let mut usage = Self::default();
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let (first, others) = (Stat::of(pid)?, descendants(pid));
        let others = others.into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?)));
        for (member, stat) in std::iter::once((pid, first)).chain(others) {
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
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

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

/// All living descendants of a process.
///
/// They are asked for while the threads that measure want the same processors, so the kernel's lists of children are
/// followed where it keeps them: a few files instead of one for each process of the machine.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = Some(pid);
    while let Some(parent) = next {
        let Some(children) = children(parent) else { return descendants_by_parents(pid) };
        found.extend(children);
        // Whoever is in the list has been seen or is yet to come; a chain that closes would be the kernel's mistake.
        let at = found.iter().position(|&it| it == parent).map_or(0, |at| at + 1);
        next = found.get(at).copied();
    }
    found
}

/// The children of a process, of each of its threads (proc_pid_task_tid_children(5)); none if the kernel does not say.
fn children(pid: u32) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(found) };
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|it| it.parse::<u32>().ok())),
            // A thread that has ended meanwhile has no directory either.
            Err(_) if thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// The same by looking at the parent of every process.
fn descendants_by_parents(pid: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let processes = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let stats: BTreeMap<u32, Stat> = processes.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect();
    stats.keys().copied().filter(|&it| it != pid && is_descendant(it, pid, &stats)).collect()
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
    fn both_ways_find_children_and_theirs() {
        // The shell stays, because it has something to do after the sleeper.
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 1000; true"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let ours = |pid: u32| (descendants(pid), descendants_by_parents(pid));
        let mut sleeper = Vec::new();
        while sleeper.is_empty() {
            sleeper = ours(shell.id()).0;
        }
        let (by_lists, by_parents) = ours(std::process::id());
        assert_eq!(ours(shell.id()).1, sleeper);
        for pid in sleeper.into_iter().chain([shell.id()]) {
            assert!(by_lists.contains(&pid) && by_parents.contains(&pid), "{pid}");
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
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
