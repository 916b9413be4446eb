"""The output laws: their interface is in ``memspace.task.law``, the laws themselves in ``memspace.task.laws``."""

from __future__ import annotations

from torch import Tensor

from memspace.errors import TaskError
from memspace.task.law import Likelihood
from memspace.task.laws.bernoulli import Bernoulli
from memspace.task.laws.categorical import Categorical
from memspace.task.laws.classes import LawOfClasses
from memspace.task.laws.gaussian import Gaussian
from memspace.task.laws.poisson import Poisson
from memspace.task.laws.registry import law_from_dict, law_to_dict, register_law

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "LawOfClasses",
    "Likelihood",
    "Poisson",
    "law_from_dict",
    "law_to_dict",
    "refuse_one_class",
    "register_law",
]


def refuse_one_class(law: Likelihood, f: Tensor, where: str) -> None:
    """Raise where a law is given fewer outputs than it needs: its Fisher information would be zero without a warning.

    Args:
        law: the output law.
        f: outputs (..., C).
        where: the place that the error names.

    Raises:
        TaskError: naming the laws that one output may have.
    """
    if f.shape[-1] < law.least_outputs:
        raise TaskError(
            f"the model has one output, and the law {type(law).__name__} needs one for every class",
            where=where,
            remedy="give likelihood=Bernoulli() for yes or no, Gaussian() for numbers, Poisson() for counts",
        )
