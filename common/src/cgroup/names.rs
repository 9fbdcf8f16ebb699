//! Names for the ids that BPF programs saw.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use super::{Tree, handle, walk};

/// A name once found stays, also when its group is gone.
#[derive(Debug, Default)]
pub struct Names {
    trees: Vec<Tree>,
    known: HashMap<u64, String>,
    walked: Option<(Instant, Duration)>,
}

impl Names {
    /// Without a cgroup v2 mount, ids stay numbers.
    #[must_use]
    pub fn new() -> Names {
        Names { trees: Tree::v2().unwrap_or_default(), ..Names::default() }
    }

    /// The path of a group, or `[id 1234]` if it is gone or outside of what is mounted here.
    pub fn show(&mut self, id: u64) -> String {
        if let Some(name) = self.known.get(&id) {
            return name.clone();
        }
        let unnamed = format!("[id {id}]");
        let Ok(found) = self.by_handle(id) else {
            self.refresh();
            return self.known.get(&id).cloned().unwrap_or(unnamed);
        };
        // Ids are not used twice: what is gone stays gone.
        let name = found.unwrap_or(unnamed);
        self.known.insert(id, name.clone());
        name
    }

    fn by_handle(&self, id: u64) -> io::Result<Option<String>> {
        for tree in &self.trees {
            if let Some(path) = handle::directory(tree.top(), id)? {
                return Ok(Some(tree.shown(&path)));
            }
        }
        Ok(None)
    }

    /// Reads the whole tree, where the short way is forbidden: at most a tenth of the time goes here.
    fn refresh(&mut self) {
        let begin = Instant::now();
        if self.walked.is_some_and(|(end, cost)| begin.duration_since(end) < cost * 9) {
            return;
        }
        for tree in &self.trees {
            walk(tree.top(), &mut |path, id| {
                self.known.entry(id).or_insert_with(|| tree.shown(path));
                true
            });
        }
        self.walked = Some((Instant::now(), begin.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::cgroup::{Cgroup, resolve};

    /// A group of the live hierarchy with one below it.
    struct Made(PathBuf);

    impl Made {
        fn new(name: &str) -> (Made, Cgroup) {
            let tree = &Tree::v2().unwrap()[0];
            let path = tree.top().join(format!("tracebelt-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("below")).unwrap();
            let below = tree.at(path.join("below")).unwrap();
            (Made(path), below)
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir(self.0.join("below"));
            let _ = fs::remove_dir(&self.0);
        }
    }

    mod root {
        use super::*;

        #[test]
        fn every_way_to_name_a_group_leads_to_it() {
            let (made, below) = Made::new("resolve");
            let name = made.0.file_name().unwrap().to_str().unwrap();
            assert_eq!(below.shown, format!("/{name}/below"));
            let ways = [
                below.shown.clone(),
                below.shown[1..].to_owned(),
                below.path.to_str().unwrap().to_owned(),
                format!("{}/../below/", below.path.display()),
                format!("/proc/self/root{}", below.path.display()),
                below.id.to_string(),
            ];
            for way in ways {
                assert_eq!(resolve(&way).unwrap(), below, "{way}");
            }
            assert_eq!(resolve("/").unwrap().path, Tree::v2().unwrap()[0].top());
            assert!(resolve("self").unwrap().path.join("cgroup.procs").exists());
            let file = fs::metadata(below.path.join("cgroup.procs")).unwrap();
            for id in [0, std::os::unix::fs::MetadataExt::ino(&file), u64::MAX] {
                let error = resolve(id.to_string()).unwrap_err().to_string();
                assert!(error.starts_with(&format!("no cgroup has the id {id} below /")), "{error}");
            }
            if let Some(v1) = Tree::v1("cpu").first() {
                let error = resolve(v1.top()).unwrap_err().to_string();
                assert!(error.contains("is a directory of cgroup v1 (") && error.contains("cpu"), "{error}");
            }
        }

        #[test]
        fn a_group_is_named_by_its_handle_and_by_a_walk() {
            let (_made, below) = Made::new("names");
            let tree = &Tree::v2().unwrap()[0];
            assert_eq!(handle::directory(tree.top(), below.id).unwrap().unwrap(), below.path);
            let mut walker = Names::new();
            walker.refresh();
            assert_eq!(walker.known.get(&below.id), Some(&below.shown));
            assert_eq!(Names::new().show(below.id), below.shown);
        }

        #[test]
        fn a_name_outlives_its_group_and_an_unseen_one_stays_a_number() {
            let (made, below) = Made::new("gone");
            let (mut names, mut late) = (Names::new(), Names::new());
            assert_eq!(names.show(below.id), below.shown);
            drop(made);
            assert_eq!(names.show(below.id), below.shown);
            assert_eq!(late.show(below.id), format!("[id {}]", below.id));
        }
    }
}
