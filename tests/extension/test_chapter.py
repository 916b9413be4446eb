"""A chapter from outside: one file, and it stands in the audit, on the page and in the tables."""

from __future__ import annotations

import json
from pathlib import Path

from tests.extension.outside import run_outside

OUTSIDE = '''
from memspace.auditing.chapter import ChapterDeclaration, register_chapter
from memspace.auditing.claims import above
from memspace.auditing.results import Figure, Finding, Series
from memspace.measures.declaration import measure, table
from memspace.measures.values import TestOutputs, TrainingOutputs
from memspace.measures.workspace import Measured
from memspace.task.task import Task
from memspace.value import Value


@measure("margin.mean", chapter="margins", unit="1", estimator="largest less second output, mean", better="larger")
def mean_margin(training: TrainingOutputs) -> Value:
    """How far the chosen class leads, on average."""
    top = training.f.double().topk(2).values
    return Value.mean(top[:, 0] - top[:, 1], lower=0.0)


@measure("margin.test", chapter="margins", unit="1", estimator="the same on test examples", better="larger")
def test_margin(test: TestOutputs) -> Value:
    """How far the chosen class leads on test examples."""
    top = test.f.double().topk(2).values
    return Value.mean(top[:, 0] - top[:, 1], lower=0.0)


@table("examples", units={"margin": "output units"})
def margins(training: TrainingOutputs) -> dict[str, list[float]]:
    """Return each example's margin."""
    top = training.f.double().topk(2).values
    return {"margin": (top[:, 0] - top[:, 1]).tolist()}


def answer(measured: Measured) -> str:
    """Say how far it leads."""
    return f"It leads by {measured['margin.mean'].value:.2g}."


def lead(measured: Measured) -> Finding:
    """Say that it leads at all."""
    claims = (above("margin.mean", 0.0),)
    return Finding("note", "It leads", "By its margin.", "Nothing to do.", "margins", claims=claims)


def figure(training: TrainingOutputs) -> Figure:
    """Draw the margins in order."""
    top = training.f.double().topk(2).values
    ordered = (top[:, 0] - top[:, 1]).sort().values.tolist()
    series = Series("margin", list(range(len(ordered))), ordered)
    return Figure("margins", "Margins", "In order.", "rank", "margin", (series,))


register_chapter(
    ChapterDeclaration(
        id="margins",
        title="Margins",
        question="By how much does it decide?",
        answer=answer,
        measures=(mean_margin, test_margin),
        tables=(margins,),
        findings=(lead,),
        figures=(figure,),
    )
)
'''

AUDIT = """
import json, torch, memspace, pyarrow.parquet as pq
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(60, 4), torch.randint(0, 3, (60,))
results = memspace.audit(nn.Linear(4, 3), (x, y), out="run")
chapter = results.chapters[-1]
table = pq.read_table("run/examples.parquet")
print(json.dumps({
    "id": chapter.id,
    "answer": chapter.answer,
    "measured": [m.name for m in chapter.measurements],
    "absent": {u.name: u.reason for u in chapter.unmeasured},
    "findings": [f.title for f in chapter.findings],
    "figures": [f.id for f in chapter.figures],
    "columns": table.column_names,
    "units": json.loads(table.schema.metadata[b"units"]),
}))
"""


def test_a_chapter_from_outside_stands_in_the_audit(tmp_path: Path) -> None:
    done = run_outside(tmp_path, OUTSIDE, AUDIT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["id"] == "margins"
    assert told["answer"].startswith("It leads by")
    assert told["measured"] == ["margin.mean"]
    assert told["absent"] == {"margin.test": "no test data were given"}
    assert told["findings"] == ["It leads"]
    assert told["figures"] == ["margins"]
    assert {"margin", "train_loss"} <= set(told["columns"])
    assert told["units"]["margin"] == "output units"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "By how much does it decide?" in page
    assert '"margins-margins"' in page


def test_a_chapter_must_not_take_a_built_in_name(tmp_path: Path) -> None:
    script = "from memspace.auditing.chapter import declared_chapters; declared_chapters()"
    done = run_outside(tmp_path, OUTSIDE.replace('id="margins"', 'id="geometry"'), script)
    assert "a built-in chapter is called 'geometry'" in done.stderr
