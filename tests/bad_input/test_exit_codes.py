"""Every kind of failure has its own exit code and speaks in one line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import memspace.errors as errors
from memspace.cli import app
from memspace.errors import MemspaceError

KINDS = [getattr(errors, name) for name in errors.__all__]


def test_exit_codes_are_distinct_and_possible() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 for code in codes)
    # What the command line cannot read is the same failure as a setting out of range.
    assert errors.SettingsError.exit_code == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_messages_say_what_where_and_the_remedy(kind: type[MemspaceError]) -> None:
    assert issubclass(kind, MemspaceError)
    error = kind("it broke", where="over there", remedy="mend it")
    assert str(error) == "it broke (over there); mend it."
    assert (error.what, error.where, error.remedy) == ("it broke", "over there", "mend it")


@pytest.mark.parametrize(
    "words",
    [
        ("attack", "digits", "--steps", "9" * 26),
        ("attack", "digits", "--restarts", "9" * 26),
        ("capacity", "digits", "--width", "9" * 26),
        ("capacity", "digits", "--depth", "9" * 26),
        ("capacity", "digits", "--load", "1e40"),
        ("capacity", "digits", "--load", "nan"),
        ("retrain", "digits", "--subsets", "9" * 26),
        ("labels", "digits", "--folds", "9" * 26),
        ("compare", "digits", "a", "b", "--effort", "9" * 26),
    ],
)
def test_a_count_beyond_all_bounds_is_refused_before_anything_runs(words):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    assert "Traceback" not in done.output
