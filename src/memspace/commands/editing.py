"""``memspace forget``, ``write``, ``reweight`` and ``distil``: edits of a network's memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memspace.commands import (
    MOST,
    Damping,
    DataRoot,
    Device,
    Json,
    Noise,
    Seed,
    TaskName,
    Weights,
    move_to,
    say_json,
    watching,
)
from memspace.report.terminal import Terminal

if TYPE_CHECKING:
    from memspace.measurement import Measurement, Unmeasured
    from memspace.task.task import Task

__all__ = ["add"]

Out = Annotated[Path, typer.Option(help="Where the new weights go (safetensors).")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def _numbers(text: str) -> list[int]:
    words = [w for w in re.split(r"[\s,]+", text.strip()) if w]
    try:
        return [int(w) for w in words]
    except ValueError:
        raise typer.BadParameter(f"{text[:60]!r} is not a list of whole numbers like 3,17") from None


def _resolved(
    name: str, weights: Path | None, root: Path | None, noise: float, seed: int, device: str | None, silent: bool
) -> Task:
    from memspace.task.builtin import BuildOptions
    from memspace.task.checks import check_task
    from memspace.task.load import resolve

    with watching(Terminal(stderr=True), silent) as progress:
        task = resolve(name, BuildOptions(seed=seed, label_noise=noise, data_root=root), progress, weights)
    if device is not None:
        move_to(task.model, device)
    check_task(task)
    return task


def _tell(
    statement: str, found: tuple[Measurement | Unmeasured, ...], out: Path | None, as_json: bool, **more: Any
) -> None:
    if as_json:
        words = {"statement": statement, "measurements": [m.to_dict() for m in found], **more}
        say_json(words | ({"out": str(out)} if out is not None else {}))
        return
    typer.echo(statement)
    for m in found:
        value = getattr(m, "value", None)
        if value is None:
            typer.echo(f"  {m.name:<34} not measured: {getattr(m, 'reason', '')}")
            continue
        ends = getattr(m, "interval", None)
        interval = "" if ends is None else f"  ({ends[0]:.4g} to {ends[1]:.4g})"
        unit = getattr(m, "unit", "")
        typer.echo(f"  {m.name:<34} {value:.4g}{'' if unit == '1' else ' ' + unit}{interval}")
    if out is not None:
        typer.echo(f"written: {out}")


def forget(
    task: TaskName,
    examples: Annotated[str | None, typer.Option(help="Training examples, for example 3,17.")] = None,
    examples_file: Annotated[Path | None, typer.Option(help="A file that lists them.")] = None,
    out: Out = Path("forgotten.safetensors"),
    damping: Damping = None,
    method: Annotated[str, typer.Option(help="auto, dual, cg or ekfac.")] = "auto",
    steps: Annotated[int, typer.Option(help="Newton steps.", min=1, max=MOST)] = 1,
    compare: Annotated[bool, typer.Option("--compare", help="Also train again without them, and compare.")] = False,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Forget training examples: new weights as if the network had been trained without them."""
    from memspace.editing.comparison import compared
    from memspace.editing.edit import rest_of, writable
    from memspace.editing.forget import forget as forget_examples
    from memspace.editing.membership import membership
    from memspace.editing.solver import METHODS

    if (examples is None) == (examples_file is None):
        raise typer.BadParameter("give either --examples or --examples-file")
    if method not in METHODS:
        raise typer.BadParameter(f"method is one of {', '.join(METHODS)}")
    chosen = _numbers(examples if examples is not None else _read(examples_file))
    writable(out, force)
    job = _resolved(task, weights, data_root, label_noise, seed, device, as_json)
    edit = forget_examples(job, chosen, damping=damping, method=method, steps=steps, seed=seed)
    kept = rest_of(len(job.train), edit.examples)
    found = list(edit.measurements)
    for when, state in (("before", None), ("after", edit.state)):
        found += membership(job, edit.examples, kept, state, f"membership.{when}") or ()
    if compare:
        found += compared(job, edit, seed)
    edit.save(out, force=force)
    _tell(edit.statement, tuple(found), out, as_json, damping=edit.damping)


