"""What a process of a team computes: every statistic and product of several networks, as one flat dictionary."""

from pathlib import Path

import torch
import torch.distributed as dist

from memspace.metric.ekfac import bases_of
from memspace.metric.fisher import build
from memspace.passes.collect import CollectRows
from memspace.passes.engine import PassOptions, run_pass
from memspace.passes.leverage import KroneckerInfluence, KroneckerLeverage, QueryGradients
from memspace.passes.linearise import FisherOperator
from memspace.passes.outputs import outputs
from memspace.passes.processes import across
from memspace.passes.statistics import DiagonalFisher, GradientNorms, KroneckerFactors
from memspace.passes.verify import verified_space
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Poisson
from memspace.task.task import Task
from tests.contract.networks import network

PLAIN = ["linear", "norms", "gru, packed"]
NAMES = [*PLAIN, "transformer", "shared positions"]
LAWS = [Categorical(), Bernoulli(), Gaussian(0.7), Poisson()]


def everything(seed: int, names: list[str] = NAMES) -> dict[str, torch.Tensor]:
    """Network and quantity → tensor."""
    torch.set_num_threads(1)
    out = {}
    for name in names:
        i = NAMES.index(name)
        law = LAWS[i % len(LAWS)]
        model, x = network(name, seed)
        y = law.sample(model(x).detach(), torch.Generator().manual_seed(seed + 1))
        task = Task(model=model, train=(x, y), likelihood=law)
        space = verified_space(task)
        for kind in ("exact", "mc", "empirical"):
            for r in ("dense", "diagonal", "kfac", "ekfac", "dual") + (("implicit",) if kind != "mc" else ()):
                out[f"{name}/{kind}/{r}"] = build(task, space, r, kind=kind, batch=2, seed=seed).to_dense()
        factors = KroneckerFactors(space.blocks, "mc")
        norms = GradientNorms(space.blocks, "empirical")
        rows = CollectRows(space.blocks, "jacobian")
        run_pass(task, space, [factors, norms, rows], PassOptions(batch=2, seed=seed))
        out[f"{name}/norms"] = norms.finish()["norms"]
        collected = rows.finish()
        out[f"{name}/rows"] = collected.times(torch.ones(space.size, dtype=torch.float64))
        bases, values = bases_of(factors.factors())
        inverse = {k: 1 / (v + 0.1) for k, v in values.items()}
        kind = "jacobian" if name in PLAIN else "empirical"
        table = KroneckerLeverage(space.blocks, bases, {k: v[None] for k, v in inverse.items()}, kind)
        queries = QueryGradients(space.blocks, bases, inverse, 3, 5)
        run_pass(task, space, [queries], PassOptions(index=[4, 0, 2], batch=1))
        scores = KroneckerInfluence(space.blocks, queries.finish(), {k: bases[k] for k in queries.rotated})
        run_pass(task, space, [table, scores], PassOptions(batch=2))
        out |= {f"{name}/{k}": v for k, v in (table.finish() | scores.finish()).items()}
        out[f"{name}/f"] = outputs(task, task.train, index=torch.tensor([3, 1, 0]))[0]
        direction = torch.linspace(-1, 1, space.size, dtype=torch.float64)
        out[f"{name}/moved"] = FisherOperator(task, space, batch=2).directional(direction)["moved"]
        # One example is fewer than there are processes: each reads it whole.
        few = DiagonalFisher(space.blocks, "exact")
        run_pass(task, space, [few], PassOptions(index=[2]))
        out[f"{name}/few"] = torch.cat([few.finish()[f"diag/{b.name}"].flatten() for b in space.blocks])
        out[f"{name}/count"] = few.finish()["n"].double()
    return out


def member(rank: int, size: int, seed: int, folder: str, names: list[str]) -> None:
    """One process: its results go into the folder."""
    store = dist.FileStore(str(Path(folder) / "store"), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    with across():
        torch.save(everything(seed, names), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
