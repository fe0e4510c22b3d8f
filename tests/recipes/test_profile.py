"""What follows from a profile, against every candidate; and what is refused."""

import json
import math
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import write_record
from pipo_core.recipes.base import dump
from pipo_core.recipes.profile import Profile, one_vocabulary, read_profile, recommended, within
from tests.profiles import profile, setting


def made_up(seed: int) -> Profile:
    """A profile with random speeds, of which some settings are below the most accurate one with certainty."""
    rng = random.Random(seed)
    settings = []
    for vocabulary, tau in product((None, 48), (0.0, 0.5, 0.9)):
        one = setting(tau, rng.random(), rng.choice((-0.01, 0.0, 0.02)), draft_vocab=vocabulary)
        settings.append({**one, "label": f"{one['label']}-{vocabulary}"})
    settings[rng.randrange(6)]["difference"] = {"value": 0.0, "low": 0.0, "high": 0.0}
    settings.append(setting(None, rng.random(), rng.choice((-0.01, 0.02))))
    return profile(settings, {n: [rng.choice((1.0, 2.0, 3.0)) for _ in settings] for n in (1, 4, 16)})


@pytest.mark.parametrize("seed", range(40))
def test_the_rule_is_the_best_of_all_candidates(seed: int) -> None:
    made = made_up(seed)
    for load in made.loads:
        speed = {cost.label: cost.tokens_per_second for cost in load.costs}
        for pairs_only, found in zip((False, True), recommended(load, made.settings), strict=True):
            best: tuple[float, float, str] | None = None
            for one in made.settings:
                below = one.difference is not None and one.difference.high < 0
                if below or (pairs_only and one.method == "regular"):
                    continue
                accuracy = one.accuracy.value if one.accuracy else 0.0
                if best is None or (speed[one.label], accuracy) > best[:2]:
                    best = (speed[one.label], accuracy, one.label)
            assert best is not None
            assert found is not None
            assert found.label == best[2]


@pytest.mark.parametrize("seed", range(20))
def test_the_vocabulary_has_the_largest_product_of_speeds(seed: int) -> None:
    made = made_up(seed)
    kept = one_vocabulary(made, made.pairs)
    products = {
        vocabulary: math.prod(
            max(load.cost(one.label).tokens_per_second for one in made.pairs if one.draft_vocab == vocabulary)
            for load in made.loads
        )
        for vocabulary in (None, 48)
    }
    assert products[kept[0].draft_vocab] == max(products.values())
    assert {one.draft_vocab for one in kept} == {kept[0].draft_vocab}
    assert len(kept) == 3


def test_without_grades_nothing_is_recommended() -> None:
    made = profile([setting(0.5, None, None), setting(0.9, None, None)], {1: [2.0, 1.0]})
    assert recommended(made.loads[0], made.settings) == (None, None)
    with pytest.raises(UsageError, match="knows no accuracy"):
        within(made)
    assert [one.tau for one in within(made, min_tau=0.7)] == [0.9]
    assert [one.tau for one in within(made, max_tau=0.7)] == [0.5]


def test_bounds_take_the_place_of_the_admissible_range() -> None:
    settings = [setting(tau, 0.9, difference) for tau, difference in ((0.0, -0.1), (0.5, 0.0), (0.8, -0.1), (0.9, 0.1))]
    made = profile(settings, {1: [4.0, 3.0, 2.0, 1.0]})

    def taus(*bounds: float | None) -> list[float | None]:
        return [one.tau for one in within(made, *bounds)]

    assert taus() == [0.5, 0.9]
    assert taus(0.0) == [0.0, 0.5, 0.8, 0.9]
    assert taus(None, 0.8) == [0.5, 0.8]
    assert taus(0.0, 0.0) == [0.0]
    assert taus(None, 0.3) == [0.0]
    with pytest.raises(UsageError, match=r"no threshold from 0\.95 to 1; measured"):
        taus(0.95)
    with pytest.raises(UsageError, match=r"no threshold from 0\.6 to 0\.7; measured: 0, 0\.5, 0\.8, 0\.9"):
        within(made, 0.6, 0.7)
    with pytest.raises(UsageError, match=r"--min-tau 0\.9 is above --max-tau 0\.8"):
        within(made, 0.9, 0.8)


def test_the_nearest_load_is_by_ratio() -> None:
    made = profile([setting(0.5)], {2: [1.0], 8: [1.0], 64: [1.0]})
    assert [made.at(n).requests for n in (0, 1, 3, 5, 22, 23, 64, 1000)] == [2, 2, 2, 8, 8, 64, 64, 64]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A profile on disk, and what is in it."""
    found = dump(profile([setting(0.5), setting(None)], {1: [2.0, 1.0], 4: [3.0, 4.0]}))
    write_record(tmp_path / "profile.json", found)
    return tmp_path / "profile.json", found


def test_a_profile_is_read_as_it_was_written(written: tuple[Path, dict[str, Any]]) -> None:
    assert dump(read_profile(written[0])) == written[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda found: found.update(kind="eval"), "is not a profile"),
        (lambda found: found.update(version=1), "a profile of version 1, and this pipo reads version 2"),
        (lambda found: found.update(speed=1), "speed: unknown key"),
        (lambda found: found["settings"][0].update(taus=0.5), "settings.0.taus: unknown key (did you mean 'tau'?)"),
        (lambda found: found["settings"][0].update(tau=1.5), "settings.0.tau: "),
        (lambda found: found["settings"][0].update(tau=None), "settings.0.tau: method pipo needs a threshold"),
        (lambda found: found["settings"][1].update(tau=0.5), "settings.1.tau: method regular has no threshold"),
        (lambda found: found["settings"].reverse(), "loads.0.costs: needs the cost of each setting"),
        (lambda found: found["settings"].append(found["settings"][0]), "a second setting called 'pipo@0.5'"),
        (lambda found: found["loads"].reverse(), "loads.1.requests: must be more than the load before"),
        (lambda found: found["loads"][0].update(best="x"), "loads.0.best: no setting is called 'x'"),
        (lambda found: found["loads"][0]["costs"][0].update(step_s="fast"), "loads.0.costs.0.step_s: must be a number"),
        (lambda found: found.pop("machine"), "machine: missing"),
        (lambda found: found.update(loads=[]), "loads: "),
    ],
)
def test_what_is_wrong_with_a_profile_is_named(
    written: tuple[Path, dict[str, Any]], change: Any, complaint: str
) -> None:
    file, found = written
    change(found)
    write_record(file, found)
    with pytest.raises(MissingInputError) as caught:
        read_profile(file)
    assert complaint in caught.value.message
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message
    assert "pipo calibrate" in (caught.value.hint or "")


def test_a_damaged_profile_is_refused(written: tuple[Path, dict[str, Any]]) -> None:
    file, _ = written
    text = file.read_text()
    for damaged, complaint in (
        (text.replace("3.0", "9.0"), "was changed since it was written"),
        (text[: len(text) // 2], "not readable as JSON"),
        (json.dumps([1]), "does not hold a JSON object"),
    ):
        file.write_text(damaged)
        with pytest.raises(MissingInputError, match=complaint):
            read_profile(file)
    file.unlink()
    with pytest.raises(MissingInputError, match="no such file"):
        read_profile(file)
