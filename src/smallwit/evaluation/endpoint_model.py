"""Models behind an endpoint, `openai:URL#model`, for evaluation."""

import re

from smallwit.evaluation.model_reference import ResolvedModel, Settings
from smallwit.evaluation.protocol import GeneratorInfo
from smallwit.inference.endpoint import endpoint_generator, parse_endpoint
from smallwit.inference.generator import Overflow, StreamingGenerator


def resolve_endpoint(reference: str, settings: Settings) -> ResolvedModel:
    """Return the model behind a server.

    The protocol records neither its chat template nor its treatment of long prompts: both are unknown.
    """
    model, options = parse_endpoint(reference).model, settings.chat_template_kwargs

    def load(overflow: Overflow) -> StreamingGenerator:
        # A score counts every answer: a model that calls a tool in place of answering has not answered.
        return endpoint_generator(reference, chat_template_kwargs=options, keep_withheld=True)

    generator = GeneratorInfo("openai", chat_template_kwargs=dict(options) if options else None)
    return ResolvedModel(reference, re.sub(r"[^\w.-]+", "--", model), reference, generator, load, batch_dependent=False)
