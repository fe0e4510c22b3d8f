"""Properties that must hold for any input of a user: one function per area, one mutation per call.

Each draws a case from a `Random`, tries it, and returns ``taken`` or ``refused``; anything else raises.
"""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.chat import encode_prompt, load_tokenizer
from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError, RecipeError
from pipo_core.model import load_checkpoint
from pipo_core.recipes.base import MAX_NAME, dump
from pipo_core.recipes.check import MOST_PROBLEMS
from pipo_core.recipes.load import parse_recipe
from pipo_core.recipes.locate import bundled_model, shipped_recipes
from tools.fuzz import mutations

REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "reference-a"

CONFIG_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "head_dim", "linear_conv_kernel_dim", "linear_key_head_dim"),
    *("linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads", "pad_token_id", "eos_token_id"),
    *("num_labels", "id2label", "full_attention_interval", "partial_rotary_factor", "rope_theta", "rope_parameters"),
    *("rope_scaling", "compressor_type", "attn_implementation", "_attn_implementation", "dtype", "torch_dtype"),
    *("quantization_config", "layer_types", "architectures", "text_config", "hidden_act", "rms_norm_eps"),
    *("initializer_range", "attention_dropout", "pipo_base", "tie_word_embeddings", "pruned_heads", "auto_map"),
    *("problem_type", "use_cache", "per_layer_config", "model_type", "mtp_num_hidden_layers", "attention_bias"),
)
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


def recipe(rng: Random) -> str:
    """A mutated shipped recipe."""
    path = _recipe(rng)
    return parsed(mutations.recipe(rng, path.read_text()), str(path))


def override(rng: Random) -> str:
    """A shipped recipe with one or two odd changes from the command line."""
    path = _recipe(rng)
    text = path.read_text()
    return parsed(text, str(path), [mutations.override(rng, text) for _ in range(rng.choice((1, 1, 2)))])


def parsed(text: str, name: str, overrides: Sequence[str] = ()) -> str:
    """Parse a recipe; check that a valid one can be written and read again, and that errors are one line each."""
    try:
        found = parse_recipe(text, name, overrides)
    except RecipeError as error:
        assert 0 < len(error.problems) <= MOST_PROBLEMS + 1
        for problem in error.problems:
            assert problem.isprintable(), problem
            assert len(problem) < 1000, problem
            assert re.match(rf"{re.escape(name)}:\d+:\d+ |override |stage '", problem), problem
        return "refused"
    values = dump(found)
    assert re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}", found.run)
    for stage in values.get("stages", ()):
        stage["recipe"] = str(Path(stage["recipe"]).absolute())
    again = parse_recipe(json.dumps(values), name)
    assert dump(again) == values
    return "taken"


def recipe_file(rng: Random, folder: Path) -> str:
    """A shipped recipe's file with mutated bytes, through ``pipo recipes validate``."""
    path = _recipe(rng)
    made = folder / path.name
    made.write_bytes(mutations.data(rng, path.read_bytes()))
    result = CliRunner().invoke(app, ["recipes", "validate", str(made)])
    assert result.exit_code in (0, 2), (result.exit_code, result.output)
    assert result.exit_code == 0 or f"{made}:" in result.stderr
    return "refused" if result.exit_code else "taken"


class Checkpoint:
    """A checkpoint folder whose files are damaged one at a time."""

    def __init__(self, folder: Path, source: Path, names: Sequence[str]) -> None:
        """Copy the files `names` of `source`."""
        self.folder = folder
        for name in names:
            shutil.copyfile(source / name, folder / name)
        self.raw = {name: (source / name).read_bytes() for name in names}

    def tried(self, name: str, raw: bytes, use: Callable[[Path], None]) -> str:
        """Write `raw` to the file `name` and use the folder; check that an error is one line that names the folder."""
        file = self.folder / name
        file.write_bytes(raw)
        try:
            use(self.folder)
        except MissingInputError as error:
            assert str(self.folder) in error.message, error.message
            assert error.message.isprintable(), error.message
            assert len(error.message) < 2000, error.message
            return "refused"
        finally:
            if name in self.raw:
                file.write_bytes(self.raw[name])
            else:
                file.unlink()
        return "taken"


