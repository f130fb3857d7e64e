"""`openai:URL#model` as a model that is measured."""

import re

from smallwit.evaluation.model_reference import OpenModel, Settings
from smallwit.evaluation.protocol import Asker
from smallwit.rollout.endpoint import endpoint_generator, parse_endpoint
from smallwit.rollout.generator import Generator, Overflow


def open_endpoint(reference: str, settings: Settings) -> OpenModel:
    """The model behind a server. What a server does with a prompt that is too long, and its template, is its own
    affair: the protocol says that it is not known."""
    model = parse_endpoint(reference).model

    def load(overflow: Overflow) -> Generator:
        return endpoint_generator(reference)

    return OpenModel(reference, re.sub(r"[^\w.-]+", "--", model), reference, Asker("openai"), load, batch=None)
