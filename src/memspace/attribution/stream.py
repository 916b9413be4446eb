"""Scores of more pairs than memory holds: written in pieces to one Parquet file, and the strongest of every query.

A piece holds some queries and a chunk of the training examples. It is written whole or not at all and kept, so that
the same question asked again in the same folder goes on after the last finished piece; a question that differs in
anything that matters starts from the beginning.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from memspace.attribution.engines import Solved
from memspace.attribution.prepared import Prepared, Ways, checked_target, judged, prepared, score_pass
from memspace.attribution.question import Asked, Queries, ask, queries_of
from memspace.attribution.result import SIGN, Top
from memspace.attribution.settings import InfluenceSettings
from memspace.attribution.target import Target
from memspace.errors import Interrupted, RunFolderError
from memspace.files import clear, locked, writing, written
from memspace.measures.damping import DampingChoice
from memspace.passes.space import ParameterSpace
from memspace.passes.verify import checked_space
from memspace.progress import Progress, Silent
from memspace.task.fingerprint import fingerprint
from memspace.task.task import Task

__all__ = ["Stored", "stream_influence"]

AT_ONCE = 2**22  # scores of one piece: 16 MiB in float32
PARTS, STATE, SCORES, TOP = ".parts", "question.json", "scores.parquet", "top.json"


@dataclass(frozen=True)
class Stored:
    """What was written.

    Args:
        folder: holds ``scores.parquet`` (query, position for outcomes by token, train, score) and ``top.json``.
        top: the strongest of every query.
        queries: as in ``Influence``.
        positions: as in ``Influence``.
        outcome: as in ``Influence``.
        facts: engine, target, unit, damping and its rule, reliability, diagnostics: as in ``top.json``.
        pieces: how many were computed now, and how many there are; fewer where an interrupted run was gone on with.
    """

    folder: Path
    top: Top
    queries: Tensor
    positions: Tensor | None
    outcome: Tensor
    facts: dict[str, Any]
    pieces: tuple[int, int]


def stream_influence(
    task: Task,
    out: str | Path,
    queries: Queries = None,
    *,
    top: int = 20,
    tokens: bool = False,
    **ways: Unpack[Ways],
) -> Stored:
    """Score as ``influence`` does, with the scores in ``out``/scores.parquet and never all in memory.

    Args:
        task: the network and its data.
        out: folder, made where it is not there.
        queries: positions in the test data (the training data where there are none), other data, or None: all.
        top: supporters and opposers kept of every query.
        tokens: each position of a query is an outcome of its own.
        **ways: ``engine``, ``target``, ``damping``, ``settings`` and ``progress``, as ``influence`` takes them.

    Returns:
        what was written, with the strongest of every query in the outcome's unit.

    Raises:
        OutputError: the folder cannot be written.
        RunFolderError: another run works there, or it holds others' files of the names that are written.
        Interrupted: the damping, the solves and the pieces that are finished are kept.
        MemspaceError: bad input, in one sentence.
    """
    folder = Path(out)
    with locked(folder):
        _refuse_foreign(folder)
        try:
            return _streamed(_Question(task, folder, queries, top, tokens, ways))
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped by the user", where=str(folder), remedy="the same command goes on from here"
            ) from error


@dataclass(frozen=True)
class _Question:
    """The arguments of :func:`stream_influence`."""

    task: Task
    folder: Path
    queries: Queries
    top: int
    tokens: bool
    ways: Ways

    @property
    def settings(self) -> InfluenceSettings:
        """Budget and accuracy."""
        return self.ways.get("settings") or InfluenceSettings()

    @property
    def progress(self) -> Progress:
        """Whom work tells how far it is."""
        return self.ways.get("progress") or Silent()

    @property
    def parts(self) -> Path:
        """Where the pieces are."""
        return self.folder / PARTS


def _streamed(question: _Question) -> Stored:
    start = time.perf_counter()
    task, parts, settings, progress = question.task, question.parts, question.settings, question.progress
    space = checked_space(task)
    data, index = queries_of(task, question.queries)
    goal = checked_target(task, question.ways.get("target", "loss"))
    asked = ask(task, space, goal, data, index, apart=question.tokens, memory=settings.memory, progress=progress)
    how = {"engine": question.ways.get("engine", "auto"), "damping": question.ways.get("damping")}
    key = _key(task, asked, how | {"settings": asdict(settings), "solves": 2})
    state = _resumed(question.folder, key)
    facts = state.get("facts") or _solve(question, goal, asked, key, state)
    made, pieces = 0, list(_pieces(parts, len(task.train), settings))
    for piece in progress.track(pieces, "scores by pieces", len(pieces)):
        made += _compute(task, space, asked, piece, settings)
    best = _join(question.folder, pieces, asked, facts, question.top)
    facts = facts | {"seconds": time.perf_counter() - start}
    stored = Stored(question.folder, best, asked.queries, asked.positions, asked.outcome, facts, (made, len(pieces)))
    _write_json(question.folder / TOP, _top_table(stored))
    clear(parts)
    return stored


def _solve(question: _Question, goal: Target, asked: Asked, key: str, state: dict[str, Any]) -> dict[str, Any]:
    """Solve for every query, keeping what costs most first; return what is to be said of the solutions.

    Args:
        question: as asked.
        goal: the outcome, checked.
        asked: its gradients.
        key: of the question, kept with what an interrupted run leaves.
        state: what an interrupted run left: its damping, if it got so far.
    """
    parts, task = question.parts, question.task
    if not state:
        with writing(question.folder):
            clear(parts)
            parts.mkdir(parents=True)
    ready = _ready(question, goal, state)
    if "damping" not in state:  # what costs retrained networks is kept first
        _write_json(parts / STATE, {"key": key, "damping": asdict(ready.damping)})
    solved = []
    for k in range(0, len(asked.outcome), ready.at_once):
        path = parts / f"solved-{k:08d}.safetensors"
        if not path.exists():
            solution = ready.engine.solve(asked.gradients[k : k + ready.at_once], ready.damping.value)
            _keep(path, solution)
        solved.append(_solved(path, task))
    reliable, note, diagnostics = judged(ready, asked, solved)
    facts = {
        "engine": ready.engine.name,
        "metric": ready.engine.statement,
        "target": goal.name,
        "unit": goal.unit,
        "sign": SIGN,
        "damping": ready.damping.value,
        "damping_rule": ready.damping.statement,
        "reliable": reliable,
        "note": note,
        "diagnostics": [d.to_dict() for d in diagnostics],
    }
    _write_json(parts / STATE, {"key": key, "facts": facts})
    return facts


def _ready(question: _Question, goal: Target, state: dict[str, Any]) -> Prepared:
    """The engine, with its damping chosen now or by the run that was interrupted."""
    data, index = queries_of(question.task, question.queries)
    ways: Ways = {**question.ways, "target": goal}
    if "damping" not in state:
        return prepared(question.task, data=data, queries=index, **ways)
    chosen = DampingChoice(**state["damping"])
    ways["damping"] = chosen.value
    return replace(prepared(question.task, data=data, queries=index, **ways), damping=chosen)


@dataclass(frozen=True)
class _Piece:
    """Queries ``first``.. of one file of solutions against training examples ``low`` to ``high``."""

    path: Path
    solutions: Path
    first: int
    low: int
    high: int


def _pieces(parts: Path, n: int, settings: InfluenceSettings) -> Iterator[_Piece]:
    for solutions in sorted(parts.glob("solved-*.safetensors")):
        first = int(solutions.stem.rpartition("-")[2])
        count = len(load_file(str(solutions))["x"])
        chunk = settings.chunk or max(1, AT_ONCE // count)
        for low in range(0, n, chunk):
            path = parts / f"scores-{first:08d}-{low:010d}.parquet"
            yield _Piece(path, solutions, first, low, min(n, low + chunk))


def _keep(path: Path, found: Solved) -> None:
    about = torch.tensor([found.iterations, found.converged], dtype=torch.int64)
    columns = {"x": found.x, "residual": found.residual, "error": found.error, "about": about}
    written(path, lambda p: save_file({k: v.cpu().contiguous() for k, v in columns.items()}, str(p)))


def _solved(path: Path, task: Task) -> Solved:
    tensors = load_file(str(path))
    steps, converged = tensors["about"].tolist()
    x, residual, error = (tensors[name].to(task.device) for name in ("x", "residual", "error"))
    return Solved(x, residual, error, int(steps), bool(converged))


def _refuse_foreign(folder: Path) -> None:
    """Raise where files of the names that are written are not an earlier stream's."""
    parts = folder / PARTS
    ours = ("solved-", "scores-", STATE)
    if parts.is_symlink() or (parts.exists() and not parts.is_dir()):
        raise _foreign(parts)
    for path in parts.iterdir() if parts.is_dir() else ():
        if not path.name.startswith(ours):
            raise _foreign(path)
    for path in (folder / SCORES, folder / TOP):
        if path.is_symlink() or (path.exists() and not _own(path)):
            raise _foreign(path)