def reference_checkpoint(folder: Path) -> Checkpoint:
    """Return a copy of the reference checkpoint."""
    return Checkpoint(folder, REFERENCE, ("config.json", "model.safetensors"))


def tokenizer_folder(folder: Path) -> Checkpoint:
    """Return a copy of the tiny world's tokenizer."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return Checkpoint(folder, bundled_model("tiny-student"), names)


def weights(rng: Random, checkpoint: Checkpoint) -> str:
    """A damaged weight file: if it loads, the model has the file's numbers under the file's names."""
    name = "model.safetensors"
    raw = mutations.safetensors(rng, checkpoint.raw[name])

    def use(folder: Path) -> None:
        model = load_checkpoint(folder)
        if raw[-_data_bytes() :] == checkpoint.raw[name][-_data_bytes() :]:
            for key, weight in model.state_dict().items():
                assert torch.equal(weight, _reference_weights()[key]), key

    return checkpoint.tried(name, raw, use)


def index(rng: Random, checkpoint: Checkpoint) -> str:
    """A damaged index of shards."""
    with_index: dict[str, Any] = {
        "metadata": {},
        "weight_map": dict.fromkeys(_reference_weights(), "model.safetensors"),
    }
    raw = json.dumps(with_index).encode()
    if rng.randrange(3):
        places = (
            "../x.safetensors",
            "/etc/passwd",
            "",
            ".",
            "..",
            "x" * 5000,
            "a\0b",
            "\ud800",
            "config.json",
            3,
            None,
        )
        with_index["weight_map"][rng.choice(list(_reference_weights()))] = rng.choice(places)
        raw = json.dumps(with_index).encode()
    else:
        raw = mutations.json_file(rng, raw)
    return checkpoint.tried("model.safetensors.index.json", raw, _ran)


def config(rng: Random, checkpoint: Checkpoint) -> str:
    """A damaged configuration: a model that loads runs."""
    raw = mutations.json_file(rng, checkpoint.raw["config.json"], CONFIG_KEYS)
    return checkpoint.tried("config.json", raw, _ran)


def tokenizer(rng: Random, checkpoint: Checkpoint) -> str:
    """A damaged tokenizer or chat template: one that loads lays out a chat."""
    name = rng.choice(list(checkpoint.raw))
    whole = checkpoint.raw[name]
    if name == "chat_template.jinja":
        raw = mutations.text(rng, whole.decode()).encode("utf-8", "surrogatepass")
    elif name == "tokenizer.json" and rng.randrange(2):
        content = json.loads(whole)
        part = rng.choice([key for key in content if key != "model"])
        content[part] = mutations.tree(rng, content[part])
        raw = json.dumps(content).encode()
    else:
        raw = mutations.json_file(rng, whole)
    return checkpoint.tried(name, raw, _laid_out)


def chat(rng: Random) -> str:
    """Odd texts as questions and answers: only the layout's control tokens are control tokens."""
    tokenizer = tiny_tokenizer()
    messages = conversation(rng)
    ids = encode_prompt(tokenizer, messages)
    controls = set(tokenizer.backend_tokenizer.get_added_tokens_decoder())
    harmless = encode_prompt(tokenizer, [{**message, "content": _marks(message)} for message in messages])
    assert [token for token in ids if token in controls] == [token for token in harmless if token in controls]
    assert_plain_between_controls(tokenizer, ids)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    for message in messages:
        if not _is_half(message["content"]):
            assert unicodedata.normalize("NFC", message["content"].strip()) in text
    return "taken"


def training(rng: Random, template: Any) -> str:
    """Odd texts in a training example: its prompt equals that of decoding, and its answer has only its own marks.

    `template` is ms-swift's with the tiny world's tokenizer.
    """
    tokenizer = tiny_tokenizer()
    system = [{"role": "system", "content": words(rng) + "x"}] if rng.randrange(2) else []
    question = [*system, {"role": "user", "content": words(rng)}]
    answer = f"<think>\n{words(rng)}1"
    encoded = template.encode({"messages": [*question, {"role": "assistant", "content": answer}]})
    ids, labels = encoded["input_ids"], encoded["labels"]
    length = next(place for place, label in enumerate(labels) if label != IGNORED)
    assert ids[:length] == encode_prompt(tokenizer, question)
    assert labels[length:] == ids[length:]
    controls = set(tokenizer.backend_tokenizer.get_added_tokens_decoder())
    marks = ["</think>"] * ("</think>" in answer) + ["<|im_end|>"]
    learned = [token for token in ids[length:] if token in controls]
    assert tokenizer.convert_ids_to_tokens(learned) == marks
    assert_plain_between_controls(tokenizer, ids[length:])
    return "taken"


