"""Writes the questions of the suite tiny-letters: held-out arithmetic with the right value and three near ones.

    python -m tools.tiny_letters

The words of the questions are those of training (`pipo_core.data.tiny.arithmetic`), so the bundled models can answer
them. Which letter is right is drawn for each question. A test holds the file to what this script makes.
"""

import json
import random
import string
from collections.abc import Iterator
from itertools import islice

from pipo_core.data.tiny import arithmetic
from pipo_core.files import new_file
from pipo_core.recipes.locate import recipe_folder

QUESTIONS, CHOICES, SEED = 200, 4, 0
_FARTHEST = 3
"""A wrong choice differs from the right value by at most so much."""


def rows() -> Iterator[dict[str, object]]:
    """Yield the rows of the file: id, question, choices, the right choice's letter, level."""
    rng = random.Random(f"letters-{SEED}")
    for chain in islice(arithmetic.chains("heldout", SEED), QUESTIONS):
        near = range(max(0, chain.answer - _FARTHEST), chain.answer + _FARTHEST + 1)
        values = [chain.answer, *rng.sample([value for value in near if value != chain.answer], CHOICES - 1)]
        rng.shuffle(values)
        yield {
            "id": chain.expression,
            "question": arithmetic.question(chain, rng),
            "choices": [str(value) for value in values],
            "answer": string.ascii_uppercase[values.index(chain.answer)],
            "level": f"{chain.level} operations",
        }


def text() -> str:
    """Return the content of the file."""
    return "".join(f"{json.dumps(row)}\n" for row in rows())


if __name__ == "__main__":
    path = recipe_folder() / "suites" / "data" / "tiny-letters.jsonl"
    path.parent.mkdir(exist_ok=True)
    with new_file(path) as file:
        file.write(text().encode())
