"""The threshold of requests that name none, by how many requests run: what a profile says is fastest at that load."""

from collections.abc import Sequence

from pipo_core.recipes.profile import Profile, Setting, fastest, one_vocabulary


class LoadGate:
    """Chooses thresholds by the load.

    Args:
        profile: what was measured.
        settings: the pair settings that may be used, at least one. Of them those of one draft vocabulary are kept,
            because a server cannot change its own.

    Attributes:
        draft_vocab: size of the draft vocabulary; None for all tokens.
        taus: the threshold at each measured number of requests.
    """

    def __init__(self, profile: Profile, settings: Sequence[Setting]) -> None:
        self._profile = profile
        self._said = False
        kept = one_vocabulary(profile, settings)
        self.draft_vocab = kept[0].draft_vocab
        self.taus: dict[int, float] = {}
        for load in profile.loads:
            chosen = fastest(load, kept)
            if chosen is not None and chosen.tau is not None:
                self.taus[load.requests] = chosen.tau

    def tau(self, requests: int) -> float:
        """Return the threshold at the measured load that is nearest to a number of requests."""
        return self.taus[self._profile.at(requests).requests]

    def first_beyond(self, requests: int) -> str | None:
        """Return what to say of a load outside the profile the first time that there is one; else None."""
        measured = [load.requests for load in self._profile.loads]
        if self._said or measured[0] <= requests <= measured[-1]:
            return None
        self._said = True
        return (
            f"{requests} requests are outside the profile ({measured[0]} to {measured[-1]}); "
            f"the nearest load that was measured counts, {self._profile.at(requests).requests}"
        )

    def words(self) -> str:
        """Return the thresholds in words: ``0.3 at 1, 0.5 at 16 and 64 requests``."""
        of_each: dict[float, list[int]] = {}
        for requests, tau in self.taus.items():
            of_each.setdefault(tau, []).append(requests)
        parts = [f"{tau:g} at {' and '.join(map(str, loads))}" for tau, loads in of_each.items()]
        return f"{', '.join(parts)} requests"
