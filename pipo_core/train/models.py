"""Whether a training's models fit together, told without their weights: the gate and its model, student and teacher."""

from pathlib import Path
from typing import Any

from pipo_core.errors import CheckpointError, UsageError
from pipo_core.files import read_object
from pipo_core.files.checkpoints import check_model, is_pair_model, text_config
from pipo_core.recipes.opd import AnyTraining, DistillRecipe


def check_gate(recipe: AnyTraining) -> None:
    """Raise unless a model whose gate trains alone has been trained as a pair model.

    Raises:
        CheckpointError: if it has not.
    """
    if recipe.tuning.method == "gate" and not is_pair_model(Path(recipe.model)):
        raise CheckpointError(
            f"{recipe.model} is not a pair model, so its gate alone cannot be trained", hint="tuning.method=full first"
        )


def check_pair(recipe: DistillRecipe) -> None:
    """Raise unless the student of a distillation can be compared with its teacher.

    Raises:
        CheckpointError: if one is not a checkpoint, the student is not a pair model, the teacher is one, or their
            tokens differ.
        UsageError: if the longest answer is longer than the teacher can read.
    """
    student = Path(recipe.model)
    check_model(student)
    if not is_pair_model(student):
        raise CheckpointError(
            f"{student} is not a pair model, so it has no answers to learn from",
            hint="pipo train first",
        )
    if recipe.teacher is None:  # its servers are asked, see `pipo_core.engine.teacher_servers`
        return
    teacher = Path(recipe.teacher)
    check_model(teacher)
    if is_pair_model(teacher):
        raise CheckpointError(f"{teacher} is a pair model, and a teacher reads single tokens", hint="give its base")
    problem = _token_difference(student, teacher)
    if problem is not None:
        raise CheckpointError(
            f"{teacher} cannot teach {student}: {problem}", hint="a teacher needs the student's tokenizer"
        )
    longest = recipe.data.max_prompt + 2 * recipe.rollout.slots
    limit = text_config(teacher).get("max_position_embeddings")
    if isinstance(limit, int) and longest > limit:
        raise UsageError(
            f"{teacher} reads up to {limit} tokens, and data.max_prompt with two tokens for each of rollout.slots "
            f"makes {longest}",
            hint="give fewer rollout.slots or a smaller data.max_prompt",
        )


def _token_difference(student: Path, teacher: Path) -> str | None:
    """Return the first way in which two models' tokens differ, in words; None if they are the same."""
    own, other = (_vocabulary(folder) for folder in (student, teacher))
    for text, number in own.items():
        if other.get(text) != number:
            return f"token {number}, {text!r}, is {_token_name(other.get(text))} there"
    if len(other) != len(own):
        return f"it has {len(other)} tokens, and not {len(own)}"
    tokenizers = [read_object(folder / "tokenizer.json") for folder in (student, teacher)]
    if _splitting_rules(tokenizers[0]) != _splitting_rules(tokenizers[1]):
        return "its tokenizer splits texts differently"
    sizes = [text_config(folder).get("vocab_size") for folder in (student, teacher)]
    if sizes[0] != sizes[1]:
        return f"its LM head has {sizes[1]} rows, and not {sizes[0]}"
    return None


def _vocabulary(folder: Path) -> dict[str, int]:
    """Return a tokenizer's tokens by their text.

    Raises:
        CheckpointError: if the tokenizer's file has another form.
    """
    tokenizer = read_object(folder / "tokenizer.json")
    try:
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
        return {**dict(tokenizer["model"]["vocab"]), **added}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the tokenizer in {folder} cannot be read") from error


def _splitting_rules(tokenizer: dict[str, Any]) -> list[Any]:
    """Return the parts of a tokenizer that decide how it splits a text into tokens."""
    return [tokenizer["model"].get("merges"), *(tokenizer.get(key) for key in ("normalizer", "pre_tokenizer"))]


def _token_name(number: int | None) -> str:
    return "absent" if number is None else f"token {number}"
