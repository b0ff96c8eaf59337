//! The search for a node: PreFilter, Filter, PostFilter, PreScore, Score, and the choice.

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_core::scheduling::{
    Candidates, MAX_NODE_SCORE, MIN_NODE_SCORE, NodeIndex, PodInfo, PostFilterResult,
    PreFilterResult, Rejection, Snapshot, Verdict,
};

use super::failure::{Failure, FitError};
use super::{Framework, PluginSet, Scratch};

/// How many nodes are filtered at a time: enough for the columns to pay, few enough to stop soon after there are enough.
const STRETCH: usize = 256;
/// Clusters up to this size are always searched whole, and this many nodes that fit are always looked for.
const MIN_FEASIBLE: usize = 100;
/// The least part of the nodes that is looked for, in percent.
const MIN_PERCENT: usize = 5;

/// Where the next search begins, so that all nodes get their turn in a search that ends early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub(crate) usize);

/// A node for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeIndex,
    /// How many nodes were looked at.
    pub evaluated: usize,
    /// How many of them fit.
    pub feasible: usize,
}

/// What the PreFilters left.
pub(crate) struct PreFiltered {
    pub(crate) skipped: PluginSet,
    /// The only rows that come into question, and the plug-ins that said so.
    pub(crate) narrowed: Option<(Vec<usize>, PluginSet)>,
}

impl Framework {
    /// How many nodes that fit are enough.
    fn enough(&self, nodes: usize) -> usize {
        if self.points.score.is_empty() {
            return 1;
        }
        if nodes <= MIN_FEASIBLE {
            return nodes;
        }
        let percent = match self.percentage as usize {
            0 => 50usize.saturating_sub(nodes / 125).max(MIN_PERCENT),
            percent => percent,
        };
        (nodes * percent / 100).max(MIN_FEASIBLE)
    }

    /// Finds the node for a pod. `tie` picks among equally good ones: it gets their number and answers with a smaller one.
    ///
    /// # Errors
    /// [`Failure`], with the words for the pod's condition.
    pub fn schedule(
        &self,
        pod: &Arc<PodInfo>,
        snapshot: &Snapshot,
        cursor: &mut Cursor,
        tie: &mut dyn FnMut(u64) -> u64,
        scratch: &mut Scratch,
    ) -> Result<Placement, Failure> {
        scratch.state.clear();
        if snapshot.is_empty() {
            return Err(Failure::NoNodes);
        }
        let pre = self.pre_filter(pod, snapshot, scratch)?;
        let evaluated = match self.nominated(pod, snapshot, &pre, scratch)? {
            true => 1,
            false => self.filter(pod, snapshot, &pre, cursor, scratch)?,
        };
        let feasible = scratch.feasible.len();
        let node = match scratch.feasible[..] {
            [] => return Err(self.unfit(pod, snapshot, &pre, scratch)),
            [only] => only,
            _ => self.choose(pod, snapshot, tie, scratch)?,
        };
        Ok(Placement {
            node,
            evaluated,
            feasible,
        })
    }

    pub(crate) fn pre_filter(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        scratch: &mut Scratch,
    ) -> Result<PreFiltered, Failure> {
        let mut skipped = 0;
        let mut narrowed: Option<(Vec<usize>, PluginSet)> = None;
        let fail = |message: String, plugins| {
            let fit = FitError {
                nodes: snapshot.len(),
                pre_filter: message,
                plugins,
                ..FitError::default()
            };
            Failure::Unfit(Box::new(fit))
        };
        for &place in &self.points.pre_filter {
            let Some(point) = self.plugins[place].plugin.as_pre_filter() else {
                continue;
            };
            let PreFilterResult { verdict, nodes } =
                point.pre_filter(&mut scratch.state, pod, snapshot);
            match verdict {
                Verdict::Success => {}
                Verdict::Skip => skipped |= 1 << place,
                Verdict::Unschedulable(reasons)
                | Verdict::UnschedulableAndUnresolvable(reasons) => {
                    return Err(fail(reasons.to_string(), 1 << place));
                }
                other => return Err(self.refused(place, other, "PreFilter")),
            }
            let Some(names) = nodes else { continue };
            let mut rows: Vec<usize> = names
                .iter()
                .filter_map(|name| snapshot.find(name))
                .map(|node| node.index().row())
                .collect();
            rows.sort_unstable();
            rows.dedup();
            let by = 1 << place | narrowed.as_ref().map_or(0, |(_, by)| *by);
            if let Some((before, _)) = &narrowed {
                rows.retain(|row| before.binary_search(row).is_ok());
            }
            if rows.is_empty() && !names.is_empty() && by.count_ones() > 1 {
                let names = self.names(by).into_iter().collect::<Vec<_>>().join(" ");
                return Err(fail(
                    format!("node(s) didn't satisfy plugin(s) [{names}] simultaneously"),
                    by,
                ));
            }
            narrowed = Some((rows, by));
        }
        Ok(PreFiltered { skipped, narrowed })
    }

