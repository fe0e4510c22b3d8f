"""A profile in words: tables, and what follows from them in sentences."""

from collections.abc import Iterator, Sequence

from pipo_core.recipes.methods import METHODS, PLAIN
from pipo_core.recipes.profile import Interval, Load, Profile, Setting, fastest, one_vocabulary, recommended
from pipo_core.tables import ABSENT, Table, without_empty_columns


def profile_tables(profile: Profile) -> list[Table]:
    """Return the settings with their accuracy, and what they write and get right a second by load."""
    where = f"at {profile.context:,} tokens of context, prompts left out; a column for each number of requests"
    speeds = Table(
        f"expected {where}: real tokens a second of all requests together (ms a step)",
        ["setting", *(f"{load.requests:,}" for load in profile.loads)],
        [
            [
                one.label,
                *(
                    f"{cost.tokens_per_second:,.0f} ({1e3 * cost.step_s:.2f})"
                    for cost in (load.cost(one.label) for load in profile.loads)
                ),
            ]
            for one in profile.settings
        ],
    )
    rights = Table(
        "of these, right answers a second",
        speeds.columns,
        [
            [one.label, *(_right(load.cost(one.label).right_per_second) for load in profile.loads)]
            for one in profile.settings
        ],
    )
    return [_settings_table(profile), speeds, *([rights] if profile.graded else [])]


def _settings_table(profile: Profile) -> Table:
    asked = profile.asked
    title = f"{asked.what}: {asked.questions:,} questions × {asked.samples} answers"
    rows = [
        [
            one.label,
            f"{one.tokens_per_step:.2f}",
            f"{one.answer_tokens:,.1f}",
            _percent(one.accuracy),
            _points(one.difference),
            ABSENT if one.difference is None else "yes" if one.admissible else "no",
        ]
        for one in profile.settings
    ]
    columns = ["setting", "tokens a step", "tokens an answer", "accuracy %", "points to the best", "admissible"]
    return without_empty_columns(Table(title, columns, rows, words=(0,)))


def findings(profile: Profile) -> list[str]:
    """Return what a profile says, in sentences: which thresholds are out, and what to use at each load."""
    return [*_of_accuracy(profile), *_of_loads(profile), *_of_serving(profile)]


def _of_accuracy(profile: Profile) -> Iterator[str]:
    if not profile.graded:
        yield (
            "Nothing was graded, so accuracy is not known and no threshold is recommended. `pipo serve --profile` then "
            "needs `--min-tau`."
        )
        yield from _left_out(profile)
        return
    best = max(profile.pairs, key=lambda one: one.accuracy.value if one.accuracy else 0.0)
    yield f"Most accurate: `{best.label}`, {_percent(best.accuracy)} %."
    if not (best.accuracy and best.accuracy.value):
        yield "No answer was right, so nothing tells the thresholds apart: trust none of what follows."
    out = [one for one in profile.pairs if not one.admissible]
    if out:
        listed = ", ".join(f"`{one.label}` ({_points(one.difference)})" for one in out)
        yield f"Below it with certainty, in points, and never recommended: {listed}."
    plain = _plain(profile)
    if plain is not None and plain.difference is not None:
        sure = plain.difference.low > 0 or plain.difference.high < 0
        more = "more" if plain.difference.value > 0 else "less"
        said = f"is {more} accurate by {_points(plain.difference)} points" if sure else "shows no difference to it"
        yield f"`{plain.label}`, {_percent(plain.accuracy)} %, {said}."


def _left_out(profile: Profile) -> Iterator[str]:
    """Return what is not said of methods without a gate where nothing was graded, and why."""
    others = [one for one in profile.settings if not one.has_gate]
    if not others:
        return
    proof = ""
    verified = _listed([one for one in others if METHODS[one.method].verified])
    if verified:
        proof = f", and whether {verified} writes what regular decoding does, which is checked on a suite's questions"
    yield (
        f"Left out for {_listed(others)}: whether pairs are faster, because without grades it is not known which "
        f"threshold to compare{proof}. Their speeds stand in the table."
    )


def _listed(settings: Sequence[Setting]) -> str:
    return ", ".join(f"`{one.label}`" for one in settings)


def _of_loads(profile: Profile) -> Iterator[str]:
    plain = _plain(profile)
    for load in profile.loads:
        best, pairs = recommended(load, profile.settings)
        if best is None or pairs is None:
            continue
        at = f"{load.requests:,} request{'s' * (load.requests > 1)}"
        others = [one for one in profile.settings if not one.has_gate]
        quickest = fastest(load, [pairs, *others]) or pairs
        if quickest is pairs:
            yield f"{at}: use `{pairs.label}`, {_speed(load, pairs)} tokens/s{_over(load, pairs, others)}."
            continue
        less = "" if quickest.admissible else ", and less accurate with certainty"
        yield (
            f"{at}: **{quickest.method} decoding is faster{less}** (`{quickest.label}`): {_speed(load, quickest)} "
            f"tokens/s; the fastest of the pairs is `{pairs.label}`, {_speed(load, pairs)}."
        )
    if plain is None:
        yield "Regular decoding was not measured; `--regular DIR` names an uncompressed model to compare with."


def _of_serving(profile: Profile) -> Iterator[str]:
    vocabularies = {one.draft_vocab for one in profile.pairs}
    safe = [one for one in profile.pairs if one.admissible]
    if len(vocabularies) > 1 and safe:
        kept = one_vocabulary(profile, safe)[0].draft_vocab
        words = "all tokens" if kept is None else f"{kept:,} tokens"
        yield f"A server has one draft vocabulary at all loads; the fastest over these loads is {words}."


def _plain(profile: Profile) -> Setting | None:
    return next((one for one in profile.settings if one.method == PLAIN.name), None)


def _over(load: Load, one: Setting, others: Sequence[Setting]) -> str:
    """Return how many times faster a setting is than each of some others."""
    speed = load.cost(one.label).tokens_per_second
    ratios = [f"{speed / load.cost(other.label).tokens_per_second:.2f}× of `{other.label}`" for other in others]
    return f": {', '.join(ratios)}" if ratios else ""


def _right(answers: float | None) -> str:
    return ABSENT if answers is None else f"{answers:,.2f}"


def _speed(load: Load, one: Setting) -> str:
    return f"{load.cost(one.label).tokens_per_second:,.0f}"


def _percent(share: Interval | None) -> str:
    return ABSENT if share is None else f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _points(difference: Interval | None) -> str:
    if difference is None:
        return ABSENT
    return f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
