//! Stacks that are read from /proc: a user stack by its addresses, a kernel stack by names, for the kernel shows no
//! addresses there.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::{NOT_IDS, Stack, Stacks, bytes};
use crate::asleep::Place;

/// A kernel stack, innermost first.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub places: Box<[Place]>,
    /// It goes on beyond the limit of frames.
    pub cut: bool,
}

impl Named {
    pub fn bytes(&self) -> u64 {
        let names: usize = self.places.iter().map(|(name, _)| name.len() + 32).sum();
        bytes(names / 8)
    }
}

/// As wide as the programs' own, and of other values: nothing is mixed into theirs but addresses.
fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let hash = hasher.finish();
    if hash < NOT_IDS { hash + NOT_IDS } else { hash }
}

impl Stacks {
    /// A user stack of at most `depth` addresses; gives its hash.
    pub fn put_user(&mut self, ips: Vec<u64>, depth: usize) -> u64 {
        let hash = hash(("user", &ips));
        self.keep(hash, ips.len() >= depth, ips);
        hash
    }

    /// A kernel stack of at most `depth` functions; gives its hash.
    pub fn put_kernel(&mut self, places: Vec<Place>, depth: usize) -> u64 {
        let hash = hash(("kernel", &places));
        if self.named.contains_key(&hash) {
            return hash;
        }
        let named = Named { cut: places.len() >= depth, places: places.into() };
        let all = self.bytes + named.bytes();
        if self.budget.allows((self.stacks.len() + self.named.len()) as u64 + 1, all) {
            self.bytes = all;
            self.named.insert(hash, named);
        } else {
            self.refused += 1;
        }
        hash
    }

    /// A kernel stack that is known by names.
    pub fn named(&self, hash: u64) -> Option<&Named> {
        self.named.get(&hash)
    }

    /// Those of a thread that programs have left with it.
    pub fn put_left(&mut self, hash: u64, stack: Stack, top: Option<super::Top>) {
        if self.get(hash).is_none() {
            self.keep(hash, stack.cut, stack.ips.into());
            if let Some(top) = top {
                self.keep_top(hash, top);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::Budget;

    #[test]
    fn equal_stacks_are_one_and_the_budget_holds() {
        let mut stacks = Stacks::new(Budget::Stacks(2));
        let user = stacks.put_user(vec![1, 2], 127);
        assert_eq!(stacks.put_user(vec![1, 2], 127), user);
        assert_eq!(stacks.get(user), Some(&Stack { ips: [1, 2].into(), cut: false }));
        let places = || vec![("ep_poll".to_owned(), 5)];
        let kernel = stacks.put_kernel(places(), 1);
        assert_eq!(stacks.put_kernel(places(), 1), kernel);
        assert_eq!(stacks.named(kernel), Some(&Named { places: places().into(), cut: true }));
        let refused = stacks.put_kernel(vec![("pipe_read".to_owned(), 5)], 127);
        assert!(refused != kernel && stacks.named(refused).is_none() && !stacks.has(refused));
        assert_eq!(stacks.figures().2, 1);
    }
}
