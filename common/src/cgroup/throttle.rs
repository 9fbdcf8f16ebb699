//! How often and how long cpu.max held groups back: waits for quota, which look like waits for a CPU.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Cgroup, Tree, task_path, walk};
use crate::proc;

/// Of cpu.stat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Periods in which the quota ran out.
    pub nr_throttled: u64,
    /// Summed over the CPUs on which the group had to stop.
    pub throttled_usec: u64,
}

impl Throttle {
    /// None without such figures: the controller is off here, or the group has gone.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Throttle> {
        parse(&fs::read_to_string(dir.join("cpu.stat")).ok()?)
    }

    fn since(self, start: Throttle) -> Option<Throttle> {
        Some(Throttle {
            nr_throttled: self.nr_throttled.checked_sub(start.nr_throttled)?,
            throttled_usec: self.throttled_usec.checked_sub(start.throttled_usec)?,
        })
    }
}

fn parse(stat: &str) -> Option<Throttle> {
    let field = |name: &str| {
        let mut pairs = stat.lines().filter_map(|line| line.split_once(' '));
        pairs.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
    };
    let nanos = || field("throttled_time").map(|ns| ns / 1000); // cgroup v1
    Some(Throttle {
        nr_throttled: field("nr_throttled")?,
        throttled_usec: field("throttled_usec").or_else(nanos)?,
    })
}

/// Has it a quota? None where the controller is off.
fn is_limited(dir: &Path) -> Option<bool> {
    let free = |file, word| begins_with(&dir.join(file), word);
    free("cpu.max", b"max").or_else(|| free("cpu.cfs_quota_us", b"-")).map(|free| !free)
}

/// Two system calls less than to read it all, for thousands of groups.
fn begins_with(path: &Path, word: &[u8]) -> Option<bool> {
    let mut head = [0; 8];
    let length = File::open(path).ok()?.read(&mut head).ok()?;
    Some(head[..length].starts_with(word))
}

/// Whose waits are measured.
#[derive(Clone, Debug)]
pub enum Scope {
    Everything,
    /// These groups; their descendants belong to them.
    Cgroups(Vec<Cgroup>),
    /// With all their threads, which may be in groups of their own.
    Processes(Vec<u32>),
    Threads(Vec<u32>),
}

/// What came of a [`ThrottleWatch`].
#[derive(Debug, Default)]
pub struct Throttling {
    /// Groups that were throttled meanwhile, the longest first.
    pub groups: Vec<(Cgroup, Throttle)>,
    /// Groups of which it cannot be said: gone before the end, not mounted here, or with an older count
    /// that is not known.
    pub untold: usize,
}

/// Figures of the groups with a quota, at the start.
#[derive(Debug)]
pub struct ThrottleWatch {
    trees: Vec<Tree>,
    v1: bool,
    scope: Scope,
    start: Snapshot,
}

#[derive(Debug, Default)]
struct Snapshot {
    limited: HashMap<u64, (Cgroup, Throttle)>,
    /// Those without a quota.
    free: HashSet<u64>,
    /// Paths outside of what is mounted here.
    unseen: usize,
}

impl ThrottleWatch {
    /// Reads cpu.max of every group in the scope, and cpu.stat of those that have a quota.
    #[must_use]
    pub fn start(scope: Scope) -> ThrottleWatch {
        let v1 = Tree::v1("cpu");
        if v1.is_empty() {
            return ThrottleWatch::of(Tree::v2().unwrap_or_default(), false, scope);
        }
        ThrottleWatch::of(v1, true, scope)
    }

    fn of(trees: Vec<Tree>, v1: bool, scope: Scope) -> ThrottleWatch {
        let mut watch = ThrottleWatch { trees, v1, scope, start: Snapshot::default() };
        watch.start = watch.snapshot();
        watch
    }

    /// The same again. Groups that are new count from 0, as the kernel does.
    #[must_use]
    pub fn end(&self) -> Throttling {
        let mut now = self.snapshot();
        let mut result = Throttling { untold: now.unseen, ..Throttling::default() };
        for (id, (group, start)) in &self.start.limited {
            // Read it also when its quota was lifted, or its task has ended.
            let end = now.limited.remove(id).map(|(_, end)| end).or_else(|| reread(group));
            result.add(group, end.and_then(|end| end.since(*start)));
        }
        for (id, (group, end)) in now.limited {
            let known = !self.start.free.contains(&id) || end == Throttle::default();
            result.add(&group, known.then_some(end));
        }
        result.groups.sort_by_key(|(_, throttle)| Reverse(throttle.throttled_usec));
        result
    }

