"""The command line under torchrun: the same results, one writer, one sentence when a process ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TASK = """
import os, signal
from pathlib import Path
import torch
from torch import nn
import memspace

HERE = Path(__file__).parent

def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

class Dying(nn.Module):
    '''Ends its process at the given forward pass, or answers NaN there, when the flag is set and the rank is 1.'''
    def __init__(self):
        super().__init__()
        self.inner, self.calls = net(0), 0
    def forward(self, x):
        self.calls += 1
        f = self.inner(x)
        flag = HERE / "flag"
        if flag.exists() and os.environ.get("RANK") == "1":
            if flag.read_text() == "kill" and self.calls > 40:
                os.kill(os.getpid(), signal.SIGKILL)
            if flag.read_text() == "nan" and len(x) == 21:  # its shard
                return f * float("nan")
        return f

def task():
    torch.manual_seed(1)
    x = torch.randn(61, 4)
    y = torch.randint(0, 3, (61,))
    return memspace.Task(model=Dying(), train=(x[:41], y[:41]), test=(x[41:], y[41:]), name="small")
"""


def run(folder: Path, processes: int, out: str) -> subprocess.CompletedProcess[str]:
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *start, "-m", "memspace", "audit", "small:task", "--out", out, "--representation=ekfac"]
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)


def values(folder: Path) -> dict[str, float]:
    results = json.loads((folder / "results.json").read_text())
    return {m["name"]: m["value"] for c in results["chapters"] for m in c["measurements"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    (folder / "small.py").write_text(TASK)
    alone = run(folder, 1, "alone")
    assert alone.returncode == 0, alone.stderr
    return folder


def test_an_audit_by_two_processes_has_the_results_of_one(folder):
    both = run(folder, 2, "both")
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("Report:") == 1
    one, two = values(folder / "alone"), values(folder / "both")
    assert one.keys() == two.keys()
    for key, value in one.items():
        # float32 sums in another order, through an eigendecomposition and a choice from a grid
        assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-6, nan_ok=True), key
    assert (folder / "both" / "report.html").exists()


@pytest.mark.parametrize("end", ["kill", "nan"])
def test_a_process_that_ends_ends_the_run_in_one_sentence(folder, end):
    (folder / "flag").write_text(end)
    try:
        broken = run(folder, 2, end)
    finally:
        (folder / "flag").unlink()
    assert broken.returncode != 0
    said = [line for line in broken.stderr.splitlines() if line.startswith("memspace: ")]
    assert len(said) == 1, broken.stderr
    assert ("another process ended" if end == "kill" else "NaN") in said[0]
    assert "memspace/" not in broken.stderr  # torchrun's own traceback is of torchrun's files
    assert not (folder / end / "results.json").exists()
    kept = {p.name for p in (folder / end / ".partial").iterdir()}
    if end == "nan":  # nothing was read that a second run could go on from
        return
    assert "factors.safetensors" in kept
    again = run(folder, 2, end)
    assert again.returncode == 0, again.stderr
    assert "Going on" in again.stderr
    one, two = values(folder / "alone"), values(folder / end)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-3, abs=1e-6, nan_ok=True), key
