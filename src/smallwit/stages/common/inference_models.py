"""Models that generate text for stages: on this machine, or behind an endpoint."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from smallwit.inference.endpoint import EndpointGenerator
from smallwit.inference.generator import Decoding, Reply
from smallwit.inference.local_generator import LocalGenerator
from smallwit.inference.model import ServedModel
from smallwit.models.flops import Cost
from smallwit.network import hub
from smallwit.network.hosts import REQUESTS_FILE, HostLog
from smallwit.stages.common.inputs import chat_of, endpoint_of, generator_of, model_of
from smallwit.stages.job import Job
from smallwit.storage.artifacts import content_key, folder_hash
from smallwit.tasks.prompt import Prompt


def asked_model(job: Job, name: str, batch: int) -> ServedModel:
    """Return the model or stage `name` as a model that generates text; it is loaded on first use.

    A local model answers `batch` prompts at a time. The FLOPs of an endpoint are not known, and count as 0.
    """
    spec = job.recipe.models.get(name)
    if spec is not None and spec.endpoint is not None:
        return _far(job, name)
    if spec is None or spec.folder is not None or spec.gguf is not None:
        return _near(job, name, _with_options(job, name, folder_hash(Path(job.inputs[name]))), batch)
    made_of = [spec.model_dump(mode="json"), job.recipe.seed, job.inputs.get("tokenizer")]
    if spec.hub is not None:
        made_of.append(hub.pinned("models", spec.hub, spec.revision))
    return _near(job, name, content_key(made_of), batch)


def _near(job: Job, name: str, identity: str, batch: int) -> ServedModel:
    @cache
    def loaded() -> tuple[LocalGenerator, Cost]:
        chat, model = chat_of(job, name), model_of(job, name)
        return generator_of(job, model, chat, batch), Cost.of(model)

    def prompt_tokens(prompt: Prompt) -> int:
        return len(loaded()[0].encode([prompt], Decoding(0.0, 1))[0])

    def flops(prompt_tokens: int, tokens: int) -> float:
        return loaded()[1].forward([prompt_tokens + tokens - 1], tokens)

    return ServedModel(identity, lambda: loaded()[0], flops=flops, prompt_tokens=prompt_tokens, batch_dependent=True)


def _far(job: Job, name: str) -> ServedModel:
    endpoint = endpoint_of(job, name)
    named = job.recipe.models[name].tokenizer is not None

    def load() -> _Logged:
        chat = chat_of(job, name) if named else None

        def count(text: str) -> int:
            assert chat is not None
            return len(chat.tokenizer(text, add_special_tokens=False)["input_ids"])

        options = job.recipe.models[name].chat_template_kwargs
        generator = EndpointGenerator(endpoint, count=count if named else None, chat_template_kwargs=options)
        return _Logged(generator, HostLog(job.work / REQUESTS_FILE, generator.client.counts))

    return ServedModel(_with_options(job, name, content_key([endpoint.urls[0], endpoint.model])), load)


def _with_options(job: Job, name: str, identity: str) -> str:
    """Return the identity of a model together with the options of its chat template, which change its replies."""
    options = job.recipe.first_model(name).chat_template_kwargs
    return content_key([identity, options]) if options else identity


class _Logged:
    """An endpoint generator that logs its traffic by host."""

    def __init__(self, generator: EndpointGenerator, hosts: HostLog) -> None:
        self.generator, self.hosts = generator, hosts

    def reply(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        seeds: Sequence[int],
        on_reply: Callable[[int, Reply], None] = lambda index, reply: None,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> list[Reply]:
        """Generate replies and log the traffic; see `EndpointGenerator.reply`."""

        def noted(index: int, reply: Reply) -> None:
            self.hosts.tick()
            on_reply(index, reply)

        try:
            return self.generator.reply(prompts, decoding, seeds, noted)
        finally:
            self.hosts.write()
