"""Peer libraries on the benchmark's work items, each by its own recommended fast way.

A module gives ``ITEMS``: item → prepare(workload) → work. What ``prepare`` does (copying the model, wrapping it) is not
timed, to the peer's advantage. Results come back in our layout. A peer that cannot do an item lists it all the same:
its error is the result.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.engine_outcome import Work
from benchmarks.engine_workloads import Workload

__all__ = ["PEERS", "peers_of"]

# name → module; imported one by one, so that one that is not installed is shown as failed and the others run.
PEERS = {
    "kronfluence": "benchmarks.peers.kronfluence_items",
    "nngeometry": "benchmarks.peers.nngeometry_items",
    "BackPACK": "benchmarks.peers.backpack_items",
    "curvlinops": "benchmarks.peers.curvlinops_items",
    "opacus": "benchmarks.peers.opacus_items",
    "hessian-eigenthings": "benchmarks.peers.eigenthings_items",
    "dattri": "benchmarks.peers.dattri_items",
    "torch.func": "benchmarks.peers.torch_func_items",
}

CLAIMS = {
    "kronfluence": ("ekfac-mc", "ekfac-empirical", "self-influence", "pairwise"),
    "nngeometry": ("diagonal-mc", "diagonal-exact", "kfac-mc", "kfac-exact", "product", "gram"),
    "BackPACK": ("norms", "diagonal-mc", "diagonal-exact", "kfac-mc", "kfac-exact"),
    "curvlinops": ("kfac-mc", "kfac-exact", "ekfac-mc", "ekfac-empirical", "product", "products-16", "top-20"),
    "opacus": ("norms",),
    "hessian-eigenthings": ("product", "top-20"),
    "dattri": ("self-influence", "pairwise"),
    "torch.func": ("norms", "gram"),
}


def peers_of(item: str, only: frozenset[str] | None = None) -> dict[str, Callable[[Workload], Work]]:
    """Peer → prepare, for every peer (of ``only``) that offers the item."""

    def prepare(peer: str) -> Callable[[Workload], Work]:
        def later(w: Workload) -> Work:
            return importlib.import_module(PEERS[peer]).ITEMS[item](w)  # type: ignore[no-any-return]

        return later

    return {peer: prepare(peer) for peer, items in CLAIMS.items() if item in items and (only is None or peer in only)}
