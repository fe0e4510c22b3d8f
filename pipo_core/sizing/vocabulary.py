"""Whether a training's draft vocabulary can be taken from its model, before the training is started."""

from pathlib import Path

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.model.checkpoint import load_config
from pipo_core.model.frequent_tokens import check_draft_size, read_draft_vocab
from pipo_core.recipes.opd import AnyTraining, DistillRecipe


def check_draft_vocab(recipe: AnyTraining) -> None:
    """Raise what a training would end with at its start because of its ``draft_vocab``.

    A model that is not on this disk yet is not asked.

    Args:
        recipe: its model is a folder, or a name that no folder has.

    Raises:
        UsageError: if the ids that end a text find no room, or the model has fewer ids.
        CheckpointError: if the model's files are damaged, or a student has no token counts.
    """
    folder = Path(recipe.model)
    if recipe.draft_vocab is None or not (folder / "config.json").is_file():
        return
    if isinstance(recipe, DistillRecipe):  # it has no training set of its own to count
        read_draft_vocab(folder)
    check_draft_size(recipe.draft_vocab, end_ids(load_tokenizer(folder), folder), int(load_config(folder).vocab_size))
