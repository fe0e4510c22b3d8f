"""A small tokenizer with Qwen's conventions, trained on the tiny world's own text.

It is a byte-level BPE, so it can encode every text. Most words and small numbers are whole tokens. The special tokens
and the chat template follow Qwen3.5's names and layout.
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
"""Splits text before merging, as Qwen does, except that a number has one or two digits and takes the blank before it.

So a running total is one token, and a small model learns arithmetic in minutes instead of hours.
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
    """Return the tokenizer of the tiny world; the same seed gives the same tokenizer."""
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
    core.train_from_iterator(_training_texts(seed), trainer)
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


def _training_texts(seed: int, texts: int = 4000) -> Iterator[str]:
    """Yield the texts from which merges are learned: random problems with their reasoning."""
    rng = random.Random(f"tokenizer-{seed}")  # noqa: S311 - text, not secrets
    problems = arithmetic.chains("train", seed)
    for _ in range(texts):
        chain = next(problems)
        yield f"user\n{arithmetic.question(chain, rng)}"
        # The thinking tags are separate tokens, so no merge may cross them.
        yield from f"assistant\n{arithmetic.reasoning(chain, rng)}".split(_THINKING[1])
