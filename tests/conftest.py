"""Every test on one thread: small matrices gain nothing from two, and lose much when a machine is busy."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
