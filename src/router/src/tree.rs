//! A tree of topic levels in an arena: one node a level, children found by hash, values where a path ends. A node knows
//! its `+` and `#` itself, so a match looks up one name a level.
//!
//! It holds wildcard filters (matched against one topic name) and retained topics (matched against one filter). Both
//! walks visit only nodes that can lead to a match, and keep their place on the heap, not on the stack.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::{SmallVec, smallvec};

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node<T> {
    level: Level,
    parent: u32,
    first_child: u32,
    next: u32,
    previous: u32,
    plus: u32,
    hash: u32,
    value: Option<T>,
}

/// The name of a level. Most are short, and then lie in the node.
#[derive(Debug)]
enum Level {
    Short(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Level {
    fn new(name: &str) -> Level {
        let mut bytes = [0; 22];
        match bytes.get_mut(..name.len()) {
            Some(place) => {
                place.copy_from_slice(name.as_bytes());
                Level::Short(name.len() as u8, bytes)
            }
            None => Level::Long(name.as_bytes().into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Level::Short(len, bytes) => &bytes[..usize::from(*len)],
            Level::Long(bytes) => bytes,
        }
    }
}

/// Where a walk still has to go: a node, the levels below it, and whether it is the root. Few walks need more.
type Places<'a> = SmallVec<[(u32, Option<&'a str>, bool); 8]>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tree<T> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    children: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Values held.
    len: usize,
}

const ROOT: u32 = 0;

impl<T> Node<T> {
    fn new(level: &str, parent: u32, next: u32) -> Self {
        let level = Level::new(level);
        Node { level, parent, first_child: NONE, next, previous: NONE, plus: NONE, hash: NONE, value: None }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        let root = Node::new("", NONE, NONE);
        Tree {
            nodes: vec![root],
            free: Vec::new(),
            children: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            len: 0,
        }
    }
}

impl<T> Tree<T> {
    /// Values held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value at `path`.
    pub(crate) fn get(&self, path: &str) -> Option<&T> {
        self.nodes[self.find(path)? as usize].value.as_ref()
    }

    /// The value at `path`, to change.
    pub(crate) fn get_mut(&mut self, path: &str) -> Option<&mut T> {
        let id = self.find(path)?;
        self.nodes[id as usize].value.as_mut()
    }

    /// The value at `path`, made if there was none.
    pub(crate) fn entry(&mut self, path: &str, make: impl FnOnce() -> T) -> &mut T {
        let mut id = ROOT;
        for level in path.split('/') {
            id = match self.child(id, level) {
                Some(child) => child,
                None => self.add_child(id, level),
            };
        }
        let len = &mut self.len;
        self.nodes[id as usize].value.get_or_insert_with(|| {
            *len += 1;
            make()
        })
    }

    /// Takes the value at `path` and the nodes that nobody needs any more.
    pub(crate) fn remove(&mut self, path: &str) -> Option<T> {
        let mut id = self.find(path)?;
        let value = self.nodes[id as usize].value.take()?;
        self.len -= 1;
        while id != ROOT {
            let node = &self.nodes[id as usize];
            if node.value.is_some() || node.first_child != NONE {
                break;
            }
            let parent = node.parent;
            self.remove_node(id);
            id = parent;
        }
        Some(value)
    }

