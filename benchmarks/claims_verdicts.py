"""The shipped verdicts, each judged again from its hash, and how often its control came out decided."""

from __future__ import annotations

import argparse

from benchmarks.table import Row
from memspace.claims.again import judged_again, recorded, shipped_verdicts
from memspace.errors import RunFolderError

__all__ = ["rows"]


def rows(arguments: argparse.Namespace) -> list[Row]:
    out = []
    for record in shipped_verdicts():
        try:
            judged_again(recorded(shipped_verdicts(), sha256=record.sha256))
            again, words = 1.0, record.word
        except RunFolderError as error:
            again, words = 0.0, error.what
        out.append(
            Row(
                "verdicts",
                f"{record.id} reproduced from {record.sha256[:12]}",
                "= 1",
                again,
                None,
                None,
                again == 1,
                words,
            )
        )
        decided = record.control.decided
        low, high = decided.interval or (None, None)
        what = "supported" if record.control.excluding is None else "decided"
        quantity, goal = f"{record.id}: share of permuted outcomes {what}", f"<= {record.control.nominal:g}"
        out.append(Row("verdicts", quantity, goal, decided.value, low, high, record.control.holds))
    return out
