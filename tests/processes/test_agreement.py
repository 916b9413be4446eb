"""Processes that hold different things say so before they start; an incomplete environment is one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import memspace
from memspace.cli import main
from memspace.errors import WorkerError
from tests import warm

OTHER = ("weights", "labels", "inputs", "number", "test data", "law", "settings", "parameters", "nothing")
SAYS = {
    "weights": "process 1 has other weights than process 0",
    "labels": "process 1 has other training data than process 0",
    "inputs": "process 1 has other training data than process 0",
    "number": "process 1 has other number of examples than process 0 (training data: 19 examples",
    "test data": "process 1 has other test data than process 0",
    "law": "process 1 has other output law than process 0",
    "settings": "process 1 has other settings than process 0",
    "parameters": "process 1 has other chosen parameters than process 0",
}


def _task(what: str) -> tuple[memspace.Task, memspace.Settings]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(26, 3, generator=g)
    y = x[:, :2].clone()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        if what == "weights":
            model[0].weight[1, 1] += 1e-6
        if what == "labels":
            y[7, 0] += 1
        if what == "inputs":
            x[12, 1] += 1e-6
        if what == "test data":
            x[25, 0] = 0
    n = 19 if what == "number" else 20
    task = memspace.Task(
        model=model,
        train=(x[:n], y[:n]),
        test=(x[20:], y[20:]),
        likelihood=memspace.Gaussian(0.6 if what == "law" else 0.5),
        parameters="2.*" if what == "parameters" else (),
    )
    return task, memspace.Settings(representation="ekfac", seed=int(what == "settings"))


def _member(rank: int, folder: str) -> None:
    """Audits with one thing after another different on rank 1; the last time with nothing."""
    from memspace.auditing.audit import audit_task

    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    told = {}
    with memspace.across():
        for what in OTHER[:-1]:
            try:
                audit_task(*_task(what if rank == 1 else "nothing"))
            except WorkerError as error:
                told[what] = str(error)
    torch.save(told, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_whatever_one_process_has_otherwise_is_named_on_all(tmp_path):
    warm.team(_member, (str(tmp_path),), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    assert first.keys() == SAYS.keys()
    for what, words in SAYS.items():
        assert words in first[what]
        assert "\n" not in first[what]


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        {"RANK": "0", "WORLD_SIZE": "many"},
        {"RANK": "", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
        {"RANK": "0", "WORLD_SIZE": "two", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none"},
    ],
    ids=str,
)
def test_an_incomplete_environment_of_processes_is_one_sentence(monkeypatch, capsys, environment):
    for name in [k for k in os.environ if k.startswith("TORCHELASTIC")] + ["MASTER_ADDR", "MASTER_PORT"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["memspace", "tasks"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == WorkerError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("memspace: ")
    assert "torchrun" in line
