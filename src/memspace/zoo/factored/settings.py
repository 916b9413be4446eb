"""How networks on inputs of known factors are measured: one rule for all of them, so that their numbers compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from memspace.arguments import check_fields
from memspace.limits import COUNT, POSITIVE, RANKED, SEED, WHOLE
from memspace.measures.attack import AttackSearch
from memspace.measures.input_study import AttackSettings

__all__ = ["FactoredSettings"]


@dataclass(frozen=True)
class FactoredSettings:
    """What is the same for every network; a change makes other numbers.

    Args:
        attacked: test inputs that are attacked.
        steps: gradient steps of one descent of an attack.
        restarts: of an attack, at random.
        bisections: of an attack's radius.
        judged: training examples that a pruned copy is judged on, at most.
        rise: of the training loss that cutting may cost, nats a prediction.
        seed: of every draw.

    Raises:
        SettingsError: one of them is out of its range.
    """

    attacked: Annotated[int, RANKED] = 200
    steps: Annotated[int, COUNT] = 10
    restarts: Annotated[int, WHOLE] = 1
    bisections: Annotated[int, COUNT] = 6
    judged: Annotated[int, COUNT] = 1000
    rise: Annotated[float, POSITIVE] = 0.1
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def attack(self) -> AttackSettings:
        """Give the settings of the attack.

        Returns:
            By Euclidean length alone, random corruptions drawn once.
        """
        search = AttackSearch(steps=self.steps, restarts=self.restarts, bisections=self.bisections)
        return AttackSettings(self.attacked, search, both_norms=False, draws=1, seed=self.seed)
