"""Tokenizers: trained on a scale model's own text, or loaded. `chat.py` turns text into tokens."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from smallwit.errors import UserError

PAD, USER, ASSISTANT, END, UNKNOWN = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|unknown|>"
SPECIAL = (PAD, USER, ASSISTANT, END, UNKNOWN)
# A word or sign takes the space before it, and the one after it when a number follows: numbers are digits only.
WORDS = r'\d|"""|#+ ?| ?[-+*/=<>%!]+ ?|\n *| ?[A-Za-z_]+(?: (?=\d))?| ?[^\sA-Za-z_\d](?: (?=\d))?|\s'
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ ('<|assistant|>' if message.role == 'assistant' else '<|user|>') + message.content }}"
    "{% if message.role == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` tokens: whole words by frequency, every digit a token, single bytes as rest.

    Longest match first (WordPiece; Wu et al. 2016, arXiv 1609.08144) over words counted in `texts`: there are no
    fragments of words, as byte-pair merging leaves them, and in a model of 60,000 parameters each row counts. Raises
    `UserError` when `vocabulary` cannot even hold the bytes that occur.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(text))
    symbols = sorted({symbol for word in counts for symbol in word})
    if vocabulary < len(SPECIAL) + len(symbols):
        raise UserError(f"tokenizer.vocabulary is {vocabulary}; the text needs at least {len(SPECIAL) + len(symbols)}")
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if len(word) > 1]
    entries = [*SPECIAL, *symbols, *words][:vocabulary]
    tokenizer = Tokenizer(
        models.WordPiece(
            {entry: index for index, entry in enumerate(entries)},
            unk_token=UNKNOWN,
            continuing_subword_prefix="",
            max_input_chars_per_word=200,
        )
    )
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(origin: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub repository, exactly as its tokenizer.json describes it.

    Not through `AutoTokenizer`: for some model types, Qwen2 among them, transformers 5 puts the type's own rules for
    splitting text in place of those that a tokenizer was trained with.
    """
    return PreTrainedTokenizerFast.from_pretrained(str(origin), revision=revision or "main")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files into an existing folder."""
    tokenizer.save_pretrained(folder)
