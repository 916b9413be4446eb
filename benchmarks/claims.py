"""The zoo, its measures and their judging: ``python -m benchmarks.claims [--check] [--only NAME] [--small]``.

Each part is a module ``benchmarks/claims_NAME.py`` with ``rows(arguments) -> list[Row]``. The zoo is trained and
measured in ``benchmarks/out/zoo-standard`` (with ``--small`` in ``zoo-small``); what is there is not repeated. With
``--shipped`` nothing is trained: the tables that come with the package are judged.
"""

from __future__ import annotations

import sys

from benchmarks.parts import run

ORDER = ("zoo", "published", "combination", "gap", "verdicts")
FLAGS = {"--shipped": "judge the networks whose tables are part of the package, train none"}

if __name__ == "__main__":
    sys.exit(run("claims", ORDER, __doc__, FLAGS))
