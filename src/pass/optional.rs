//! Optional nodes: a pass is complete without one that is dead, as long as another one answers.

use super::{Pass, lock};
use crate::report::{Event, Request};
use crate::schedule::{Loss, NodeId};
use crate::target::Target;

impl Pass {
    /// The optional node that died before it could give a file, if no other one failed to.
    pub(super) fn optional_loser(&self, target: &Target, loss: &Loss) -> Option<NodeId> {
        let node = match loss {
            Loss::GivenUp(node) => *node,
            Loss::Failed(node, error) if !error.answered => *node,
            Loss::Failed(..) | Loss::Withheld(_) => return None,
        };
        let is_optional = self.config.nodes[node].settings.optional;
        (is_optional && !lock(&self.refused).contains(target)).then_some(node)
    }

    /// Notes which files nodes that are not optional failed to give, if there are optional ones.
    pub(super) fn note_refused(&self, event: &Event<'_>) {
        if let Event::TryFailed { node, request: Request::Fetch(target), .. } = event
            && !self.config.nodes[*node].settings.optional
            && self.config.nodes.iter().any(|node| node.settings.optional)
        {
            lock(&self.refused).insert((*target).clone());
        }
    }

    /// Which nodes make no pass incomplete: the optional ones that are given up, if another one is
    /// not.
    pub(super) fn excused(&self, given_up: &[bool]) -> Vec<bool> {
        let any_alive = given_up.contains(&false);
        let nodes = self.config.nodes.iter().zip(given_up);
        nodes.map(|(node, given_up)| node.settings.optional && *given_up && any_alive).collect()
    }
}
