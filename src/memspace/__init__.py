"""memspace reads a trained PyTorch network as a memory space: what it stores, how full it is, what breaks it.

``memspace.audit(model, train, test)`` does everything; every other verb answers one question. The table below says
where each public name lives. A name is imported when it is first used, so that ``import memspace`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memspace.lazy import lazily
from memspace.version import VERSION as __version__

if TYPE_CHECKING:  # what type checkers and editors read; a test holds it equal to the table
    from memspace.attribution.result import Influence as Influence
    from memspace.auditing.leave_one_out import LeaveOneOut as LeaveOneOut
    from memspace.auditing.label_issues import LabelIssues as LabelIssues
    from memspace.auditing.duplicates import Duplicates as Duplicates
    from memspace.editing.edit import Edit as Edit
    from memspace.editing.reweight import ExampleWeights as ExampleWeights
    from memspace.action.depth import Depth as Depth
    from memspace.action.training import TrainingAction as TrainingAction
    from memspace.geometry.geodesic import Geodesic as Geodesic, GeodesicSettings as GeodesicSettings
    from memspace.attribution.target import Target as Target
    from memspace.attribution.unrolled import Unrolled as Unrolled
    from memspace.verbs.attribute import attribute as attribute
    from memspace.experiments.store import open_study as open_study
    from memspace.experiments.lds import lds as lds, lds_ceiling as lds_ceiling
    from memspace.experiments.truth import retrain_design as retrain_design
    from memspace.experiments.outcomes import queries_of as queries_of
    from memspace.experiments.designs import random_parts as random_parts
    from memspace.verbs.attack import attack as attack
    from memspace.verbs.capacity import capacity as capacity
    from memspace.verbs.retrain import retrain as retrain
    from memspace.verbs.study import study as study
    from memspace.verbs.compare import compare as compare
    from memspace.verbs.depth import depth as depth, depth as depth_action
    from memspace.verbs.predict_gap import PredictedGap as PredictedGap, predict_gap as predict_gap
    from memspace.verbs.prune import prune as prune
    from memspace.action.depth_regulariser import DepthAction as DepthAction
    from memspace.action.optimiser import NaturalGradient as NaturalGradient
    from memspace.action.regularise import FisherProximal as FisherProximal, FisherRaoNorm as FisherRaoNorm
    from memspace.verbs.audit import audit as audit
    from memspace.verbs.influence import influence as influence
    from memspace.verbs.duplicates import duplicates as duplicates
    from memspace.verbs.labels import labels as labels, labels as label_issues
    from memspace.verbs.leave_one_out import leave_one_out as leave_one_out
    from memspace.attribution.settings import InfluenceSettings as InfluenceSettings
    from memspace.auditing.compare import CompareSettings as CompareSettings, NetworkComparison as NetworkComparison
    from memspace.auditing.results import Chapter as Chapter, Results as Results
    from memspace.auditing.settings import AuditSettings as AuditSettings, AuditSettings as Settings
    from memspace.verbs.dissect import Dissected as Dissected, dissect as dissect
    from memspace.verbs.distil import distil as distil
    from memspace.verbs.fisher import fisher as fisher
    from memspace.verbs.invariants import Invariants as Invariants, invariants as invariants
    from memspace.reading.explain_settings import ExplainSettings as ExplainSettings
    from memspace.verbs.explain import Explanation as Explanation, explain as explain
    from memspace.verbs.modes import Modes as Modes, modes as modes
    from memspace.verbs.natural_gradient_flow import natural_gradient_flow as natural_gradient_flow
    from memspace.verbs.forget import forget as forget
    from memspace.verbs.reweight import reweight as reweight
    from memspace.verbs.training_action import training_action as training_action
    from memspace.verbs.write import write as write
    from memspace.editing.distil import Distilled as Distilled, DistilSettings as DistilSettings
    from memspace.editing.write import WriteTarget as WriteTarget
    from memspace.claims.run import ClaimResults as ClaimResults, judge_claims as judge_claims
    from memspace.verbs.encoders import (
        EncoderWork as EncoderWork,
        TrainedEncoders as TrainedEncoders,
        encoder_table as encoder_table,
        score_agreement as score_agreement,
        train_encoders as train_encoders,
    )
    from memspace.encoders.settings import EncoderMeasuring as EncoderMeasuring
    from memspace.verbs.zoo import TrainedZoo as TrainedZoo, WorkSettings as WorkSettings, train_zoo as train_zoo
    from memspace.zoo.forecast import GapForecast as GapForecast
    from memspace.verbs.fragility import FragileMeasures as FragileMeasures, fragile_measures as fragile_measures
    from memspace.verbs.judge import JudgedZoo as JudgedZoo, judge_zoo as judge_zoo
    from memspace.zoo.measuring import NetworkMeasures as NetworkMeasures, measure_network as measure_network
    from memspace.errors import MemspaceError as MemspaceError
    from memspace.verbs.geodesic import geodesic as geodesic
    from memspace.experiments.action_settings import StudySettings as StudySettings
    from memspace.experiments.action_study import ActionStudy as ActionStudy
    from memspace.experiments.interventions import InterventionRows as InterventionRows
    from memspace.experiments.capacity import (
        CapacitySettings as CapacitySettings,
        measure_capacity as measure_capacity,
        mlp as mlp,
    )
    from memspace.experiments.capacity_study import CapacityResults as CapacityResults
    from memspace.experiments.retrain import RetrainResults as RetrainResults, RetrainSettings as RetrainSettings
    from memspace.measurement import Measurement as Measurement, Unmeasured as Unmeasured
    from memspace.measures.attack import AttackSearch as AttackSearch
    from memspace.measures.compensated import PruneSettings as PruneSettings
    from memspace.measures.input_study import AttackSettings as AttackSettings, InputStudy as InputStudy
    from memspace.measures.pruned import PrunedNetwork as PrunedNetwork
    from memspace.metric.metric import FisherMetric as FisherMetric
    from memspace.passes.processes import across as across
    from memspace.passes.space import ParameterSpace as ParameterSpace
    from memspace.passes.verify import verified_space as verified_space
    from memspace.reading.dissection import DissectSettings as DissectSettings
    from memspace.recorder.settings import WatchSettings as WatchSettings
    from memspace.recorder.watch import watch as watch
    from memspace.task.data import Data as Data
    from memspace.task.factors import Factors as Factors
    from memspace.task.likelihood import (
        Bernoulli as Bernoulli,
        Categorical as Categorical,
        Gaussian as Gaussian,
        LawOfClasses as LawOfClasses,
        Likelihood as Likelihood,
        Poisson as Poisson,
        register_law as register_law,
    )
    from memspace.task.recipe import Recipe as Recipe, Training as Training
    from memspace.task.recording import load_run as load_run
    from memspace.task.task import Run as Run, Task as Task
    from memspace.training.many import train_many as train_many

_HOMES = {  # module: its public names, by question
    # What is this network? The audit of everything
    "verbs.audit": "audit",
    "auditing.settings": "AuditSettings Settings",
    "auditing.results": "Results Chapter",
    "measurement": "Measurement Unmeasured",
    # A network with data and output law
    "task.task": "Task Run",
    "task.data": "Data",
    "task.factors": "Factors",
    "task.likelihood": "Likelihood Categorical Bernoulli Gaussian Poisson LawOfClasses register_law",
    "task.recipe": "Training Recipe",
    # Which examples made this prediction; which labels are wrong; which examples are alike?
    "verbs.influence": "influence",
    "attribution.settings": "InfluenceSettings",
    "attribution.result": "Influence",
    "verbs.attribute": "attribute",
    "attribution.unrolled": "Unrolled",
    "attribution.target": "Target",
    "verbs.leave_one_out": "leave_one_out",
    "auditing.leave_one_out": "LeaveOneOut",
    "verbs.labels": "labels label_issues",
    "auditing.label_issues": "LabelIssues",
    "verbs.duplicates": "duplicates",
    "auditing.duplicates": "Duplicates",
    # What would the network be with other examples or other facts?
    "verbs.forget": "forget",
    "editing.edit": "Edit",
    "verbs.write": "write",
    "editing.write": "WriteTarget",
    "verbs.reweight": "reweight",
    "editing.reweight": "ExampleWeights",
    "verbs.distil": "distil",
    "editing.distil": "DistilSettings Distilled",
    # How does it get there: a training watched, paid for by its action, or followed layer by layer
    "recorder.watch": "watch",
    "recorder.settings": "WatchSettings",
    "task.recording": "load_run",
    "training.many": "train_many",
    "action.optimiser": "NaturalGradient",
    "verbs.natural_gradient_flow": "natural_gradient_flow",
    "action.regularise": "FisherRaoNorm FisherProximal",
    "action.depth_regulariser": "DepthAction",
    "verbs.training_action": "training_action",
    "action.training": "TrainingAction",
    "verbs.depth": "depth depth_action",
    "action.depth": "Depth",
    # What is its geometry?
    "verbs.geodesic": "geodesic",
    "geometry.geodesic": "GeodesicSettings Geodesic",
    "verbs.fisher": "fisher",
    "metric.metric": "FisherMetric",
    "passes.space": "ParameterSpace",
    "passes.verify": "verified_space",
    "passes.processes": "across",
    # What can be read off it: numbers that no rescaling changes, modes of memory, units that detect concepts, one
    # prediction
    "verbs.invariants": "invariants Invariants",
    "verbs.modes": "modes Modes",
    "verbs.dissect": "dissect Dissected",
    "verbs.explain": "explain Explanation",
    "reading.explain_settings": "ExplainSettings",
    "reading.dissection": "DissectSettings",
    # How far are two networks apart; what breaks one; what can be cut?
    "verbs.compare": "compare",
    "auditing.compare": "CompareSettings NetworkComparison",
    "verbs.attack": "attack",
    "measures.attack": "AttackSearch",
    "measures.input_study": "AttackSettings InputStudy",
    "verbs.prune": "prune",
    "measures.compensated": "PruneSettings",
    "measures.pruned": "PrunedNetwork",
    # What does training again say: capacity, influence by retraining, regularisers at equal compute?
    "verbs.capacity": "capacity",
    "experiments.capacity": "CapacitySettings measure_capacity mlp",
    "experiments.capacity_study": "CapacityResults",
    "verbs.retrain": "retrain",
    "experiments.retrain": "RetrainSettings RetrainResults",
    "experiments.designs": "random_parts",
    "experiments.outcomes": "queries_of",
    "experiments.truth": "retrain_design",
    "experiments.lds": "lds lds_ceiling",
    "experiments.store": "open_study",
    "verbs.study": "study",
    "experiments.action_settings": "StudySettings",
    "experiments.action_study": "ActionStudy",
    "experiments.interventions": "InterventionRows",
    # How well will it do on new data, by what other networks tell?
    "verbs.predict_gap": "predict_gap PredictedGap",
    "zoo.forecast": "GapForecast",
    # Which claims do the networks of a store support, and which measures tell how they generalise?
    "verbs.zoo": "train_zoo WorkSettings TrainedZoo",
    "verbs.fragility": "fragile_measures FragileMeasures",
    "verbs.judge": "judge_zoo JudgedZoo",
    "zoo.measuring": "measure_network NetworkMeasures",
    "claims.run": "judge_claims ClaimResults",
    # Do encoders keep known factors apart, by every score?
    "verbs.encoders": "train_encoders encoder_table score_agreement EncoderWork TrainedEncoders",
    "encoders.settings": "EncoderMeasuring",
    # What went wrong?
    "errors": "MemspaceError",
}
# Public names that their modules know by another: a short one and older ones
_CALLED = {"Settings": "AuditSettings", "label_issues": "labels", "depth_action": "depth"}
_PLACES = {name: f"memspace.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_PLACES]


__getattr__, __dir__ = lazily(globals(), _PLACES, _CALLED)