    fn snapshot(&self) -> Snapshot {
        let mut found = Snapshot::default();
        match &self.scope {
            Scope::Everything => {
                for tree in &self.trees {
                    walk(tree.top(), &mut |dir, id| found.visit(tree, dir, id));
                }
            }
            Scope::Cgroups(groups) if self.v1 => self.tasks(members(groups), &mut found),
            Scope::Cgroups(groups) => {
                for group in groups {
                    let Some(tree) = self.trees.iter().find(|tree| group.path.starts_with(tree.top())) else {
                        found.unseen += 1;
                        continue;
                    };
                    ancestors(tree, &group.path, &mut found);
                    walk(&group.path, &mut |dir, id| found.visit(tree, dir, id));
                }
            }
            Scope::Processes(pids) => {
                let threads = pids.iter().flat_map(|pid| proc::threads(*pid).unwrap_or_default());
                self.tasks(threads.collect(), &mut found);
            }
            Scope::Threads(tids) => self.tasks(tids.clone(), &mut found),
        }
        found
    }

    /// The groups of tasks and those above them: a quota at any level holds all below it back.
    fn tasks(&self, tids: Vec<u32>, found: &mut Snapshot) {
        let controller = if self.v1 { "cpu" } else { "" };
        let path = |tid| task_path(&fs::read(format!("/proc/{tid}/cgroup")).ok()?, controller);
        let paths: HashSet<PathBuf> = tids.into_iter().filter_map(path).collect();
        for path in paths {
            match self.trees.iter().find_map(|tree| Some((tree, tree.directory(&path)?))) {
                Some((tree, dir)) => ancestors(tree, &dir, found),
                None => found.unseen += 1,
            }
        }
    }
}

impl Snapshot {
    /// Says whether there can be more below.
    fn visit(&mut self, tree: &Tree, dir: &Path, id: u64) -> bool {
        let state = is_limited(dir);
        if state == Some(true) {
            // Gone between the two reads: it was not there at the start, or is missed at the end.
            if let (Entry::Vacant(slot), Some(throttle)) = (self.limited.entry(id), Throttle::read(dir)) {
                slot.insert((Cgroup { shown: tree.shown(dir), path: dir.to_owned(), id }, throttle));
            }
        } else {
            self.free.insert(id);
        }
        // Without the controller here there is none below; only the top has it without the files.
        state.is_some() || dir == tree.top()
    }
}

fn ancestors(tree: &Tree, dir: &Path, found: &mut Snapshot) {
    for dir in dir.ancestors().take_while(|dir| dir.starts_with(tree.top())) {
        if let Ok(this) = fs::metadata(dir) {
            found.visit(tree, dir, this.ino());
        }
    }
}

/// The threads of v2 groups and their descendants, to find their groups in v1.
fn members(groups: &[Cgroup]) -> Vec<u32> {
    let mut tids = Vec::new();
    for group in groups {
        walk(&group.path, &mut |dir, _| {
            let file = fs::read_to_string(dir.join("cgroup.threads")).unwrap_or_default();
            tids.extend(file.lines().filter_map(|line| line.parse::<u32>().ok()));
            true
        });
    }
    tids
}

/// The figures of this very group, not of a new one by its name.
fn reread(group: &Cgroup) -> Option<Throttle> {
    let same = fs::metadata(&group.path).ok()?.ino() == group.id;
    same.then(|| Throttle::read(&group.path))?
}

