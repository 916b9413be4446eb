"""memspace reads a trained PyTorch network as a memory space: what it stores, how full it is, what breaks it.

``memspace.audit(model, train, test)`` does everything; each measure is also a plain function in its package.
"""

from __future__ import annotations

from memspace.api import audit
from memspace.audit.audit import Settings
from memspace.audit.results import Chapter, Results
from memspace.errors import MemspaceError
from memspace.measurement import Measurement, Unmeasured
from memspace.metric.fisher import build as fisher
from memspace.metric.metric import FisherMetric
from memspace.passes.processes import across
from memspace.task.data import Data
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.space import ParameterSpace
from memspace.task.task import Factors, Run, Task
from memspace.version import VERSION as __version__

__all__ = [
    "Bernoulli",
    "Categorical",
    "Chapter",
    "Data",
    "Factors",
    "FisherMetric",
    "Gaussian",
    "Likelihood",
    "Measurement",
    "MemspaceError",
    "ParameterSpace",
    "Poisson",
    "Results",
    "Run",
    "Settings",
    "Task",
    "Unmeasured",
    "__version__",
    "across",
    "audit",
    "fisher",
]
