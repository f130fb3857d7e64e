"""Decoding with the shapes of a captured graph: fixed rows and keys, of which some are not written yet."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedModel, Qwen2Config

from smallwit.inference import decode, local
from smallwit.inference.engine import Completion, Sampling
from smallwit.inference.local import LocalEngine
from smallwit.models.attention import ATTENTION
from tiny import generate, random_tokens

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "every key": Qwen2Config(**SHAPE, **HEADS),
    "a window of 8": Gemma3TextConfig(**SHAPE, **HEADS, sliding_window=8, layer_types=LAYERS),
}
SAMPLING = Sampling(1.0, 40, (3, 7, 11, 19))
SEEDS = range(20)


def model_of(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[kind], attn_implementation=ATTENTION)
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def generated(model: PreTrainedModel, lengths: list[int], graphed: bool) -> list[Completion]:
    generator = torch.Generator().manual_seed(5)
    prompts = [random_tokens(generator, length) for length in lengths]
    engine = LocalEngine(model, vocabulary=64, batch=12)
    engine.graphed = graphed
    return generate(engine, prompts, SAMPLING, SEEDS)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("lengths", [[7] * len(SEEDS), [1 + place % 12 for place in SEEDS]], ids=["alike", "ragged"])
def test_a_captured_pass_gives_the_tokens_of_a_walk_through_the_layers(
    kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = []

    def run_as_it_is(run: decode.Run) -> decode.Run:
        captured.append(run)
        return run

    monkeypatch.setattr(local, "cuda_graph", run_as_it_is)
    monkeypatch.setattr(decode, "KEYS_A_GRAPH", 8)
    monkeypatch.setattr(decode, "FEWEST_ROWS", 2)
    model = model_of(kind)
    eager, graphed = (generated(model, lengths, way) for way in (False, True))
    assert [one.tokens for one in graphed] == [one.tokens for one in eager]
    longest = max(len(one.tokens) for one in eager)
    assert len(captured) > longest // 8 >= 2, "graphs of more and more keys, and of fewer rows"
    for one, other in zip(graphed, eager, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_on_a_cpu_nothing_is_captured() -> None:
    assert not LocalEngine(model_of("every key"), vocabulary=64).graphed


def test_graphs_are_kept_across_updates_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []
    monkeypatch.setattr(local, "cuda_graph", lambda run: captured.append(run) or run)
    model = model_of("every key")
    engine = LocalEngine(model, vocabulary=64, batch=4)
    engine.graphed = True
    generate(engine, [[5, 6]], SAMPLING, [1])
    once = len(captured)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    engine.update(1, model.named_parameters())
    (graphed,) = generate(engine, [[5, 6]], SAMPLING, [1])
    (eager,) = generate(LocalEngine(model, vocabulary=64), [[5, 6]], SAMPLING, [1])
    assert len(captured) == once > 0
    assert (graphed.tokens, graphed.version) == (eager.tokens, 1)


def test_under_mixed_precision_weights_and_cache_are_in_its_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = []

    class Watched(local.SlotCache):
        def begin(self, now: object) -> None:
            super().begin(now)  # type: ignore[arg-type]
            caches.append(self)

    monkeypatch.setattr(local, "SlotCache", Watched)
    engine = LocalEngine(model_of("every key"), vocabulary=64, autocast=torch.bfloat16)
    generate(engine, [[5, 6]], SAMPLING, [1])
    assert {part.dtype for layer in caches[0].layers for part in (layer.keys, layer.values)} == {torch.bfloat16}
