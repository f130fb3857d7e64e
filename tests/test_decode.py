"""Decoding with the shapes of a captured graph: fixed keys, of which some are padding and some not written yet."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedModel, Qwen2Config

from smallwit.inference import decode, local
from smallwit.inference.engine import Completion, Sampling
from smallwit.inference.local import LocalEngine
from smallwit.models.attention import ATTENTION
from tiny import random_tokens

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256}
LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "every key": Qwen2Config(**SHAPE, **HEADS),
    "a window of 8": Gemma3TextConfig(**SHAPE, **HEADS, sliding_window=8, layer_types=LAYERS),
}
SAMPLING = Sampling(1.0, 40, (3, 7, 11, 19))
SEEDS = range(20)
LENGTHS = {"no padding": [7] * len(SEEDS), "padding": [1 + place % 12 for place in SEEDS]}


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
    engine = LocalEngine(model, vocabulary=64, pad=0)
    engine.graphed = graphed
    return engine.generate(prompts, SAMPLING, list(SEEDS))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    "lengths", [[7] * len(SEEDS), [1 + place % 12 for place in SEEDS]], ids=["no padding", "padding"]
)
def test_a_captured_pass_gives_the_tokens_of_a_walk_through_the_layers(
    kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = []

    def run_as_it_is(run: decode.Run) -> decode.Run:
        captured.append(run)
        return run

    monkeypatch.setattr(local, "cuda_graph", run_as_it_is)
    monkeypatch.setattr(decode, "KEYS_A_GRAPH", 8)
    model = model_of(kind)
    eager, graphed = (generated(model, lengths, way) for way in (False, True))
    assert [one.tokens for one in graphed] == [one.tokens for one in eager]
    longest = max(len(one.tokens) for one in eager)
    assert len(captured) > longest // 8 >= 2, "graphs of more and more keys, and of fewer rows"
    for one, other in zip(graphed, eager, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_on_a_cpu_nothing_is_captured() -> None:
    assert not LocalEngine(model_of("every key"), vocabulary=64, pad=0).graphed


def test_under_autocast_the_cache_is_in_its_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = []

    class Watched(local.RolloutCache):
        def grow(self) -> None:
            super().grow()
            caches.append(self)

    monkeypatch.setattr(local, "RolloutCache", Watched)
    monkeypatch.setattr(local, "cuda_graph", lambda run: run)
    engine = LocalEngine(model_of("every key"), vocabulary=64, pad=0, autocast=torch.bfloat16)
    engine.graphed = True
    engine.generate([[5, 6]], SAMPLING, [1])
    assert {part.dtype for layer in caches[0].layers for part in (layer.keys, layer.values)} == {torch.bfloat16}
