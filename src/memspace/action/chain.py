"""Which calls of a model make its depth: a chain of blocks, each fed with what the one before gave, of one shape.

A forward pass is recorded once, call by call; what feeds what is known by the identity of the tensors. A module called
several times counts as often, so a network that repeats one block has a depth as well.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from memspace.action.calls import CallRecorder, ModuleCall
from memspace.errors import ShapeError, TaskError, UnsupportedLayerError
from memspace.passes.profile import ModelProfile
from memspace.task.checks import evaluating
from memspace.task.data import Inputs, call_model, first_tensor
from memspace.task.selection import split_patterns

__all__ = ["Chain", "DepthBlock", "candidates", "chain_of", "check_axis", "find_chain", "linked"]

LEAST = 2  # blocks below which there is no path to speak of


@dataclass(frozen=True)
class DepthBlock:
    """One call of a module.

    Args:
        name: the module's name in the model.
        module: the module.
        turn: which of its calls in a forward pass, from 0.
    """

    name: str
    module: nn.Module
    turn: int

    @property
    def title(self) -> str:
        """The name, with the turn where the module is called again."""
        return self.name if self.turn == 0 else f"{self.name} (call {self.turn + 1})"


@dataclass(frozen=True)
class Chain:
    """The calls that make a network's depth.

    Args:
        blocks: in the order they run.
        shape: one example's hidden state, the same after every block.
        found: no pattern named the blocks.
    """

    blocks: tuple[DepthBlock, ...]
    shape: tuple[int, ...]
    found: bool

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def homogeneous(self) -> bool:
        """True where all layers have one form: same class, same parameters' names and shapes."""
        kinds = {(type(b.module), tuple((n, p.shape) for n, p in b.module.named_parameters())) for b in self.blocks}
        return len(kinds) == 1


def candidates(model: nn.Module, blocks: str | Sequence[str] = ()) -> dict[str, nn.Module]:
    """Choose the modules that may be blocks.

    Args:
        model: the network.
        blocks: shell patterns over module names (``!`` excludes); of nested modules chosen the outermost counts.

    Returns:
        Modules by name; without a pattern, all that have parameters.

    Raises:
        TaskError: a pattern matches no module.
    """
    named = {n: m for n, m in model.named_modules() if n}
    only, without = split_patterns(blocks)
    if not only:
        return {
            n: m
            for n, m in named.items()
            if next(m.parameters(), None) is not None and not any(fnmatchcase(n, w) for w in without)
        }
    chosen: set[str] = set()
    for pattern in only:
        matches = {n for n in named if fnmatchcase(n, pattern)}
        if not matches:
            near = difflib.get_close_matches(pattern, named, n=3, cutoff=0.3) or list(named)[:3]
            raise TaskError(
                f"the pattern {pattern!r} matches no module",
                where="blocks",
                remedy=f"the modules are such as {', '.join(near)}",
            )
        chosen |= matches
    outermost = {n for n in chosen if not any(n.startswith(f"{o}.") for o in chosen)}
    return {n: m for n, m in named.items() if n in outermost and not any(fnmatchcase(n, w) for w in without)}


def find_chain(model: nn.Module, x: Inputs, blocks: str | Sequence[str] = ()) -> Chain:
    """Find the chain the patterns name, or the longest one of modules of one class.

    Args:
        model: the network.
        x: inputs of a few examples.
        blocks: shell patterns over module names (``!`` excludes).

    Returns:
        The blocks in the order they run.

    Raises:
        TaskError: a pattern matches no module, or fewer than two blocks are left.
        ShapeError: the shape changes along the blocks named; the stages of constant shape are offered.
        UnsupportedLayerError: a block is not fed with what the one before gave, or works in place, or its first axis
            does not run over examples.
    """
    with CallRecorder(model, candidates(model, blocks)) as record, torch.no_grad(), evaluating(model):
        call_model(model, x)
        named = bool(split_patterns(blocks)[0])
        return _chain(record.calls, len(first_tensor(x)), named=named)


def chain_of(model: nn.Module, profile: ModelProfile) -> Chain:
    """Find the longest chain of modules of one class, as :func:`find_chain` does, without calling the model.

    Args:
        model: the network.
        profile: of the model.

    Returns:
        The blocks in the order they run.

    Raises:
        TaskError: there are no two modules that feed one another.
        UnsupportedLayerError: a block works in place, or its first axis does not run over examples.
    """
    modules, turns, calls = candidates(model), Counter[str](), []
    for call in profile.calls:
        if call.name in modules and call.state_in is not None and call.state_out is not None:
            versions = (0, 0) if call.intact else (-1, -1)  # the meta tensors' own is 0
            states = call.state_in, call.state_out
            calls.append(ModuleCall(call.name, modules[call.name], turns[call.name], *states, versions))
            turns[call.name] += 1
    return _chain(calls, 1, named=False)


