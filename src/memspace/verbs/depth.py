"""``memspace.depth``: how far the hidden states travel, layer by layer, and whether the layers steer them optimally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from memspace.action.depth import Depth, depth_action
from memspace.limits import SEED
from memspace.progress import Progress
from memspace.task.checks import check_task
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["depth"]


@verb
def depth(
    task: Task,
    *,
    blocks: str | Sequence[str] = (),
    examples: int = 256,
    lens: str = "tuned",
    seed: Annotated[int, SEED] = 0,
    progress: Progress | None = None,
) -> Depth:
    """Measure the action of hidden states along depth: kinetic, in the Fisher metric, in predictions, as control.

    A = (L/2) Σ ‖h_{l+1} − h_l‖² ≥ ½ ‖h_L − h_0‖²; (L/2) Σ δhᵀ J_lᵀ H J_l δh; Fisher–Rao length of layer-wise
    read-outs; H_l = E⟨p_{l+1}, h_{l+1} − h_l⟩ − (λ/2)‖θ_l‖². See ``docs/depth.md``.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        blocks: shell patterns over module names, ``!`` excludes; none: the longest chain of modules of one class and
            shape, each fed with what the one before gave. The result says which were taken.
        examples: training examples measured on, at most half of them; read-outs are fitted on twice as many others,
            the control is judged on eight times as many.
        lens: ``tuned`` (an affine map per layer, fitted) or ``logit`` (none).
        seed: random seed of the choice of examples.
        progress: where the work reports.

    Returns:
        measurements of the whole depth, and one per layer in ``layers``, each with unit and interval.

    Raises:
        TaskError: no blocks, or fewer than two.
        ShapeError: blocks named whose hidden state changes its shape; the stages of constant shape are offered.
        UnsupportedLayerError: blocks that do not feed one another, or change their input in place.
        SettingsError: an unknown lens, or fewer than two examples.
    """
    check_task(task)
    return depth_action(task, blocks=blocks, examples=examples, lens=lens, seed=seed, progress=progress)