    /// Looks first at the node where room was made for the pod. If it fits, no other one is looked at.
    fn nominated(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        pre: &PreFiltered,
        scratch: &mut Scratch,
    ) -> Result<bool, Failure> {
        scratch.feasible.clear();
        let node = pod
            .constraints()
            .nominated_node
            .as_ref()
            .and_then(|name| snapshot.find(name));
        let Some(row) = node.map(|node| node.index().row()) else {
            return Ok(false);
        };
        if pre
            .narrowed
            .as_ref()
            .is_some_and(|(rows, _)| rows.binary_search(&row).is_err())
        {
            return Ok(false);
        }
        self.reset(snapshot, scratch);
        self.filter_rows(pod, snapshot, pre.skipped, row, row + 1, scratch)?;
        if scratch.marks[row] == 0 {
            scratch.feasible.push(NodeIndex::new(row));
        }
        Ok(!scratch.feasible.is_empty())
    }

    fn reset(&self, snapshot: &Snapshot, scratch: &mut Scratch) {
        scratch.marks.clear();
        scratch.marks.resize(snapshot.len(), 0);
        scratch.rejections.clear();
        scratch.feasible.clear();
    }

    /// Filters until enough nodes fit. Says how many were looked at.
    fn filter(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        pre: &PreFiltered,
        cursor: &mut Cursor,
        scratch: &mut Scratch,
    ) -> Result<usize, Failure> {
        self.reset(snapshot, scratch);
        let nodes = snapshot.len();
        if let Some((rows, _)) = &pre.narrowed {
            for &row in rows {
                self.filter_rows(pod, snapshot, pre.skipped, row, row + 1, scratch)?;
                if scratch.marks[row] == 0 {
                    scratch.feasible.push(NodeIndex::new(row));
                }
            }
            return Ok(rows.len());
        }
        let enough = self.enough(nodes);
        let start = cursor.0 % nodes;
        let mut evaluated = 0;
        while evaluated < nodes && scratch.feasible.len() < enough {
            let first = (start + evaluated) % nodes;
            // Up to the end of a stretch, of the columns, or of the round.
            let last = (first + STRETCH).min(nodes).min(first + nodes - evaluated);
            self.filter_rows(pod, snapshot, pre.skipped, first, last, scratch)?;
            for row in first..last {
                if scratch.feasible.len() == enough {
                    break;
                }
                evaluated += 1;
                if scratch.marks[row] == 0 {
                    scratch.feasible.push(NodeIndex::new(row));
                }
            }
        }
        cursor.0 = (start + evaluated) % nodes;
        Ok(evaluated)
    }

    fn filter_rows(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        skipped: PluginSet,
        first: usize,
        last: usize,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let known = scratch.rejections.len();
        let mut candidates = Candidates::new(
            snapshot,
            first,
            &mut scratch.marks[first..last],
            &mut scratch.rejections,
        );
        for &place in &self.points.filter {
            if skipped >> place & 1 == 1 {
                continue;
            }
            if let Some(point) = self.plugins[place].plugin.as_filter() {
                candidates.set_plugin(place);
                point.filter_batch(&scratch.state, pod, &mut candidates);
            }
        }
        // Whatever is no refusal is a failure of the plug-in.
        for Rejection { plugin, verdict } in scratch.rejections.iter().skip(known) {
            if !verdict.is_rejection() {
                return Err(self.refused(*plugin, verdict.clone(), "Filter"));
            }
        }
        Ok(())
    }

    /// No node fits: asks the PostFilters to make room, and gathers the words.
    fn unfit(
        &self,
        pod: &Arc<PodInfo>,
        snapshot: &Snapshot,
        pre: &PreFiltered,
        scratch: &mut Scratch,
    ) -> Failure {
        let mut fit = FitError {
            nodes: snapshot.len(),
            ..FitError::default()
        };
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for mark in scratch.marks.iter().filter(|mark| **mark != 0) {
            *counts.entry(*mark).or_default() += 1;
        }
        for (mark, count) in counts {
            let Some(Rejection { plugin, verdict }) = scratch.rejections.by_mark(mark) else {
                continue;
            };
            fit.plugins |= 1 << plugin;
            for reason in verdict
                .reasons()
                .into_iter()
                .flat_map(|reasons| reasons.iter())
            {
                *fit.reasons.entry(reason.to_owned()).or_default() += count;
            }
        }
        if let Some((rows, by)) = &pre.narrowed {
            let absent = snapshot.len() - rows.len();
            if absent > 0 {
                let names = self.names(*by).into_iter().collect::<Vec<_>>().join(" ");
                fit.reasons.insert(
                    format!("node(s) didn't satisfy plugin(s) [{names}]"),
                    absent,
                );
            }
            fit.plugins |= by;
        }
        if !self.points.post_filter.is_empty()
            && let Err(failure) = self.post_filter(pod, snapshot, scratch, &mut fit)
        {
            return failure;
        }
        Failure::Unfit(Box::new(fit))
    }

