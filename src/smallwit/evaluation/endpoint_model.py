"""`openai:URL#model` as a model that is measured."""

import re

from smallwit.evaluation.model_reference import ResolvedModel, Settings
from smallwit.evaluation.protocol import GeneratorInfo
from smallwit.inference.endpoint import endpoint_generator, parse_endpoint
from smallwit.inference.generator import Generator, Overflow


def resolve_endpoint(reference: str, settings: Settings) -> ResolvedModel:
    """Return the model behind a server. What a server does with a prompt that is too long, and its template, is its own
    affair: the protocol says that it is not known."""
    model, options = parse_endpoint(reference).model, settings.chat_template_kwargs

    def load(overflow: Overflow) -> Generator:
        # A score counts every answer: a model that calls a tool in place of answering has not answered.
        return endpoint_generator(reference, chat_template_kwargs=options, keep_withheld=True)

    generator = GeneratorInfo("openai", chat_template_kwargs=dict(options) if options else None)
    return ResolvedModel(reference, re.sub(r"[^\w.-]+", "--", model), reference, generator, load, batch=None)