def assert_plain_between_controls(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
    """Compare each stretch between two control tokens with a tokenizer that knows no control token."""
    controls = set(tokenizer.backend_tokenizer.get_added_tokens_decoder())
    plain = without_controls(tokenizer)
    stretch: list[int] = []
    for token in ids:
        if token in controls:
            assert stretch == plain.encode(tokenizer.decode(stretch), add_special_tokens=False).ids
            stretch = []
        else:
            stretch.append(token)


def conversation(rng: Random, turns: int = 3) -> list[dict[str, str]]:
    """Return a conversation that ends with a user's turn, of texts that look like control tokens."""
    roles = ["user", "assistant"] * rng.randrange(turns) + ["user"]
    return [{"role": role, "content": words(rng)} for role in roles]


def words(rng: Random) -> str:
    """Return a text of words, control tokens' texts, parts of them, and odd characters."""
    parts = (
        *CONTROLS,
        *("<|im_", "end|>", "<", "<|", "<thi", "nk>", "|>", "<|im_end|", "\n", " ", "  \n", "\t", "1+2", "is", "What"),
        *("é", "e\u0301", "\ue000", "\ue000\U000f0000", "\U000f0001", "𝔘", "\u2028", "{{ROUND0}}", "{{QUERY}}", "{{"),
        *("assistant\n", "user\n", "\ud800", "\x00", "<|IM_END|>", "＜|im_end|>", "< think >", "</think", ">"),
    )
    return "".join(rng.choice(parts) for _ in range(rng.randrange(12)))


def _recipe(rng: Random) -> Path:
    return rng.choice(list(shipped_recipes().values()))


def _ran(folder: Path) -> None:
    model = load_checkpoint(folder)
    ids = torch.arange(2, 10)[None]
    with torch.no_grad():
        model.forward_pairs(ids)
        model.forward_regular(ids)


def _laid_out(folder: Path) -> None:
    ids = encode_prompt(load_tokenizer(folder), [{"role": "user", "content": "1+<|im_end|>é"}])
    assert all(isinstance(token, int) for token in ids)


def _marks(message: dict[str, str]) -> str:
    """Return the content's own marks of a thought."""
    if message["role"] != "assistant":
        return "x"
    opened = "<think>" if message["content"].lstrip().startswith("<think>") else ""
    rest = message["content"].lstrip().removeprefix(opened)
    return opened + "x" + ("</think>" if "</think>" in rest else "")


def _is_half(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@cache
def _data_bytes() -> int:
    raw = (REFERENCE / "model.safetensors").read_bytes()
    return len(raw) - 8 - int.from_bytes(raw[:8], "little")


@cache
def _reference_weights() -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(REFERENCE).state_dict())


@cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Return the tiny world's tokenizer."""
    return load_tokenizer(bundled_model("tiny-student"))


@cache
def tiny_template() -> Any:
    """Return ms-swift's template for training, with the tiny world's tokenizer."""
    from swift.model import get_model_processor  # imported late, for it takes seconds
    from swift.template import get_template

    from pipo_core.train.worker import swift_plugin
    from pipo_core.train.worker.swift_arguments import MODEL_TYPE, SFT_TEMPLATE

    swift_plugin.register()
    folder = str(bundled_model("tiny-student"))
    tokenizer = get_model_processor(folder, model_type=MODEL_TYPE, load_model=False, use_hf=True)[1]
    made = get_template(
        tokenizer, template_type=SFT_TEMPLATE, enable_thinking=True, add_non_thinking_prefix=False, max_length=10**6
    )
    made.set_mode("train")
    return made


@cache
def without_controls(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Return a tokenizer with the same vocabulary that takes every text as plain text."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = []
    made: Tokenizer = Tokenizer.from_str(json.dumps(content))
    return made