    fn post_filter(
        &self,
        pod: &Arc<PodInfo>,
        snapshot: &Snapshot,
        scratch: &mut Scratch,
        fit: &mut FitError,
    ) -> Result<(), Failure> {
        let rejections: Vec<Option<&Rejection>> = scratch
            .marks
            .iter()
            .map(|mark| scratch.rejections.by_mark(*mark))
            .collect();
        let mut said = Vec::new();
        for &place in &self.points.post_filter {
            let Some(point) = self.plugins[place].plugin.as_post_filter() else {
                continue;
            };
            let PostFilterResult {
                verdict,
                nominated_node,
            } = point.post_filter(&mut scratch.state, pod, snapshot, &rejections);
            if nominated_node.is_some() {
                fit.nominated_node = nominated_node;
            }
            match verdict {
                Verdict::Success => break,
                Verdict::Unschedulable(reasons)
                | Verdict::UnschedulableAndUnresolvable(reasons) => {
                    said.push(reasons.to_string());
                }
                other => return Err(self.refused(place, other, "PostFilter")),
            }
        }
        fit.post_filter = said.join(", ");
        Ok(())
    }

    /// Scores the nodes that fit and picks one of the best.
    fn choose(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        tie: &mut dyn FnMut(u64) -> u64,
        scratch: &mut Scratch,
    ) -> Result<NodeIndex, Failure> {
        let mut skipped: PluginSet = 0;
        for &place in &self.points.pre_score {
            let Some(point) = self.plugins[place].plugin.as_pre_score() else {
                continue;
            };
            match point.pre_score(&mut scratch.state, pod, snapshot, &scratch.feasible) {
                Verdict::Success => {}
                Verdict::Skip => skipped |= 1 << place,
                other => return Err(self.refused(place, other, "PreScore")),
            }
        }
        let Scratch {
            state,
            feasible,
            scores,
            totals,
            ..
        } = scratch;
        totals.clear();
        totals.resize(feasible.len(), 0);
        for &place in self
            .points
            .score
            .iter()
            .filter(|place| skipped >> **place & 1 == 0)
        {
            let Some(point) = self.plugins[place].plugin.as_score() else {
                continue;
            };
            scores.clear();
            scores.resize(feasible.len(), 0);
            point.score_batch(state, pod, snapshot, feasible, scores);
            point.normalize(state, pod, scores);
            let weight = self.plugins[place].weight;
            for (total, score) in totals.iter_mut().zip(scores.iter()) {
                if !(MIN_NODE_SCORE..=MAX_NODE_SCORE).contains(score) {
                    return Err(Failure::Error(format!(
                        "plugin {:?} returns an invalid score {score}, it should in the range of [{MIN_NODE_SCORE}, \
                         {MAX_NODE_SCORE}] after normalizing",
                        self.plugin_name(place)
                    )));
                }
                *total += score * weight;
            }
        }
        let best = totals.iter().copied().max().unwrap_or_default();
        let equals = totals.iter().filter(|total| **total == best).count();
        let pick = if equals > 1 {
            tie(equals as u64) as usize
        } else {
            0
        };
        let chosen = totals
            .iter()
            .enumerate()
            .filter(|(_, total)| **total == best)
            .nth(pick);
        Ok(feasible[chosen.map_or(0, |(place, _)| place)])
    }

    /// The weighted scores of some nodes, plug-in by plug-in.
    pub(crate) fn score_all(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        nodes: &[NodeIndex],
        scratch: &mut Scratch,
    ) -> Vec<(usize, i64, Vec<i64>)> {
        let mut all = Vec::new();
        let mut skipped: PluginSet = 0;
        for &place in &self.points.pre_score {
            let Some(point) = self.plugins[place].plugin.as_pre_score() else {
                continue;
            };
            if point.pre_score(&mut scratch.state, pod, snapshot, nodes) != Verdict::Success {
                skipped |= 1 << place;
            }
        }
        for &place in self
            .points
            .score
            .iter()
            .filter(|place| skipped >> **place & 1 == 0)
        {
            let Some(point) = self.plugins[place].plugin.as_score() else {
                continue;
            };
            let mut scores = vec![0; nodes.len()];
            point.score_batch(&scratch.state, pod, snapshot, nodes, &mut scores);
            point.normalize(&scratch.state, pod, &mut scores);
            all.push((place, self.plugins[place].weight, scores));
        }
        all
    }
}