def _own(path: Path) -> bool:
    try:
        if path.name == SCORES:
            return b"memspace" in (pq.read_schema(str(path)).metadata or {})
        return bool({"engine", "queries"} <= json.loads(path.read_text(encoding="utf-8")).keys())
    except Exception:  # whatever cannot be read is not ours
        return False


def _foreign(path: Path) -> RunFolderError:
    return RunFolderError(
        f"{path.name} was not written by memspace",
        where=str(path),
        remedy="choose another --out, or move it away",
    )


def _compute(task: Task, space: ParameterSpace, asked: Asked, piece: _Piece, settings: InfluenceSettings) -> int:
    """Write a piece unless it is there; 1 where it was computed."""
    if piece.path.exists():
        return 0
    x = load_file(str(piece.solutions))["x"].to(task.device)
    index = torch.arange(piece.low, piece.high)
    scores = score_pass(task, space, x, index=index, batch=settings.batch)["scores"].t().cpu()
    queries = slice(piece.first, piece.first + len(x))
    columns = {"query": asked.queries[queries].repeat_interleave(len(index)).to(torch.int32).numpy()}
    if asked.positions is not None:
        columns["position"] = asked.positions[queries].repeat_interleave(len(index)).to(torch.int32).numpy()
    columns["train"] = index.repeat(len(x)).to(torch.int32).numpy()
    columns["score"] = scores.flatten().numpy()
    table = pa.table(columns)
    written(piece.path, lambda path: pq.write_table(table, path))
    return 1