    /// Visits the values at all filters that match the topic name. `$` topics are not matched by a leading wildcard
    /// (MQTT-4.7.2-1).
    pub(crate) fn match_filters(&self, topic: &str, mut visit: impl FnMut(&T)) {
        let is_hidden = topic.starts_with('$');
        let mut places: Places<'_> = smallvec![(ROOT, Some(topic), true)];
        while let Some((id, rest, is_first)) = places.pop() {
            let wild = !(is_first && is_hidden);
            // `#` matches the level it stands for and its parent (4.7.1.2).
            if wild && let Some(hash) = some(self.nodes[id as usize].hash) {
                self.visit(hash, &mut visit);
            }
            let Some(rest) = rest else {
                self.visit(id, &mut visit);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if let Some(child) = self.child(id, level) {
                places.push((child, rest, false));
            }
            if wild && let Some(plus) = some(self.nodes[id as usize].plus) {
                places.push((plus, rest, false));
            }
        }
    }

    /// Visits topic and value of all names that match the filter, until `visit` says false.
    pub(crate) fn match_topics(&self, filter: &str, mut visit: impl FnMut(&T) -> bool) {
        let mut places: Places<'_> = smallvec![(ROOT, Some(filter), true)];
        while let Some((id, rest, is_first)) = places.pop() {
            let Some(rest) = rest else {
                if !self.nodes[id as usize].value.as_ref().is_none_or(&mut visit) {
                    return;
                }
                continue;
            };
            let (level, tail) = match rest.split_once('/') {
                Some((level, tail)) => (level, Some(tail)),
                None => (rest, None),
            };
            match level {
                "#" => {
                    if !is_first && !self.nodes[id as usize].value.as_ref().is_none_or(&mut visit) {
                        return;
                    }
                    for child in self.child_ids(id) {
                        if !(is_first && self.nodes[child as usize].level.as_bytes().starts_with(b"$")) {
                            places.push((child, Some("#"), false));
                        }
                    }
                }
                "+" => {
                    for child in self.child_ids(id) {
                        if !(is_first && self.nodes[child as usize].level.as_bytes().starts_with(b"$")) {
                            places.push((child, tail, false));
                        }
                    }
                }
                _ => {
                    if let Some(child) = self.child(id, level) {
                        places.push((child, tail, false));
                    }
                }
            }
        }
    }

    fn visit(&self, id: u32, visit: &mut impl FnMut(&T)) {
        if let Some(value) = &self.nodes[id as usize].value {
            visit(value);
        }
    }

    fn find(&self, path: &str) -> Option<u32> {
        path.split('/').try_fold(ROOT, |id, level| self.child(id, level))
    }

    fn child(&self, parent: u32, level: &str) -> Option<u32> {
        let node = &self.nodes[parent as usize];
        match level {
            "+" => some(node.plus),
            "#" => some(node.hash),
            // Many levels are looked for in vain where only wildcards are, and these a match visits anyway.
            _ if !self.has_names(node) => None,
            _ => {
                let is_it = |&id: &u32| {
                    let node = &self.nodes[id as usize];
                    node.parent == parent && node.level.as_bytes() == level.as_bytes()
                };
                let hash = self.hasher.hash_one((parent, level.as_bytes()));
                self.children.find(hash, is_it).copied()
            }
        }
    }

    fn has_names(&self, node: &Node<T>) -> bool {
        let mut id = node.first_child;
        while id != NONE && (id == node.plus || id == node.hash) {
            id = self.nodes[id as usize].next;
        }
        id != NONE
    }

    fn child_ids(&self, parent: u32) -> impl Iterator<Item = u32> {
        let first = self.nodes[parent as usize].first_child;
        std::iter::successors(some(first), |&id| some(self.nodes[id as usize].next))
    }

    fn add_child(&mut self, parent: u32, level: &str) -> u32 {
        let next = self.nodes[parent as usize].first_child;
        let node = Node::new(level, parent, next);
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        if next != NONE {
            self.nodes[next as usize].previous = id;
        }
        let node = &mut self.nodes[parent as usize];
        node.first_child = id;
        match level {
            "+" => node.plus = id,
            "#" => node.hash = id,
            _ => {
                let (nodes, hasher) = (&self.nodes, &self.hasher);
                let hash = |&id: &u32| {
                    let node = &nodes[id as usize];
                    hasher.hash_one((node.parent, node.level.as_bytes()))
                };
                self.children.insert_unique(hash(&id), id, hash);
            }
        }
        id
    }

    fn remove_node(&mut self, id: u32) {
        let node = &mut self.nodes[id as usize];
        let (parent, next, previous) = (node.parent, node.next, node.previous);
        let level = std::mem::replace(&mut node.level, Level::new(""));
        let above = &mut self.nodes[parent as usize];
        if previous == NONE {
            above.first_child = next;
        }
        match level.as_bytes() {
            b"+" => above.plus = NONE,
            b"#" => above.hash = NONE,
            level => {
                let hash = self.hasher.hash_one((parent, level));
                if let Ok(entry) = self.children.find_entry(hash, |&other| other == id) {
                    entry.remove();
                }
            }
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        self.free.push(id);
    }
}

fn some(id: u32) -> Option<u32> {
    (id != NONE).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "", "$x", "a level of more than 22 bytes"])
            .prop_map(str::to_owned)
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|l| l.join("/"))
            .prop_filter("not empty", |t| !t.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (prop::collection::vec(part, 0..4), any::<bool>())
            .prop_map(|(mut l, hash)| {
                if hash || l.is_empty() {
                    l.push("#".to_owned());
                }
                l.join("/")
            })
            .prop_filter("not empty", |t| !t.is_empty())
    }

    proptest! {
        #[test]
        fn filters_match_as_one_by_one(
            filters in prop::collection::vec(filter(), 0..20),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            topic in name(),
        ) {
            let mut tree = Tree::default();
            let mut list: Vec<String> = filters.clone();
            list.sort();
            list.dedup();
            for f in &list {
                tree.entry(f, || f.clone());
            }
            for index in gone {
                if !list.is_empty() {
                    let f = list.remove(index.index(list.len()));
                    prop_assert_eq!(tree.remove(&f), Some(f));
                }
            }
            prop_assert_eq!(tree.len(), list.len());
            let mut found = Vec::new();
            tree.match_filters(&topic, |f| found.push(f.clone()));
            found.sort();
            list.retain(|f| gateway::topic::matches(f, &topic));
            prop_assert_eq!(found, list);
        }

        #[test]
        fn topics_are_found_as_one_by_one(names in prop::collection::vec(name(), 0..20), filter in filter()) {
            let mut tree = Tree::default();
            let mut list = names.clone();
            list.sort();
            list.dedup();
            for n in &list {
                tree.entry(n, || n.clone());
            }
            let mut found = Vec::new();
            tree.match_topics(&filter, |n| { found.push(n.clone()); true });
            found.sort();
            list.retain(|n| gateway::topic::matches(&filter, n));
            prop_assert_eq!(found, list);
        }
    }

    #[test]
    fn nothing_is_left_when_all_was_removed() {
        let mut tree = Tree::default();
        for path in ["a/b/c", "a/b", "a/+/c", "#"] {
            tree.entry(path, || ());
        }
        for path in ["a/b", "#", "a/b/c", "a/+/c"] {
            assert!(tree.remove(path).is_some());
        }
        assert_eq!((tree.len(), tree.children.len(), tree.free.len() + 1), (0, 0, tree.nodes.len()));
    }
}
