"""The objectives of a stage, one family a file, and how an entry of the recipe becomes one.

    L = sum_c lambda_c * sum_t m[c, t] * l_c(t) / N_c

The loop above these classes knows none of them by name.
"""

from typing import Any

from smallwit import recipe_objectives
from smallwit.objectives.divergence import ForwardKL, ReverseKL
from smallwit.recipe import Rollouts, Source
from smallwit.recipe_objectives import PPO, CrossEntropy, ObjectiveSpec, PolicyGradient
from smallwit.training.objectives.base import CrossEntropyObjective, Objective
from smallwit.training.objectives.distillation import DivergenceObjective
from smallwit.training.objectives.policy import Critic, PolicyObjective, PPOObjective, ReferencePenalty

__all__ = ["CrossEntropyObjective", "DivergenceObjective", "Objective", "PPOObjective", "PolicyObjective", "bind"]


def bind(spec: ObjectiveSpec, source: Source, width: int) -> Objective:
    """The objective that an entry of a recipe describes, on its source; `width` is that of hidden states."""
    name, where, weight = spec.kind, spec.source, spec.weight
    if isinstance(spec, CrossEntropy):
        return CrossEntropyObjective(name, where, weight)
    if isinstance(spec, PolicyGradient):
        assert isinstance(source, Rollouts)  # checked when the recipe was read
        return _policy(spec, source, width)
    divergence = ForwardKL if isinstance(spec, recipe_objectives.ForwardKL) else ReverseKL
    return DivergenceObjective(name, where, weight, spec.teacher, divergence, spec.temperature)


def _policy(spec: PolicyGradient, source: Rollouts, width: int) -> PolicyObjective:
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
        return PolicyObjective(spec.kind, spec.source, spec.weight, **shared)
    return PPOObjective(
        spec.kind,
        spec.source,
        spec.weight,
        **shared,
        critic=Critic(width),
        value_clip=spec.value_clip,
        value_weight=spec.value_weight,
        discount=spec.discount,
        decay=spec.decay,
    )