def _chain(record: Sequence[ModuleCall], examples: int, *, named: bool) -> Chain:
    calls = linked(record, named=named)
    check_axis(calls[0].output, examples)
    shape = tuple(calls[0].output.shape[1:])
    return Chain(tuple(DepthBlock(c.name, c.module, c.turn) for c in calls), shape, not named)


def check_axis(h: Tensor, examples: int) -> None:
    """Refuse hidden states whose first axis does not run over the examples.

    Args:
        h: a hidden state.
        examples: number of examples in the batch.

    Raises:
        UnsupportedLayerError: the first axis has another length.
    """
    if h.shape[0] != examples:
        raise UnsupportedLayerError(
            f"hidden states of shape {tuple(h.shape)} do not have the {examples} examples on their first axis",
            where="blocks",
            remedy="let the blocks take (examples, ...), for example with batch_first=True",
        )


def linked(calls: Sequence[ModuleCall], *, named: bool) -> list[ModuleCall]:
    """Choose the calls that make the chain.

    Args:
        calls: those of one forward pass, in order.
        named: take all of them; else the longest chain within.

    Returns:
        Calls that feed one another and keep the shape.

    Raises:
        TaskError: fewer than two calls.
        ShapeError: the shape changes along the calls.
        UnsupportedLayerError: a call changes its input in place, or is not fed with what the one before gave.
    """
    chain = list(calls) if named else _longest(calls)
    if len(chain) < LEAST:
        none = "the model has no two modules of one class that keep the shape and feed one another"
        raise TaskError(
            f"{len(chain)} of the blocks named ran, a depth takes {LEAST}" if named else none,
            where="blocks",
            remedy="name at least two that the model runs, by a pattern over module names such as layers.*"
            if named
            else "if it has repeated blocks all the same, name them by a pattern over module names such as layers.*",
        )
    for call in chain:
        if not call.kept:
            raise UnsupportedLayerError(
                "a hidden state is changed in place, so that it is lost",
                where=f"block {call.name}",
                remedy="let the block give a new tensor: x = x + ... instead of x += ...",
            )
    stages = _stages(chain)
    if len(stages) == 1 and len(stages[0]) == len(chain):
        return chain
    long = [f"{s[0].name} to {s[-1].name}, {_size(s[0].output)}" for s in stages if len(s) >= LEAST]
    offered = f"name one stage of constant shape without a gap: {'; '.join(long)}" if long else "name other blocks"
    changing = next((c for c in chain if _changes(c)), None)
    if changing is not None:
        raise ShapeError(
            f"{changing.name} changes the shape of the hidden state from {_size(changing.input)} to "
            f"{_size(changing.output)}",
            where="blocks",
            remedy=offered,
        )
    raise UnsupportedLayerError(
        f"{stages[1][0].name} is not fed with what {stages[0][-1].name} gave", where="blocks", remedy=offered
    )


def _size(t: Tensor) -> str:
    return "×".join(map(str, t.shape[1:])) or "a single number"


def _changes(call: ModuleCall) -> bool:
    return call.input.shape != call.output.shape or call.output.dim() < 2


def _stages(calls: Sequence[ModuleCall]) -> list[list[ModuleCall]]:
    """Maximal stretches in which every block keeps the shape and feeds the next."""
    stages: list[list[ModuleCall]] = []
    previous: ModuleCall | None = None
    for call in calls:
        if not _changes(call):
            if stages and previous is stages[-1][-1] and call.input is previous.output:
                stages[-1].append(call)
            else:
                stages.append([call])
        previous = call
    return stages


def _longest(calls: Sequence[ModuleCall]) -> list[ModuleCall]:
    """The longest chain of calls of one class; of several, the one of most parameters."""
    best: list[tuple[int, int, int | None]] = []  # blocks, parameters, call before
    makers: dict[int, list[int]] = {}  # by identity of the output; the calls keep the tensors alive
    for j, call in enumerate(calls):
        size = sum(p.numel() for p in call.module.parameters())
        entry: tuple[int, int, int | None] = (0, 0, None)
        if not _changes(call):
            entry = (1, size, None)
            for i in makers.get(id(call.input), ()):
                if type(calls[i].module) is type(call.module):
                    entry = max(entry, (best[i][0] + 1, best[i][1] + size, i), key=lambda e: e[:2])
            makers.setdefault(id(call.output), []).append(j)
        best.append(entry)
    if not best:
        return []
    at: int | None = max(range(len(best)), key=lambda j: best[j][:2])
    chain = []
    while at is not None and best[at][0] > 0:
        chain.append(calls[at])
        at = best[at][2]
    return chain[::-1]
