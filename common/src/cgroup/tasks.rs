//! Which cgroup a task is in, by /proc.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{Tree, task_path};

/// The groups of tasks; each is looked up once.
#[derive(Debug, Default)]
pub struct Tasks {
    trees: Option<Vec<Tree>>,
    known: HashMap<PathBuf, Rc<[u64]>>,
}

impl Tasks {
    /// The ids of a task's group and of those that it is in, innermost first. None: the task or its group has gone,
    /// or is outside of what is mounted here.
    pub fn ids(&mut self, tid: u32) -> Rc<[u64]> {
        let file = fs::read(format!("/proc/{tid}/cgroup")).unwrap_or_default();
        let Some(path) = task_path(&file, "") else { return [].into() };
        if let Some(ids) = self.known.get(&path) {
            return Rc::clone(ids);
        }
        let trees = self.trees.get_or_insert_with(|| Tree::v2().unwrap_or_default());
        let found = trees.iter().map(|tree| ids_in(tree, &path)).find(|ids| !ids.is_empty());
        let ids: Rc<[u64]> = found.unwrap_or_default().into();
        self.known.insert(path, Rc::clone(&ids));
        ids
    }
}

fn ids_in(tree: &Tree, path: &Path) -> Vec<u64> {
    let Some(directory) = tree.directory(path).filter(|directory| directory.is_dir()) else {
        return Vec::new();
    };
    let up = directory.ancestors().take_while(|directory| directory.starts_with(tree.top()));
    up.filter_map(|directory| fs::metadata(directory).ok()).map(|found| found.ino()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_ids_of_all_that_it_is_in() {
        let tree = Tree { root: "/".into(), point: "/proc".into() };
        let ids = ids_in(&tree, Path::new("/self/task"));
        assert_eq!((ids.len(), ids.last()), (3, Some(&fs::metadata("/proc").unwrap().ino())));
        assert!(ids_in(&tree, Path::new("/no such")).is_empty());
    }
}
