"""Chat templates of known families, written small: what each does with roles, ends, tools and thoughts; and a tokenizer
for each."""

from dataclasses import dataclass
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Llama 3 split text: line breaks stay together."""

CHATML = """\
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

_TOOL_LIST = """\
{{ '\\n\\n# Tools\\n<tools>' }}{% for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}{{ '\\n</tools>' }}"""

_TOOL_CALLS = """\
{%- for call in turn.tool_calls -%}
{{ '\\n' if turn.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor -%}"""

# A system turn of its own where there is none; tool results are user turns, those of one call after another together.
_QWEN = (
    """\
{%- set first = messages[0].content if messages[0].role == 'system' else DEFAULT -%}
{%- if first or tools -%}
{{ '<|im_start|>system\\n' + first }}{%- if tools -%}"""
    + _TOOL_LIST
    + """{%- endif -%}{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- for turn in messages -%}
{%- if turn.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\\n<tool_response>\\n' + turn.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
{%- elif turn.role == 'assistant' -%}
ASSISTANT
{%- elif turn.role != 'system' or not loop.first -%}
{{ '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}
{%- endif -%}"""
)

QWEN25 = _QWEN.replace("DEFAULT", "'You are Qwen.'").replace(
    "ASSISTANT", "{{ '<|im_start|>assistant\\n' + turn.content }}" + _TOOL_CALLS + "{{ '<|im_end|>\\n' }}"
)

# The thought of the turns behind the last question is written, an empty one too; that of earlier turns is not.
QWEN3 = _QWEN.replace("DEFAULT", "''").replace(
    "ASSISTANT",
    """\
{%- set space = namespace(question=0) -%}
{%- for each in messages -%}{%- if each.role == 'user' -%}{%- set space.question = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- set content = turn.content.split('</think>')[-1].lstrip('\\n') -%}
{%- set thought = turn.reasoning_content or '' -%}
{%- if '</think>' in turn.content -%}
{%- set thought = turn.content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.index0 > space.question and (loop.last or thought) -%}
{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}
{%- endif -%}
{{ content }}"""
    + _TOOL_CALLS.replace("turn.content", "content")
    + "{{ '<|im_end|>\\n' }}",
)

LLAMA3 = """\
{%- for turn in messages -%}
{%- if loop.first -%}{{ bos_token }}{%- endif -%}
{%- if turn.tool_calls -%}
{%- if turn.tool_calls | length != 1 -%}{{ raise_exception('One tool call a turn.') }}{%- endif -%}
{%- set call = turn.tool_calls[0].function -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson + '}<|eot_id|>' }}
{%- else -%}
{%- set content = turn.content | tojson if turn.role == 'tool' else turn.content | trim -%}
{{ '<|start_header_id|>' + ('ipython' if turn.role == 'tool' else turn.role) + '<|end_header_id|>\\n\\n' }}
{{- content + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"""

GEMMA = """\
{{- bos_token -}}
{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for turn in messages -%}
{%- if (turn.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{{ '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\\n' + turn.content | trim }}
{{- '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""

# The end of text stands behind the whole conversation, and not behind its turns.
PHI3 = """\
{%- for turn in messages -%}
{%- if turn.role in ('system', 'user', 'assistant') -%}
{{ '<|' + turn.role + '|>\\n' + turn.content + '<|end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{{ '<|assistant|>\\n' if add_generation_prompt else eos_token }}"""

ZEPHYR = """\
{%- for turn in messages -%}
{{ '<|' + turn.role + '|>\\n' + turn.content + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"""

# What the system says is put into the last question, wherever that is.
MISTRAL = """\
{{- bos_token -}}
{%- set said = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' -%}
{%- set turns = messages[1:] if said else messages -%}
{%- for turn in turns -%}
{%- if (turn.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
{%- endif -%}
{%- if turn.role == 'user' -%}
{{ '[INST] ' + (said if turn == (turns | selectattr('role', 'equalto', 'user') | list)[-1] else '') + turn.content }}
{{- ' [/INST]' }}
{%- else -%}{{ ' ' + turn.content + eos_token }}{%- endif -%}
{%- endfor -%}"""

# The generation prompt begins a thought that the template does not write behind it.
R1 = """\
{%- for turn in messages -%}
{%- if turn.role == 'user' -%}{{ '<|user|>' + turn.content }}{%- endif -%}
{%- if turn.role == 'assistant' -%}{{ '<|assistant|>' + turn.content.split('</think>')[-1] + eos_token }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|><think>\\n' }}{%- endif -%}"""

# The bare text of the turns, without a token that ends them.
OPEN = """\
{%- for turn in messages -%}{{ turn.role + ': ' + turn.content + '\\n' }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"""

MARKED = """\
{%- for turn in messages -%}
{{ '<|im_start|>' + turn.role + '\\n' }}
{%- if turn.role == 'assistant' -%}
{% generation %}{{ turn.content + '<|im_end|>' }}{% endgeneration %}
{%- else -%}{{ turn.content + '<|im_end|>' }}{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""


@dataclass(frozen=True)
class Family:
    """A chat template, its control tokens, which of them begins and ends a text, and which ends a turn."""

    template: str
    control: tuple[str, ...]
    eos: str
    turn_end: str
    bos: str | None = None


_IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
FAMILIES = {
    "chatml": Family(CHATML, _IM, "<|im_end|>", "<|im_end|>"),
    "qwen2.5": Family(QWEN25, _IM, "<|im_end|>", "<|im_end|>"),
    "qwen3": Family(QWEN3, _IM, "<|im_end|>", "<|im_end|>"),
    "llama3": Family(
        LLAMA3,
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
    ),
    "gemma": Family(
        GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<eos>", "<end_of_turn>", bos="<bos>"
    ),
    "phi3": Family(
        PHI3, ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"), "<|endoftext|>", "<|end|>"
    ),
    "zephyr": Family(ZEPHYR, ("<s>", "</s>"), "</s>", "</s>", bos="<s>"),
    "mistral": Family(MISTRAL, ("<s>", "</s>"), "</s>", "</s>", bos="<s>"),
    "r1": Family(R1, ("<|user|>", "<|assistant|>", "<|eos|>"), "<|eos|>", "<|eos|>"),
    "open": Family(OPEN, ("<|eos|>",), "<|eos|>", "<|eos|>"),
    "marked": Family(MARKED, _IM, "<|im_end|>", "<|im_end|>"),
}


@cache
def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the family's control tokens and template; line breaks merge with each other."""
    return with_template(FAMILIES[name])


def with_template(family: Family) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of its own for a family."""
    trained = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    trained.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(family.control),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(["What is one plus two?\n\n\n\nIt is three. " * 20, "a: b: c: d:\n\n" * 20], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token=family.bos,
        eos_token=family.eos,
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )
