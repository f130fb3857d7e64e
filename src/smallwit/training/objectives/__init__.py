"""The objectives of a stage, one family a file, and how an entry of the recipe becomes one.

    L = sum_c lambda_c * sum_t m[c, t] * l_c(t) / N_c

The loop above these classes knows none of them by name.
"""

from dataclasses import replace
from typing import Any

from smallwit.objectives import divergence
from smallwit.recipe import objectives as recipe
from smallwit.recipe.objectives import (
    PPO,
    ULD,
    CrossEntropy,
    Distillation,
    ObjectiveSpec,
    PolicyGradient,
    WeightSchedule,
)
from smallwit.training.objectives.base import CrossEntropyObjective, Objective
from smallwit.training.objectives.distillation import DivergenceObjective, UniversalObjective
from smallwit.training.objectives.policy import Critic, PolicyObjective, PPOObjective, ReferencePenalty
from smallwit.training.settings import Rollouts, Source

__all__ = [
    "CrossEntropyObjective",
    "DivergenceObjective",
    "Objective",
    "PPOObjective",
    "PolicyObjective",
    "UniversalObjective",
    "bind",
]


def bind(spec: ObjectiveSpec, source: Source, width: int) -> Objective:
    """The objective that an entry of a recipe describes, on its source, with its weight at the start of the stage;
    `width` is that of hidden states."""
    if isinstance(spec.weight, WeightSchedule):
        return replace(_bind(spec, source, spec.weight.from_, width), schedule=spec.weight)
    return _bind(spec, source, spec.weight, width)


def _bind(spec: ObjectiveSpec, source: Source, weight: float, width: int) -> Objective:
    name, where = spec.kind, spec.source
    if isinstance(spec, CrossEntropy):
        return CrossEntropyObjective(name, where, weight)
    if isinstance(spec, PolicyGradient):
        assert isinstance(source, Rollouts)  # checked when the recipe was read
        return _policy(spec, source, weight, width)
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


def _policy(spec: PolicyGradient, source: Rollouts, weight: float, width: int) -> PolicyObjective:
    given = spec.reference
    low, high = spec.bounds
    shared: dict[str, Any] = {
        "algorithm": spec.algorithm,
        "low": low,
        "high": high,
        "temperature": source.temperature,
        "longest": source.max_new_tokens,
        "reference": ReferencePenalty(given.model, given.weight, given.estimate) if given is not None else None,
        "importance_cap": spec.importance_cap,
        "updates": source.updates,
    }
    if not isinstance(spec, PPO):
        return PolicyObjective(spec.kind, spec.source, weight, **shared)
    return PPOObjective(
        spec.kind,
        spec.source,
        weight,
        **shared,
        critic=Critic(width),
        value_clip=spec.value_clip,
        value_weight=spec.value_weight,
        discount=spec.discount,
        decay=spec.decay,
    )