def write(
    task: TaskName,
    like: Annotated[list[int] | None, typer.Option(help="A test example to store; repeatable.")] = None,
    label: Annotated[list[int] | None, typer.Option(help="Its label, where another than its own.")] = None,
    file: Annotated[Path | None, typer.Option(help="Tensors x and y: safetensors, or .pt without code.")] = None,
    out: Out = Path("written.safetensors"),
    loss: Annotated[float, typer.Option(help="Nats that a stored example may cost at most.")] = 0.1,
    damping: Damping = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Store new examples with the least disturbance of everything else."""
    import torch

    from memspace.editing.edit import writable
    from memspace.editing.write import WriteTarget
    from memspace.editing.write import write as write_examples
    from memspace.errors import DataError
    from memspace.task.checkpoint import read_state

    if (not like) == (file is None):
        raise typer.BadParameter("give either --like or --file")
    if not loss > 0:
        raise typer.BadParameter("the loss must be positive")
    if label and len(label) != len(like or ()):
        raise typer.BadParameter("give one --label for each --like")
    writable(out, force)
    job = _resolved(task, weights, data_root, label_noise, seed, device, as_json)
    if file is not None:
        tensors = read_state(file)
        if not {"x", "y"} <= tensors.keys():
            raise DataError("the file holds no tensors x and y", where=str(file), remedy="save {'x': ..., 'y': ...}")
        x, y = tensors["x"], tensors["y"]
    else:
        data: Any = job.test if job.test is not None else job.train
        outside = [i for i in like or () if not 0 <= i < len(data)]
        if outside:
            raise DataError(f"there is no example {outside[0]}", where=data.name, remedy=f"use 0..{len(data) - 1}")
        part = data.batch(torch.tensor(like))
        x, y = part.x, torch.tensor(label) if label else part.y
    edit = write_examples(job, x, y, target=WriteTarget(loss), damping=damping, seed=seed)
    edit.save(out, force=force)
    _tell(edit.statement, edit.measurements, out, as_json)


def reweight(
    task: TaskName,
    clean: Annotated[int, typer.Option(help="How many test examples to take as the clean ones.", min=1, max=MOST)] = 50,
    preconditioned: Annotated[bool, typer.Option("--preconditioned", help="By influence.")] = False,
    damping: Damping = None,
    out: Annotated[Path | None, typer.Option(help="Table of the weights, .parquet or .csv.")] = None,
    weights: Weights = None,
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Weigh training examples by how far they go along with a few clean ones; train again where that can be done."""
    from memspace.auditing.table_file import save_table, table_path
    from memspace.editing.comparison import reweighted
    from memspace.editing.edit import writable

    if out is not None:
        writable(table_path(out), force)
    job = _resolved(task, weights, data_root, label_noise, seed, device, as_json)
    found, measured = reweighted(job, clean, preconditioned, damping, seed)
    if out is not None:
        columns = {"example": range(len(found.weights)), "weight": found.weights.tolist()}
        save_table(out, columns | {"product": found.products.tolist()})
    _tell(found.statement, measured, out, as_json)


def distil(
    task: TaskName,
    per_class: Annotated[int, typer.Option(help="Synthetic examples per class.", min=1, max=MOST)] = 1,
    steps: Annotated[int, typer.Option(help="Gradient steps on them.", min=1, max=MOST)] = 3,
    iterations: Annotated[int, typer.Option(help="Of the search.", min=1, max=MOST)] = 1000,
    fixed: Annotated[bool, typer.Option("--fixed", help="For one given initialisation.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the examples and the page.")] = Path("distilled"),
    data_root: DataRoot = None,
    label_noise: Noise = 0.0,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Distil the training set into a few synthetic examples, shown as pictures."""
    from memspace.editing.distil import DistilSettings
    from memspace.editing.distil import distil as distil_task
    from memspace.editing.edit import save_state, writable
    from memspace.editing.gallery import write_gallery

    page, tensors = out / "distilled.html", out / "distilled.safetensors"
    for path in (page, tensors):
        writable(path, force)
    job = _resolved(task, None, data_root, label_noise, seed, None, as_json)
    recipe = DistilSettings(per_class=per_class, steps=steps, iterations=iterations, fixed=fixed)
    with watching(Terminal(stderr=True), as_json) as progress:
        made = distil_task(job, recipe, seed=seed, progress=progress)
    save_state({"x": made.x, "y": made.y, "rates": made.rates}, tensors, force=force)
    write_gallery(job, made, page)
    _tell(made.statement, made.measurements, page, as_json)


def _read(path: Path | None) -> str:
    from memspace.errors import DataError

    assert path is not None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the list of examples cannot be read", where=str(path), remedy="check the path") from error


def add(app: typer.Typer) -> None:
    """The four commands."""
    for command in (forget, write, reweight, distil):
        app.command()(command)