def _join(folder: Path, pieces: list[_Piece], asked: Asked, facts: dict[str, Any], k: int) -> Top:
    """All pieces as row groups of one file, and the strongest k of every query, read a piece at a time."""
    q = len(asked.outcome)
    most = (torch.full((q, 0), 0.0), torch.zeros(q, 0, dtype=torch.long))
    least = most
    strongest: dict[int, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = {}

    def write(path: Path) -> None:
        first = pq.read_schema(pieces[0].path)
        named = {"memspace": json.dumps(facts)}
        with pq.ParquetWriter(path, first.with_metadata(named)) as writer:
            for piece in pieces:
                table = pq.read_table(piece.path)
                writer.write_table(table.replace_schema_metadata(named), row_group_size=len(table))
                scores = torch.from_numpy(table["score"].to_numpy().copy()).reshape(-1, piece.high - piece.low)
                index = torch.arange(piece.low, piece.high).expand_as(scores)
                empty = (scores[:, :0], index[:, :0])
                up, down = strongest.get(piece.first, (empty, empty))
                strongest[piece.first] = (_strongest(up, scores, index, k, 1), _strongest(down, scores, index, k, -1))

    written(folder / SCORES, write)
    order = sorted(strongest)
    most = tuple(torch.cat([strongest[f][0][i] for f in order]) for i in (0, 1))  # type: ignore[assignment]
    least = tuple(torch.cat([strongest[f][1][i] for f in order]) for i in (0, 1))  # type: ignore[assignment]
    return Top(most[1], most[0], least[1], least[0])


def _strongest(held: tuple[Tensor, Tensor], scores: Tensor, index: Tensor, k: int, sign: int) -> tuple[Tensor, Tensor]:
    values, places = torch.cat([held[0], scores], 1), torch.cat([held[1], index], 1)
    at = (sign * values).topk(min(k, values.shape[1]), 1).indices
    return values.gather(1, at), places.gather(1, at)


def _key(task: Task, asked: Asked, how: dict[str, Any]) -> str:
    digest = hashlib.sha256(fingerprint(task).encode())
    digest.update(json.dumps(how, sort_keys=True).encode())
    for t in (asked.gradients, asked.queries, *(() if asked.positions is None else (asked.positions,))):
        digest.update(t.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resumed(folder: Path, key: str) -> dict[str, Any]:
    """What was found of the same question where it was interrupted in this folder; empty where it was not."""
    try:
        state = json.loads((folder / PARTS / STATE).read_text(encoding="utf-8"))
        return dict(state) if state["key"] == key else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    written(path, lambda p: p.write_text(text, encoding="utf-8"))


def _top_table(stored: Stored) -> dict[str, Any]:
    top, rows = stored.top, []
    for q in range(len(stored.queries)):
        row: dict[str, Any] = {"query": int(stored.queries[q])}
        if stored.positions is not None:
            row["position"] = int(stored.positions[q])
        row["outcome"] = float(stored.outcome[q])
        for name, index, score in (
            ("supporters", top.supporters, top.support),
            ("opposers", top.opposers, top.opposition),
        ):
            row[name] = [
                {"train": int(i), "score": float(s)} for i, s in zip(index[q].tolist(), score[q].tolist(), strict=True)
            ]
        rows.append(row)
    return stored.facts | {"queries": rows}
