"""Every kind of failure has its own exit code and speaks in one line."""

from __future__ import annotations

import pytest

import memspace.errors as errors
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
