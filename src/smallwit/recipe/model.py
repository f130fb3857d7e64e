"""Settings of a recipe's models: their origin, and the options of their chat templates."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from smallwit.recipe.section import Section

RESERVED_TEMPLATE_KWARGS = frozenset(
    (
        *("messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "sanitize_control_tokens"),
    )
)
"""Arguments of transformers' `apply_chat_template` that are not options of a template."""


class NewModel(Section):
    """Shape of a Qwen2 model made from scratch."""

    hidden: PositiveInt = Field(description="width of the hidden states")
    layers: PositiveInt = Field(description="number of layers")
    heads: PositiveInt = Field(description="attention heads of a layer")
    kv_heads: PositiveInt = Field(description="heads of keys and values; fewer than `heads` is grouped-query attention")
    intermediate: PositiveInt = Field(description="width of the feed-forward layers")
    max_length: PositiveInt = Field(default=1024, description="longest context, in tokens")


def check_template_kwargs(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a chat template, dates as text. Raises `ValueError` for an invalid option."""
    for name in options:
        if name in RESERVED_TEMPLATE_KWARGS or not name.isidentifier():
            raise ValueError(f"chat_template_kwargs has {name!r}, which is no option of a chat template; leave it out")
    return {name: str(value) if isinstance(value, date) else value for name, value in options.items()}


class ModelSpec(Section):
    """The origin of a model: exactly one of `new`, `folder`, `gguf`, `hub`, `endpoint`.

    A model behind an endpoint can be used by `rejection_sampling` and `teacher_logprobs` stages; its weights are not
    available. A model that a stage makes keeps the `chat_template_kwargs` and `control_tokens` of its first model.
    """

    new: NewModel | None = Field(default=None, description="shape of a model with random weights")
    folder: str | None = Field(
        default=None,
        description="folder with a model that transformers can load, relative to the recipe",
        examples=["../models/qwen2.5-0.5b"],
    )
    gguf: str | None = Field(
        default=None,
        description="GGUF file of llama.cpp, relative to the recipe; imported once into the user's cache, in float32",
        examples=["../models/smollm2-135m-instruct.gguf"],
    )
    hub: str | None = Field(
        default=None, description="id of a model on the Hugging Face hub", examples=["Qwen/Qwen2.5-0.5B-Instruct"]
    )
    revision: str | None = Field(default=None, description="commit, tag or branch of the hub model; its main if absent")
    endpoint: str | list[str] | None = Field(
        default=None, description="base URL of an OpenAI-compatible server, or of several that serve the same model"
    )
    model: str | None = Field(default=None, description="the model's name at the endpoint")
    key_env: str = Field(default="OPENAI_API_KEY", description="environment variable with the endpoint's key, if any")
    tokenizer: str | None = Field(
        default=None, description="folder or hub id of the endpoint's tokenizer, for `teacher_logprobs`"
    )
    concurrency: PositiveInt = Field(default=16, description="requests to the endpoint under way at once")
    timeout: PositiveFloat = Field(default=900.0, description="seconds that the endpoint has for one reply")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="options of the chat template, for example enable_thinking: false"
    )
    control_tokens: Literal["text", "refuse"] = Field(
        default="text",
        description="control tokens in data, for example <|im_end|>: text keeps them as text, refuse stops",
    )

    @field_validator("chat_template_kwargs")
    @classmethod
    def _template_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        return check_template_kwargs(options)

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSpec":
        given = [name for name in ("new", "folder", "gguf", "hub", "endpoint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a model needs exactly one of new, folder, gguf, hub, endpoint; got {', '.join(given) or 'none'}"
            )
        if self.endpoint is not None and self.model is None:
            raise ValueError("a model behind an endpoint needs its name there; give it as model")
        if self.endpoint is not None and self.control_tokens == "refuse" and self.tokenizer is None:
            raise ValueError(
                "control_tokens belongs to a tokenizer that is here, and an endpoint has its own; leave it out"
            )
        if self.endpoint is None:
            for name in ("model", "key_env", "tokenizer", "concurrency", "timeout"):
                if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} belongs to an endpoint; leave it out")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the base URLs of the endpoint."""
        return (self.endpoint,) if isinstance(self.endpoint, str) else tuple(self.endpoint or ())
