"""Chat templates of published families, written out, on tokenizers that treat text as theirs do."""

import string
from collections.abc import Sequence
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA32 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DEEPSEEK_CODER = (
    "{% for m in messages %}{{ ('### Response:\n' if m.role == 'assistant' else '### Instruction:\n') + m.content }}"
    "{{ '\n<|EOT|>\n' if m.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
_CORPUS = ["Tom has 3 pens and 12 hats. def f(x):\n    return x != y\nIt is , so . hello world"] * 4


@cache
def byte_level(
    specials: tuple[str, ...],
    eos: str | None,
    template: str | None = None,
    bos: str | None = None,
    plain: tuple[str, ...] = (),
    adds_bos: bool = False,
) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as Qwen and Llama 3 have; `plain` are added tokens that are not called special."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _CORPUS,
        trainers.BpeTrainer(
            vocab_size=330, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False
        ),
    )
    return _finished(made, eos, template, bos, plain, adds_bos)


@cache
def sentence_piece(
    specials: tuple[str, ...],
    eos: str | None,
    template: str | None = None,
    bos: str | None = None,
    plain: tuple[str, ...] = (),
    adds_bos: bool = False,
    prepend: str = "always",
) -> PreTrainedTokenizerFast:
    """SentencePiece's convention, as Llama 2 and Mistral have it: a space in front of a text, which decoding drops."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    letters = sorted({*string.ascii_letters, *string.digits, *".,:;()=!?+-#", "▁"})
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    vocabulary = {
        piece: index for index, piece in enumerate(["<unk>", *[s for s in specials if s != "<unk>"], *bytes_, *letters])
    }
    merges = []
    for first, second in (("▁", "▁"), ("▁▁", "▁▁"), ("▁", "a"), ("▁", "r"), ("▁r", "e"), ("▁", "h")):
        if first in vocabulary and second in vocabulary:
            vocabulary.setdefault(first + second, len(vocabulary))
            merges.append((first, second))
    made.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made.add_special_tokens(["<unk>", *specials])
    return _finished(made, eos, template, bos, plain, adds_bos)


def _finished(
    made: Tokenizer, eos: str | None, template: str | None, bos: str | None, plain: Sequence[str], adds_bos: bool
) -> PreTrainedTokenizerFast:
    if plain:
        made.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    if adds_bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, bos_token=bos, chat_template=template)


def qwen3() -> PreTrainedTokenizerFast:
    """As Qwen3: thoughts are added tokens that are not called special."""
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    return byte_level(specials, "<|im_end|>", QWEN3, plain=("<think>", "</think>"))


def r1() -> PreTrainedTokenizerFast:
    """As DeepSeek-R1's distils: the generation prompt opens the thought."""
    specials = ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>")
    return byte_level(specials, "<|end_of_sentence|>", R1, bos="<|begin_of_sentence|>", plain=("<think>", "</think>"))


def gemma3() -> PreTrainedTokenizerFast:
    """As Gemma 3: `<end_of_turn>` is a special token that has no name."""
    specials = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
    return byte_level(specials, "<eos>", GEMMA3, bos="<bos>", adds_bos=True)


def phi3() -> PreTrainedTokenizerFast:
    """As Phi-3: SentencePiece, and `<|end|>` is a special token that has no name."""
    return sentence_piece(
        ("<s>", "<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"), "<|endoftext|>", PHI3, bos="<s>"
    )


def llama2() -> PreTrainedTokenizerFast:
    """As Llama 2: SentencePiece, BOS in front of every text, spaces around an answer."""
    return sentence_piece(("<s>", "</s>"), "</s>", LLAMA2, bos="<s>", adds_bos=True)


def llama32() -> PreTrainedTokenizerFast:
    """As Llama 3.2: the template prints the date."""
    specials = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    return byte_level(specials, "<|eot_id|>", LLAMA32, bos="<|begin_of_text|>", adds_bos=True)
