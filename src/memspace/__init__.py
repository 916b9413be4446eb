"""memspace reads a trained PyTorch network as a memory space: what it stores, how full it is, what breaks it.

``memspace.audit(model, train, test)`` does everything; each measure is also a plain function in its package.
"""

from __future__ import annotations

from memspace.action.depth import depth_action
from memspace.action.depth_regulariser import DepthAction
from memspace.action.natural import natural_gradient_flow
from memspace.action.optimiser import NaturalGradient
from memspace.action.regularise import FisherProximal, FisherRaoNorm
from memspace.api import audit
from memspace.attribution.influence import influence
from memspace.auditing.audit import Settings
from memspace.auditing.duplicates import duplicates
from memspace.auditing.label_issues import label_issues
from memspace.auditing.leave_one_out import leave_one_out
from memspace.auditing.results import Chapter, Results
from memspace.editing.distil import distil
from memspace.editing.forget import forget
from memspace.editing.reweight import reweight
from memspace.editing.write import write
from memspace.errors import MemspaceError
from memspace.geometry.geodesic import geodesic
from memspace.measurement import Measurement, Unmeasured
from memspace.metric.fisher import build as fisher
from memspace.metric.metric import FisherMetric
from memspace.passes.processes import across
from memspace.passes.verify import verified_space
from memspace.recorder.recorder import WatchSettings
from memspace.recorder.watch import watch
from memspace.task.data import Data
from memspace.task.factors import Factors
from memspace.task.likelihood import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from memspace.task.recipe import Recipe, Training
from memspace.task.recording import load_run
from memspace.task.space import ParameterSpace
from memspace.task.task import Run, Task
from memspace.training.many import train_many
from memspace.version import VERSION as __version__

__all__ = [
    "Bernoulli",
    "Categorical",
    "Chapter",
    "Data",
    "DepthAction",
    "Factors",
    "FisherMetric",
    "FisherProximal",
    "FisherRaoNorm",
    "Gaussian",
    "Likelihood",
    "Measurement",
    "MemspaceError",
    "NaturalGradient",
    "ParameterSpace",
    "Poisson",
    "Recipe",
    "Results",
    "Run",
    "Settings",
    "Task",
    "Training",
    "Unmeasured",
    "WatchSettings",
    "__version__",
    "across",
    "audit",
    "depth_action",
    "distil",
    "duplicates",
    "fisher",
    "forget",
    "geodesic",
    "influence",
    "label_issues",
    "leave_one_out",
    "load_run",
    "natural_gradient_flow",
    "reweight",
    "train_many",
    "verified_space",
    "watch",
    "write",
]
