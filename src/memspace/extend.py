"""What extensions are written with: measures, chapters, laws, layers, metrics, commands, tasks; see docs/extending.md.

Each name is imported from its module when it is first used, so that a command need not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memspace.lazy import lazily

if TYPE_CHECKING:
    from memspace.auditing.chapter import ChapterDeclaration as ChapterDeclaration
    from memspace.auditing.chapter import register_chapter as register_chapter
    from memspace.auditing.claims import above as above
    from memspace.auditing.claims import below as below
    from memspace.auditing.claims import reliable as reliable
    from memspace.auditing.claims import unreliable as unreliable
    from memspace.auditing.results import (
        Figure as Figure,
    )
    from memspace.auditing.results import (
        Finding as Finding,
    )
    from memspace.auditing.results import (
        Gallery as Gallery,
    )
    from memspace.auditing.results import (
        Item as Item,
    )
    from memspace.auditing.results import (
        Series as Series,
    )
    from memspace.commands import command as command
    from memspace.commands.opened import opened as opened
    from memspace.commands.options import Output as Output
    from memspace.commands.options import TaskOptions as TaskOptions
    from memspace.commands.options import option as option
    from memspace.commands.output import tell as tell
    from memspace.extensions import load_extensions as load_extensions
    from memspace.limits import COUNT as COUNT
    from memspace.limits import SEED as SEED
    from memspace.limits import SHARE as SHARE
    from memspace.limits import WHOLE as WHOLE
    from memspace.limits import Limit as Limit
    from memspace.measures.cost import Facts as Facts
    from memspace.measures.cost import Stage as Stage
    from memspace.measures.declaration import (
        measure as measure,
    )
    from memspace.measures.declaration import (
        provides as provides,
    )
    from memspace.measures.declaration import (
        table as table,
    )
    from memspace.measures.declaration import (
        truth as truth,
    )
    from memspace.measures.needs import needing as needing
    from memspace.measures.values import (
        Budget as Budget,
    )
    from memspace.measures.values import (
        Curvature as Curvature,
    )
    from memspace.measures.values import (
        HeldOut as HeldOut,
    )
    from memspace.measures.values import (
        LeaveOneOutLosses as LeaveOneOutLosses,
    )
    from memspace.measures.values import (
        LeaveOneOutOutputs as LeaveOneOutOutputs,
    )
    from memspace.measures.values import (
        Leverage as Leverage,
    )
    from memspace.measures.values import (
        QueryInfluence as QueryInfluence,
    )
    from memspace.measures.values import (
        SelfInfluence as SelfInfluence,
    )
    from memspace.measures.values import (
        TestOutputs as TestOutputs,
    )
    from memspace.measures.values import (
        TrainingOutputs as TrainingOutputs,
    )
    from memspace.measures.workspace import Measured as Measured
    from memspace.metric.context import BuildContext as BuildContext
    from memspace.metric.metric import FisherMetric as FisherMetric
    from memspace.metric.representation import (
        MemoryNeed as MemoryNeed,
    )
    from memspace.metric.representation import (
        Representation as Representation,
    )
    from memspace.metric.representation import (
        representation as representation,
    )
    from memspace.metric.representation import (
        representation_named as representation_named,
    )
    from memspace.metric.spectral import Dense as Dense
    from memspace.metric.spectral import Diagonal as Diagonal
    from memspace.passes.layers.composite import CompositeRule as CompositeRule
    from memspace.passes.layers.formed import FormedRule as FormedRule
    from memspace.passes.layers.product import ProductRule as ProductRule
    from memspace.passes.layers.registry import register_layer as register_layer
    from memspace.passes.layers.rule import LayerRule as LayerRule
    from memspace.passes.outputs import outputs as outputs
    from memspace.task.builtin import (
        BuildOptions as BuildOptions,
    )
    from memspace.task.builtin import (
        Ingredients as Ingredients,
    )
    from memspace.task.builtin import (
        builtin as builtin,
    )
    from memspace.task.builtin import (
        trained_task as trained_task,
    )
    from memspace.task.likelihood import (
        LawOfClasses as LawOfClasses,
    )
    from memspace.task.likelihood import (
        Likelihood as Likelihood,
    )
    from memspace.task.likelihood import (
        register_law as register_law,
    )
    from memspace.value import Absent as Absent
    from memspace.value import Value as Value

_HOMES = {  # module: its names, by what is added
    # A measure
    "measures.declaration": "measure provides table truth",
    "measures.needs": "needing",
    "measures.cost": "Facts Stage",
    "value": "Value Absent",
    "measures.values": "TrainingOutputs TestOutputs Curvature SelfInfluence Leverage LeaveOneOutLosses "
    "LeaveOneOutOutputs HeldOut QueryInfluence Budget",
    "passes.outputs": "outputs",
    # A chapter
    "auditing.chapter": "ChapterDeclaration register_chapter",
    "measures.workspace": "Measured",
    "auditing.results": "Finding Figure Series Gallery Item",
    "auditing.claims": "above below reliable unreliable",
    # An output law
    "task.likelihood": "Likelihood LawOfClasses register_law",
    # A kind of layer
    "passes.layers.registry": "register_layer",
    "passes.layers.rule": "LayerRule",
    "passes.layers.product": "ProductRule",
    "passes.layers.formed": "FormedRule",
    "passes.layers.composite": "CompositeRule",
    # A representation of the metric
    "metric.representation": "representation representation_named Representation MemoryNeed",
    "metric.metric": "FisherMetric",
    "metric.context": "BuildContext",
    "metric.spectral": "Dense Diagonal",
    # A command
    "commands": "command",
    "commands.options": "option Output TaskOptions",
    "commands.opened": "opened",
    "commands.output": "tell",
    "limits": "COUNT SHARE SEED WHOLE Limit",
    # A built-in task
    "task.builtin": "builtin trained_task Ingredients BuildOptions",
    # All of them
    "extensions": "load_extensions",
}
_PLACES = {name: f"memspace.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = list(_PLACES)
__getattr__, __dir__ = lazily(globals(), _PLACES)
