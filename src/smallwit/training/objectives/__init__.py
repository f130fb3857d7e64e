"""The objectives of a stage, one family a file, and how an entry of the recipe becomes one.

    L = sum_c lambda_c * sum_t m[c, t] * l_c(t) / N_c

The loop above these classes knows none of them by name.
"""

from dataclasses import replace

from smallwit import recipe_objectives as recipe
from smallwit.objectives import divergence
from smallwit.recipe import Rollouts, Source
from smallwit.recipe_objectives import GRPO, ULD, CrossEntropy, Distillation, ObjectiveSpec, WeightSchedule
from smallwit.training.objectives.base import CrossEntropyObjective, Objective
from smallwit.training.objectives.distillation import DivergenceObjective, UniversalObjective
from smallwit.training.objectives.policy import GRPOObjective

__all__ = ["CrossEntropyObjective", "DivergenceObjective", "GRPOObjective", "Objective", "UniversalObjective", "bind"]


def bind(spec: ObjectiveSpec, source: Source) -> Objective:
    """The objective that an entry of a recipe describes, on its source, with its weight at the start of the stage."""
    if isinstance(spec.weight, WeightSchedule):
        return replace(_bind(spec, source, spec.weight.from_), schedule=spec.weight)
    return _bind(spec, source, spec.weight)


def _bind(spec: ObjectiveSpec, source: Source, weight: float) -> Objective:
    name, where = spec.kind, spec.source
    if isinstance(spec, CrossEntropy):
        return CrossEntropyObjective(name, where, weight)
    if isinstance(spec, GRPO):
        assert isinstance(source, Rollouts)  # checked when the recipe was read
        return GRPOObjective(name, where, weight, clip=spec.clip, temperature=source.temperature)
    if isinstance(spec, ULD):
        return UniversalObjective(name, where, weight, spec.teacher, temperature=spec.temperature)
    return DivergenceObjective(name, where, weight, spec.teacher, _divergence(spec), spec.temperature, spec.top_k)


def _divergence(spec: Distillation) -> divergence.Divergence:
    match spec:
        case recipe.ForwardKL():
            return divergence.ForwardKL()
        case recipe.ReverseKL():
            return divergence.ReverseKL()
        case recipe.JensenShannon():
            return divergence.JensenShannon(spec.beta)
        case recipe.SkewForwardKL():
            return divergence.SkewForwardKL(spec.alpha)
        case recipe.SkewReverseKL():
            return divergence.SkewReverseKL(spec.alpha)
        case recipe.AdaptiveKL():
            return divergence.AdaptiveKL()
        case recipe.TotalVariation():
            return divergence.TotalVariation()
    raise TypeError(f"no divergence for an objective of kind {spec}")
