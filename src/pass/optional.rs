//! Optional nodes: if one is dead, the pass is complete without it as long as another node answers.

use super::{Pass, lock};
use crate::report::{Event, Request};
use crate::schedule::{Loss, NodeId};
use crate::target::Target;

impl Pass {
    /// The optional node that died before it could provide a file, if no other node has failed to
    /// provide it.
    pub(super) fn optional_loser(&self, target: &Target, loss: &Loss) -> Option<NodeId> {
        let node = match loss {
            Loss::GivenUp(node) => *node,
            Loss::Failed(node, error) if !error.answered => *node,
            Loss::Failed(..) | Loss::Withheld(_) => return None,
        };
        let is_optional = self.config.nodes[node].settings.optional;
        (is_optional && !lock(&self.refused).contains(target)).then_some(node)
    }

    /// Notes a file that a node failed to provide, if that node is not optional and another one is.
    pub(super) fn note_refused(&self, event: &Event<'_>) {
        if let Event::TryFailed { node, request: Request::Fetch(target), .. } = event
            && !self.config.nodes[*node].settings.optional
            && self.config.nodes.iter().any(|node| node.settings.optional)
        {
            lock(&self.refused).insert((*target).clone());
        }
    }

    /// Which nodes do not make the pass incomplete: optional ones that were given up, as long as
    /// some node was not.
    pub(super) fn excused(&self, given_up: &[bool]) -> Vec<bool> {
        let any_alive = given_up.contains(&false);
        let nodes = self.config.nodes.iter().zip(given_up);
        nodes.map(|(node, given_up)| node.settings.optional && *given_up && any_alive).collect()
    }
}
