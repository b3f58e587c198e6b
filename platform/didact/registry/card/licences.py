"""What the terms of a run's data add up to: the strictest is named, what is unknown is said."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from didact.runs import RecordedSource

UNKNOWN = "unknown"
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial|research (use )?only|research purposes", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"\bsa\b|\b[al]?gpl|sharing|odbl|share-?alike", re.IGNORECASE)
_NO_DERIVATIVES = re.compile(r"\bnd\b|no-?deriv", re.IGNORECASE)
_OF_THE_HUB = {
    *("apache-2.0", "mit", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0", "c-uda"),
    *("cdla-permissive-1.0", "cdla-permissive-2.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "bsd-2-clause"),
    *("bsd-3-clause", "odc-by", "odbl", "pddl", "unlicense", "openrail", "mpl-2.0", "llama2", "llama3", "gemma"),
}
"""Values that `license` may have in the metadata of the Hugging Face hub; anything else is `other` with a name."""
_SPELT = {"gpl-3.0-only": "gpl-3.0", "gpl-3.0-or-later": "gpl-3.0", "gpl-2.0-only": "gpl-2.0", "c-uda-1.0": "c-uda"}


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of all sources together."""

    strictest: str
    """The licence that allows least, as its source states it; `unknown` where none is known."""
    non_commercial: tuple[str, ...]
    """Sources that forbid commercial use."""
    unclear: tuple[str, ...]
    """Sources whose terms are known and do not settle whether commercial use is allowed."""
    unknown: tuple[str, ...]
    """Sources whose licence nobody has stated."""

    @property
    def hub_licence(self) -> str:
        """`license` in the metadata of the hub; `unknown` where a source has none and nothing forbids more."""
        if self.unknown and not self.non_commercial:
            return UNKNOWN
        spelt = self.strictest.strip().lower()
        spelt = _SPELT.get(spelt, spelt)
        return spelt if spelt in _OF_THE_HUB or spelt == UNKNOWN else "other"


def terms_of(sources: Sequence[RecordedSource]) -> Terms:
    """What a mixture of sources may be used for."""
    stated = [source.licence for source in sources if source.licence and source.licence != UNKNOWN]
    forbidden = tuple(source.name for source in sources if forbids(source))
    strictest = max(stated, key=strictness, default=UNKNOWN)
    if forbidden and strictness(strictest) < _rank_of_non_commercial():
        # The source forbids it though its licence's name does not say so.
        strictest = next((s.licence for s in sources if s.name in forbidden and s.licence), None) or UNKNOWN
    unknown = tuple(s.name for s in sources if not s.licence or s.licence == UNKNOWN)
    known = [s for s in sources if s.name not in (*forbidden, *unknown)]
    unclear = tuple(s.name for s in known if s.commercial is None and not is_settled(s.licence or ""))
    return Terms(strictest, forbidden, unclear, unknown)


def strictness(licence: str) -> tuple[int, int]:
    """A higher pair allows less: commercial use first, then what may be done with works made of it."""
    words = licence.replace("_", "-")
    limits = bool(_NO_DERIVATIVES.search(words)) * 2 + bool(_SHARE_ALIKE.search(words))
    return int(bool(_NON_COMMERCIAL.search(words))), limits


def is_settled(licence: str) -> bool:
    """Whether it is one licence with a known name, not a sentence about several."""
    spelt = licence.strip().lower()
    return _SPELT.get(spelt, spelt) in _OF_THE_HUB


def forbids(source: RecordedSource) -> bool:
    """Whether a source's terms, as stated or by the name of its licence, forbid commercial use."""
    if source.commercial is not None:
        return not source.commercial
    return bool(source.licence and _NON_COMMERCIAL.search(source.licence))


def _rank_of_non_commercial() -> tuple[int, int]:
    return 1, 0
