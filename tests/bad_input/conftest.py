"""What the tests of bad input share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from memspace.errors import MemspaceError

Refused = Callable[..., AbstractContextManager[list[str]]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def refused() -> Refused:
    """A context that expects one kind of failure, in one line with what, where, remedy and the given words."""

    @contextmanager
    def expect(kind: type[MemspaceError], *words: str) -> Iterator[list[str]]:
        message: list[str] = []
        with pytest.raises(kind) as caught:
            yield message
        error: Any = caught.value
        assert type(error) is kind
        text = str(error)
        message.append(text)
        assert "\n" not in text
        for part in (error.what, error.where, error.remedy):
            assert part
            assert part in text
        for word in words:
            assert word in text, (word, text)

    return expect
