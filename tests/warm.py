"""Processes that need not wait for torch to be imported: each is forked from one that has imported what is slow.

The parent imports no module of memspace and computes nothing, so that a child sees what a fresh interpreter would see;
``tests/cli/test_start.py`` has what a cold one imports.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch.multiprocessing import start_processes

TIMEOUT = 300  # seconds of one process
# What memspace imports from elsewhere. One that is not installed is left out.
SLOW = (
    "torch", "torch.func", "torch.distributed.tensor", "numpy", "scipy.optimize", "scipy.special", "scipy.stats",
    "sklearn.datasets", "sklearn.decomposition", "sklearn.ensemble", "sklearn.linear_model", "sklearn.model_selection",
    "sklearn.svm", "pyarrow.parquet", "plotly.graph_objects", "plotly.offline", "jinja2", "rich.live", "rich.progress",
    "rich.table", "safetensors.torch", "torchdiffeq", "typer.core", "pandas",
)  # fmt: skip
PARENT = """
import contextlib, importlib, json, os, runpy, signal, sys, warnings
with warnings.catch_warnings():
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
sys.modules["torch"].set_num_threads(1)


def run(job):
    signal.alarm(job["seconds"])  # ends it where it hangs
    for target, name in enumerate(("/dev/null", job["out"], job["err"])):
        os.dup2(os.open(name, os.O_RDONLY if target == 0 else os.O_WRONLY), target)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[:] = [job["folder"], *job["path"], *(p for p in sys.path if p)]
    sys.argv = [job["module"] or "-c", *job["words"]]
    if job["module"]:
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
    else:
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(job["script"], "<string>", "exec"), vars(main))


for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            run(job)
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def memspace(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python -m memspace`` with words in a folder.

    Args:
        folder: working directory, first on the path.
        words: of the command line.
        options: of :func:`python`.
    """
    return python(folder, "", *words, module="memspace", **options)


def python(
    folder: Path,
    script: str,
    *words: str,
    module: str = "",
    path: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> subprocess.CompletedProcess[str]:
    """Run a script, or a module, in a process of its own.

    Args:
        folder: working directory, first on the path.
        script: source, as after ``python -c``; empty where there is a module.
        words: arguments.
        module: as after ``python -m``.
        path: folders in which modules are found, after the working directory.
        environment: variables beside those of this process.
    """
    with tempfile.NamedTemporaryFile("r+") as out, tempfile.NamedTemporaryFile("r+") as err:
        job = {
            "folder": str(folder), "script": script, "module": module, "words": words, "path": [p for p in path if p],
            "environment": {**os.environ, **environment}, "out": out.name, "err": err.name,
            "seconds": TIMEOUT,
        }  # fmt: skip
        code = _done(_parent(), json.dumps(job))
        return subprocess.CompletedProcess([module or "-c", *words], code, out.read(), err.read())


def _done(parent: subprocess.Popen[str], job: str) -> int:
    assert parent.stdin is not None
    assert parent.stdout is not None
    print(job, file=parent.stdin, flush=True)
    return int(parent.stdout.readline())


def team(function: Callable[..., None], arguments: tuple[Any, ...], processes: int) -> None:
    """Run a function in several processes at once, as ``torch.multiprocessing.spawn`` does, and wait for all.

    Args:
        function: takes the place of its process, then the arguments; of a module that can be imported.
        arguments: picklable.
        processes: how many.
    """
    multiprocessing.set_forkserver_preload([*SLOW])
    start_processes(function, arguments, processes, start_method="forkserver")


@cache
def _parent() -> subprocess.Popen[str]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *SLOW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(_end, parent)
    return parent


def _end(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.wait()
