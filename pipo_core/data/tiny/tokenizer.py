"""A small tokenizer with Qwen's conventions, trained on the tiny world's own text.

Byte-level BPE, so every text can be written; words and small numbers are mostly whole tokens; the special tokens and
the chat template follow Qwen3.5's names and layout.
"""

import random
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipo_core.data.tiny import arithmetic

VOCABULARY = 512
PAD = "<|endoftext|>"
END = "<|im_end|>"
SPECIAL_TOKENS = (PAD, "<|im_start|>", END)
_THINKING = ("<think>", "</think>")

_WORDS_AND_NUMBERS = r"[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is split before merging: Qwen's way, but numbers are of one or two digits with the blank before them.

A running total is then one token, and a small model learns arithmetic from it in minutes instead of hours.
"""

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- else %}
{{- '<think>\\n' }}
{%- endif %}
{%- endif %}"""


def train_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the tiny world; the same seed gives the same file."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS_AND_NUMBERS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_THINKING),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(seed), trainer)
    core.add_tokens([AddedToken(text, normalized=False) for text in _THINKING])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def _corpus(seed: int, texts: int = 4000) -> Iterator[str]:
    rng = random.Random(f"tokenizer-{seed}")  # noqa: S311 - text, not secrets
    problems = arithmetic.chains("train", seed)
    for _ in range(texts):
        chain = next(problems)
        yield f"user\n{arithmetic.question(chain, rng)}"
        # the thinking tags are tokens of their own, so merges are learned from the text between them
        yield from f"assistant\n{arithmetic.reasoning(chain, rng)}".split(_THINKING[1])
