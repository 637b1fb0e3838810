//! Nodes by number, and sets of them.

/// A node, by its index in the list of nodes.
pub type NodeId = usize;

/// How many nodes a pass can have: a [`NodeSet`] is one machine word.
pub const MAX_NODES: usize = 64;

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(u64);

impl NodeSet {
    /// The first `count` nodes, at most [`MAX_NODES`].
    pub fn first(count: usize) -> NodeSet {
        assert!(count <= MAX_NODES, "a NodeSet holds {MAX_NODES}");
        (0..count).fold(NodeSet::default(), |set, node| set.with(node))
    }

    /// A single node.
    pub fn of(node: NodeId) -> NodeSet {
        NodeSet::default().with(node)
    }

    fn with(self, node: NodeId) -> NodeSet {
        NodeSet(self.0 | 1 << node)
    }

    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node;
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node);
    }

    /// Whether a node is in it.
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node) != 0
    }

    /// Whether no node is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many nodes are in it.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The nodes that are in both sets.
    pub fn and(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    /// The nodes that are in either set.
    pub fn or(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// The nodes that are in this set only.
    pub fn without(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    /// The nodes, in order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..MAX_NODES).filter(move |&node| self.contains(node))
    }
}