impl Throttling {
    fn add(&mut self, group: &Cgroup, throttle: Option<Throttle>) {
        match throttle {
            None => self.untold += 1,
            Some(throttle) if throttle == Throttle::default() => {}
            Some(throttle) => self.groups.push((group.clone(), throttle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    /// Directories with the files of a hierarchy, so that no root and no controller are needed.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let top = std::env::temp_dir().join(format!("throttle-{name}-{}", std::process::id()));
            fs::create_dir(&top).unwrap();
            Fake(top)
        }

        fn group(&self, path: &str, max: &str, throttled: u64) {
            let dir = self.0.join(path);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cpu.max"), format!("{max} 100000\n")).unwrap();
            let stat =
                format!("usage_usec 9\nnr_throttled {throttled}\nthrottled_usec {}\n", throttled * 1000);
            fs::write(dir.join("cpu.stat"), stat).unwrap();
        }

        fn tree(&self) -> Tree {
            Tree { root: "/".into(), point: self.0.clone() }
        }

        fn watch(&self, scope: Scope) -> ThrottleWatch {
            ThrottleWatch::of(vec![self.tree()], false, scope)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn told(result: &Throttling) -> Vec<(&str, u64)> {
        result.groups.iter().map(|(group, throttle)| (group.shown.as_str(), throttle.nr_throttled)).collect()
    }

    #[test]
    fn only_what_happened_meanwhile_to_groups_with_a_quota_is_told() {
        let fake = Fake::new("all");
        for (path, max, throttled) in
            [("quiet", "5", 7), ("a", "max", 0), ("a/busy", "5", 11), ("lifted", "5", 1)]
        {
            fake.group(path, max, throttled);
        }
        fs::create_dir_all(fake.0.join("off/below")).unwrap();
        let watch = fake.watch(Scope::Everything);
        fake.group("a/busy", "5", 11 + 13);
        fake.group("lifted", "max", 1 + 3);
        fake.group("new", "5", 5);
        let result = watch.end();
        assert_eq!(told(&result), [("/a/busy", 13), ("/new", 5), ("/lifted", 3)]);
        assert_eq!(result.groups[0].1.throttled_usec, 13_000);
        assert_eq!(result.untold, 0);
    }

    #[test]
    fn what_cannot_be_told_is_counted() {
        let (fake, elsewhere) = (Fake::new("untold"), Fake::new("elsewhere"));
        for (path, max, throttled) in
            [("gone", "5", 1), ("again", "5", 1), ("later", "max", 2), ("first", "max", 0)]
        {
            fake.group(path, max, throttled);
        }
        let watch = fake.watch(Scope::Everything);
        // Moved, not removed: a plain file system would use the inode again, which cgroups do not.
        for path in ["gone", "again"] {
            fs::rename(fake.0.join(path), elsewhere.0.join(path)).unwrap();
        }
        for (path, max, throttled) in [("again", "5", 17), ("later", "5", 4), ("first", "5", 0)] {
            fake.group(path, max, throttled);
        }
        let result = watch.end();
        assert_eq!(told(&result), [("/again", 17)]);
        assert_eq!(result.untold, 3, "gone, the first again, and later, whose count may be an old one");
    }

    #[test]
    fn a_quota_above_or_below_a_group_counts_and_one_beside_it_does_not() {
        let fake = Fake::new("scope");
        for path in ["above", "above/given", "above/given/below", "beside", "above/beside"] {
            fake.group(path, "5", 0);
        }
        let tree = fake.tree();
        let group = |path: &str| tree.at(fake.0.join(path)).unwrap();
        let given = group("above/given");
        let watch = fake.watch(Scope::Cgroups(vec![given.clone(), given]));
        for (path, times) in
            [("above", 1), ("above/given", 3), ("above/given/below", 2), ("beside", 9), ("above/beside", 9)]
        {
            fake.group(path, "5", times);
        }
        assert_eq!(told(&watch.end()), [("/above/given", 3), ("/above/given/below", 2), ("/above", 1)]);
    }

    #[test]
    fn both_versions_of_cpu_stat_are_read() {
        let v2 = "usage_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec 4567\nnr_bursts 0\n";
        let expected = Some(Throttle { nr_throttled: 3, throttled_usec: 4567 });
        assert_eq!(parse(v2), expected);
        assert_eq!(parse("nr_periods 9\nnr_throttled 3\nthrottled_time 4567890\n"), expected);
        assert_eq!(parse("usage_usec 1\nuser_usec 1\n"), None, "the controller is off");
    }

    mod root {
        use super::*;

        #[test]
        fn a_process_that_ran_out_of_quota_is_told() {
            let (v1, v2) = (Tree::v1("cpu"), Tree::v2().unwrap_or_default());
            let quota = if v1.is_empty() { ("cpu.max", "2000 100000") } else { ("cpu.cfs_quota_us", "2000") };
            let tree = v1.first().or(v2.first()).unwrap();
            let dir = tree.top().join(format!("tracebelt-quota-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            if fs::write(dir.join(quota.0), quota.1).is_err() {
                fs::remove_dir(&dir).unwrap();
                panic!("no cpu controller: echo +cpu > {}/cgroup.subtree_control", tree.top().display());
            }
            let mut spinner = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
            let pid = spinner.id();
            fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
            let scopes = [Scope::Processes(vec![pid]), Scope::Threads(vec![pid]), Scope::Everything];
            let watches = scopes.map(ThrottleWatch::start);
            let beside = ThrottleWatch::start(Scope::Threads(vec![std::process::id()]));
            let before = Throttle::read(&dir).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while Throttle::read(&dir).unwrap().nr_throttled < before.nr_throttled + 3
                && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            let told = watches.each_ref().map(ThrottleWatch::end);
            let beside = beside.end();
            spinner.kill().unwrap();
            spinner.wait().unwrap();
            while fs::remove_dir(&dir).is_err() && Instant::now() < deadline {}
            for throttling in told {
                let (_, throttle) = throttling.groups.iter().find(|(group, _)| group.path == dir).unwrap();
                assert!((3..100).contains(&throttle.nr_throttled), "{throttle:?}");
                // A busy machine lets it run late in its period, and so wait less for the next.
                assert!(throttle.throttled_usec > 3_000, "{throttle:?}");
            }
            assert!(!beside.groups.iter().any(|(group, _)| group.path == dir));
        }
    }
}
