"""What was decided about one adapter, and from what: written down, signed where a key is set, kept with the version.

checks + digests of all that was judged -> Verdict -> verdict.json in the run folder -> artifact of the version
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from didact import env, files
from didact.errors import RegistryError
from didact.evaluation.checks import Check, all_passed
from didact.registry.versions import CHAMPION

FILE = "verdict.json"
NO_CHAMPION = "none"
_FORMAT = 1
_SHOWN = 12
_SHORTEST_KEY = 16


@dataclass(frozen=True, slots=True)
class Verdict:
    """May exactly this adapter bear an alias?"""

    adapter_sha256: str
    """`adapter_identity` of the adapter that was judged; a verdict says nothing of any other."""
    checks: tuple[Check, ...]
    """All that was asked; empty where the recipe has no gate."""
    judged: Mapping[str, str] = field(default_factory=dict)
    """What it rests on -> digest: `recipe`, `data`, `report`, `questions`, `answers`, `model ...`, `judge`. `champion`
    is the adapter of the champion that its checks compare with, or `none`; not there where no check does."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The gate as the recipe states it."""
    made: str = ""
    """When, in UTC (ISO 8601)."""
    signature: str | None = None
    """HMAC-SHA256 over everything else, in hexadecimal; None where no key was set."""

    @property
    def passed(self) -> bool:
        """Whether all that was asked holds."""
        return all_passed(self.checks)

    @property
    def outcome(self) -> str:
        """`passed`, `failed`, or `none` where nothing was asked, as the tag `gate` of a version says it."""
        return "none" if not self.checks else "passed" if self.passed else "failed"

    def signed(self, key: bytes | None) -> "Verdict":
        """This verdict with the signature of a key; without a key, without one."""
        return replace(self, signature=None if key is None else _signature(self, key))

    def is_signed_by(self, key: bytes) -> bool:
        """Whether the signature is of this key, over exactly these contents."""
        return self.signature is not None and hmac.compare_digest(self.signature, _signature(self, key))

    def to_json(self) -> str:
        """As `verdict.json`."""
        told = {"lines": [str(check) for check in self.checks], "signature": self.signature}
        return json.dumps({**_contents(self), **told}, indent=2, ensure_ascii=False) + "\n"

    @property
    def sha256(self) -> str:
        """Digest of `to_json`."""
        return files.sha256_text(self.to_json())

    @property
    def earlier_file(self) -> str:
        """Name that it is kept under once another took its place."""
        return f"{Path(FILE).stem}-{self.sha256[:_SHOWN]}{Path(FILE).suffix}"

    @classmethod
    def from_json(cls, text: str, place: str) -> "Verdict":
        """Read what `to_json` wrote.

        Args:
            text: the JSON.
            place: to name in errors.

        Raises:
            RegistryError: it is something else, or its `passed` is not what its checks say.
        """
        try:
            values = json.loads(text)
            form, passed, _ = values.pop("format"), values.pop("passed"), values.pop("lines")
            verdict = cls(**{**values, "checks": tuple(Check(**each) for each in values["checks"])})
        except (AttributeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise RegistryError(f"{place} is not a verdict ({error}); expected what didact wrote as {FILE}") from error
        if form != _FORMAT or passed is not verdict.passed:
            raise RegistryError(f"{place} was changed: it says format {form!r}, passed {passed!r}, against its checks")
        return verdict

    def save(self, path: Path) -> Path:
        """Write it to `path`; returns it."""
        files.write_text(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> "Verdict":
        """Read what `save` wrote.

        Raises:
            RegistryError: the file is missing or no verdict.
        """
        if not path.is_file():
            raise RegistryError(f"no verdict {path}")
        return cls.from_json(path.read_text(encoding="utf-8"), str(path))


def signing_key() -> bytes | None:
    """What verdicts are signed with; None where `DIDACT_VERDICT_KEY` is not set.

    Raises:
        RegistryError: it can be guessed.
    """
    key = env.verdict_key()
    if key is not None and len(key) < _SHORTEST_KEY:
        raise RegistryError(f"DIDACT_VERDICT_KEY has {len(key)} bytes; expected at least {_SHORTEST_KEY} random ones")
    return key


def why_refused(tags: Mapping[str, str], adapter_sha256: str, verdict: Verdict | None, key: bytes | None) -> str | None:
    """Why a version may not bear an alias; None where it may.

    A version that was registered before there were verdicts has none; its tag `gate` counts instead, unless a key is
    set, which trusts signatures only.

    Args:
        tags: the version's.
        adapter_sha256: of its adapter.
        verdict: kept with it.
        key: that verdicts must be signed with; None where no key is set.
    """
    if verdict is None:
        if key is not None:
            return "it has no verdict signed with DIDACT_VERDICT_KEY"
        gate = tags.get("gate")
        if gate in ("passed", "none"):
            return None
        return "its gate failed" if gate else "it has no verdict of a gate"
    if verdict.adapter_sha256 != adapter_sha256:
        judged, mine = verdict.adapter_sha256[:_SHOWN], adapter_sha256[:_SHOWN]
        return f"its verdict is of another adapter ({judged}, the version holds {mine})"
    if key is not None and not verdict.is_signed_by(key):
        how = "is not signed" if verdict.signature is None else "was changed, or signed with another key"
        return f"its verdict {how}; DIDACT_VERDICT_KEY is set, so signed verdicts count only"
    failed = [check for check in verdict.checks if check.outcome != "passed"]
    return f"its gate failed: {failed[0]}" if failed else None


def why_stale(verdict: Verdict | None, champion_sha256: str | None) -> str | None:
    """Why a verdict says nothing of a version beside the champion of now; None where it does.

    Args:
        verdict: kept with the version.
        champion_sha256: adapter of the champion of now; None where there is none.
    """
    met = None if verdict is None else verdict.judged.get(CHAMPION)
    now = champion_sha256 or NO_CHAMPION
    if met in (None, now):
        return None
    words = {NO_CHAMPION: "no champion"}
    then, since = (words.get(each, f"adapter {each[:_SHOWN]}") for each in (str(met), now))
    return (
        f"its verdict was made beside {then}, and the champion is {since} now; run its recipe again (didact train), "
        "which asks both the same questions and judges anew"
    )


def _contents(verdict: Verdict) -> dict[str, Any]:
    values = {**asdict(verdict), "judged": dict(verdict.judged), "policy": dict(verdict.policy)}
    del values["signature"]
    return {"format": _FORMAT, "passed": verdict.passed, **values}


def _signature(verdict: Verdict, key: bytes) -> str:
    content = json.dumps(_contents(verdict), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()
