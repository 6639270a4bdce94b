"""Three groups of domains that share no text: what calibrates, what chooses, what judges once at the end."""

from dataclasses import dataclass, field

import numpy as np

from icd_lib.data.domains.domain import DomainText
from icd_lib.data.domains.registry import load_domain
from icd_lib.errors import ConfigError, ResourceError

# What is judged: parts of the seen domains that calibrate nothing, and the two other groups.
GROUPS = ("seen", "selection", "unseen")
SPLITS = ("seen", "validation", "selection", "unseen")
JUDGED_SHARE, VALIDATION_SHARE = 0.4, 0.15  # of a seen domain's texts, at most


@dataclass(frozen=True)
class DomainGroups:
    """`calibrating`: domain → text. `judged`: split → domain → text. `dropped`: domain → texts that others have."""

    calibrating: dict[str, DomainText]
    judged: dict[str, dict[str, DomainText]]
    dropped: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def calibration(self) -> dict[str, list[str]]:
        """Domain → texts that calibrate."""
        return {name: text.texts for name, text in self.calibrating.items()}

    def draw(self, count: int, seed: int = 0) -> list[str]:
        """At most `count` calibration texts, as evenly over the domains as their sizes allow, in seeded order.

        A larger draw holds the smaller one of the same seed.
        """
        shares = even_shares({name: len(texts) for name, texts in self.calibration.items()}, count)
        drawn = []
        for name, share in shares.items():
            texts = self.calibration[name]
            drawn += [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:share]]
        return drawn

    def describe(self) -> dict:
        """Sizes, sources and what was left out, for setup.json."""
        every = {name: text for split in self.judged.values() for name, text in split.items()}
        return {
            "calibration": {name: len(texts) for name, texts in self.calibration.items()},
            "judged": {
                split: {name: {"texts": len(text), "sha256": text.sha256} for name, text in domains.items()}
                for split, domains in self.judged.items()
            },
            "dropped_duplicates": self.dropped,
            "missing": self.missing,
            "provenance": {name: text.provenance for name, text in every.items()},
        }


def even_shares(sizes: dict[str, int], count: int) -> dict[str, int]:
    """How many of `count` each domain gives: the same of each, and what the small ones lack from the large ones.

    >>> even_shares({"a": 10, "b": 100, "c": 100}, 90)
    {'a': 10, 'b': 40, 'c': 40}
    """
    shares, left = {}, count
    for i, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        shares[name] = min(sizes[name], left // (len(sizes) - i))
        left -= shares[name]
    return {name: shares[name] for name in sizes}


def group_domains(
    seen: list[str],
    selection: list[str],
    unseen: list[str],
    *,
    given: dict[str, DomainText] | None = None,
    test_items: int = 2500,
    validation_items: int = 1500,
    seed: int = 0,
) -> DomainGroups:
    """Deal the domains' texts; no normalised text is in two groups (it leaves the one that weighs less).

    `given`: domains by name that are not in the registry (a user's own). A seen domain gives whole documents to "seen"
    and "validation", the rest calibrates. A domain whose package is not there is left out and listed in `missing`.
    Raises `ConfigError` when a domain is named twice, `ResourceError` when nothing is left to calibrate on.
    """
    check_groups(seen, selection, unseen)
    given, missing, loaded = given or {}, {}, {}
    for name in (*seen, *selection, *unseen):
        try:
            loaded[name] = given[name] if name in given else load_domain(name)
        except ResourceError as error:
            missing[name] = error.args[0]
    seen, selection, unseen = ([name for name in names if name in loaded] for names in (seen, selection, unseen))
    if not seen:
        raise ResourceError(f"no text to calibrate on: {'; '.join(missing.values()) or 'data.seen is empty'}")
    generator = np.random.default_rng(seed)
    judged: dict[str, dict[str, DomainText]] = {split: {} for split in SPLITS}
    taken: set[str] = set()
    dropped = {}
    for names, split, most in ((unseen, "unseen", test_items), (selection, "selection", validation_items)):
        drawn = {name: some_documents(loaded[name], most, generator)[0] for name in names}
        for name, text in drawn.items():
            judged[split][name] = text.without(taken)
            dropped[name] = len(text) - len(judged[split][name])
        taken.update(*(text.forms for text in drawn.values()))
    calibrating = {}
    for name in seen:
        left = loaded[name].without(taken)
        dropped[name] = len(loaded[name]) - len(left)
        taken.update(loaded[name].forms)
        size = len(left)
        most = min(test_items // 2, int(JUDGED_SHARE * size))  # half: the others are what a claim hangs on
        judged["seen"][name], rest = some_documents(left, most, generator)
        most = min(validation_items, int(VALIDATION_SHARE * size))
        if not selection:  # else the selection domains choose
            judged["validation"][name], rest = some_documents(rest, most, generator)
        calibrating[name] = rest
    if not any(map(len, calibrating.values())):
        raise ResourceError(
            f"no text to calibrate on: all of {', '.join(seen)} is judged or is in domains that judge; "
            "name more domains in data.seen"
        )
    return DomainGroups(calibrating, judged, {name: count for name, count in dropped.items() if count}, missing)


def check_groups(seen: list[str], selection: list[str], unseen: list[str]) -> None:
    """Raise `ConfigError` when a domain is in two groups or twice in one."""
    where: dict[str, str] = {}
    for group, names in zip(GROUPS, (seen, selection, unseen), strict=True):
        for name in names:
            if name in where:
                raise ConfigError(
                    f"data.{group} names the domain {name!r}, which is in data.{where[name]} already; "
                    "a domain calibrates, chooses or judges, never two of them"
                )
            where[name] = group


def some_documents(domain: DomainText, most: int, generator: np.random.Generator) -> tuple[DomainText, DomainText]:
    """Whole documents, drawn at random, with about `most` texts together; and the others."""
    if most >= len(domain):
        return domain, domain.take(np.empty(0, np.int64))
    documents, inverse, sizes = np.unique(domain.documents, return_inverse=True, return_counts=True)
    order = generator.permutation(len(documents))
    count = int(np.searchsorted(np.cumsum(sizes[order]), most, side="right"))
    inside = np.zeros(len(documents), dtype=bool)
    inside[order[: max(count, 1)]] = True
    rows = inside[inverse]
    return domain.take(np.flatnonzero(rows)), domain.take(np.flatnonzero(~rows))
