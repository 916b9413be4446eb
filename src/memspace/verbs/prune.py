"""``memspace.prune``: a smaller network, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from memspace.auditing.chapters.pruning import pruning_curves, pruning_results
from memspace.auditing.store import write_text
from memspace.errors import SettingsError
from memspace.limits import KEPT, one_of
from memspace.measures.compensated import PruneSettings
from memspace.measures.pruned import PrunedNetwork, pruning_cost
from memspace.measures.pruning import METHODS
from memspace.measures.pruning import prune as pruned_networks
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.report.html import render
from memspace.task.checks import untouched
from memspace.task.task import Task
from memspace.verbs.verb import verb

__all__ = ["prune"]


@verb
def prune(
    task: Task,
    keep: float | Sequence[float] = 0.1,
    *,
    method: str = "fisher-inverse",
    page: str | Path | None = None,
    settings: PruneSettings | None = None,
    progress: Progress | None = None,
) -> PrunedNetwork:
    """Set weights to zero, let the others make up for it, and measure what it costs.

    Args:
        task: a task, or a model followed by ``train``, ``test`` and fields of :class:`memspace.Task` by name.
        keep: share of the weight matrices' entries kept; of several the network is that of the smallest, the others
            are points of the page's curve.
        method: ``magnitude`` |θ|; ``fisher-diagonal`` ½ F_ii θ_i²; ``fisher-inverse`` with compensation by the other
            weights; ``geometric-median``, whole filters.
        page: HTML file with every method's curve down to ``keep``; None writes nothing.
        settings: of compensated pruning; see :class:`memspace.PruneSettings`.
        progress: where the work reports.

    Returns:
        the pruned network: its state dict, and accuracy and loss (nats) before and after on the same examples.

    Raises:
        TaskError: geometric-median without a layer to filter, or down to one filter a layer above the share.
        SettingsError: an unknown method, or a share outside (0, 1].
    """
    settings, progress = settings or PruneSettings(), progress or Silent()
    shares = [KEPT(s, "keep") for s in (keep if isinstance(keep, Sequence) else [keep])]
    if not shares:
        raise SettingsError("no share to keep is given", where="keep", remedy="give a number from 0 to 1, or several")
    one_of(method, METHODS, "method")
    space = checked_space(task)
    with untouched(task.model):
        networks = pruned_networks(task, space, method, shares, surgery=settings, progress=progress)
        cost = pruning_cost(task, space, networks[-1], settings)
        state = {k: v.detach().clone() for k, v in task.model.state_dict().items() if isinstance(v, Tensor)}
        state |= space.unpack(networks[-1].flat)
        if page is not None:
            curves = pruning_curves(task, space, networks, settings, progress)
            write_text(Path(page), render(pruning_results(task, space, cost, curves, settings)))
    return PrunedNetwork(method, networks[-1].share, state, cost.measurements)
