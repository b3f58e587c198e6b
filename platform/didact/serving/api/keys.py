"""Who may ask: keys of the API, kept hashed in one file that every gateway follows.

    didact keys add -> KeyFile -> Keyring.find(what a client sends) -> Key: its name, its models, its rates

A key is 32 random bytes, so its plain sha256 cannot be guessed back. Revoked keys stay listed.
"""

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, get_args

from filelock import FileLock
from pydantic import Field, ValidationError

from didact.errors import SpecError
from didact.files import write_text
from didact.logs import get_logger
from didact.spec import Spec

_log = get_logger(__name__)
_MARK = "dk-"
_LOOK_SECONDS = 1.0
Role = Literal["admin", "metrics"]
ROLES: tuple[Role, ...] = get_args(Role)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$"


class Key(Spec):
    """A client's key, without the key itself."""

    name: Annotated[str, Field(pattern=_NAME)]
    """Of whoever uses it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hex digest of the key."""
    hint: str = ""
    """Its first characters, to know it again."""
    models: tuple[str, ...] = ()
    """Names that it may ask, `*` for any characters; empty: all."""
    roles: tuple[Role, ...] = ()
    """What it may do beside asking: `admin` loads and unloads adapters, `metrics` reads figures of all models."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Prompts and answers together."""
    least_priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """The smallest `priority` that its requests may have: the smaller, the earlier they begin. None for any."""
    created: float = 0.0
    """Seconds since 1970."""
    expires: float | None = None
    """Seconds since 1970; None for never."""
    revoked: bool = False

    def may_ask(self, model: str) -> bool:
        """Whether the key is for this name, as the request writes it."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def is_valid(self, now: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return not self.revoked and (self.expires is None or now < self.expires)


class _Keys(Spec):
    """The file's content."""

    keys: tuple[Key, ...] = ()


class KeyFile:
    """The file of keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """All keys, revoked ones too; none where there is no file.

        Raises:
            SpecError: it cannot be read as one.
        """
        try:
            return _Keys.model_validate_json(self.path.read_bytes(), strict=False).keys
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError) as error:
            found = str(error).splitlines()[0]
            raise SpecError(
                f"{self.path} is no file of keys ({found}); expected what `didact keys add` writes"
            ) from None

    def add(
        self,
        name: str,
        *,
        models: Sequence[str] = (),
        roles: Sequence[str] = (),
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        least_priority: int | None = None,
        days: float | None = None,
    ) -> str:
        """Make a key; returns it. It is kept nowhere else.

        Args:
            name: of whoever uses it.
            models: names that it may ask, `*` for any characters; empty: all.
            roles: of `ROLES`.
            requests_per_minute: None for no limit.
            tokens_per_minute: prompts and answers together; None for no limit.
            least_priority: the smallest priority that its requests may have; None for any.
            days: how long it is valid; None for always.

        Raises:
            SpecError: a valid key of that name is there, or the name or a number is wrong.
        """
        if unknown := sorted(set(roles) - set(ROLES)):
            raise SpecError(f"keys add: role: found {unknown[0]!r}; expected {' or '.join(ROLES)}")
        secret, now = _MARK + secrets.token_urlsafe(32), time.time()
        try:
            key = Key(
                name=name,
                sha256=digest(secret),
                hint=secret[: len(_MARK) + 5],
                models=tuple(models),
                roles=tuple(role for role in ROLES if role in roles),
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                least_priority=least_priority,
                created=now,
                expires=None if days is None else now + days * 86400,
            )
        except ValidationError as error:
            field, found = error.errors()[0]["loc"][0], error.errors()[0]["input"]
            words = {"name": "letters, digits and _ . @ -, at most 64", "least_priority": "a whole number of 32 bits"}
            expected = words.get(str(field), "a number of at least 1")
            raise SpecError(f"keys add: {field}: found {found!r}; expected {expected}") from None
        with self._locked():
            keys = self.read()
            if any(each.name == name and each.is_valid(now) for each in keys):
                raise SpecError(f"there is a key named {name!r}; revoke it first, or choose another name")
            self._write((*(each for each in keys if each.name != name), key))
        return secret

    def revoke(self, name: str) -> Key:
        """Make a key invalid; gateways know within a second or two.

        Raises:
            SpecError: there is none of that name.
        """
        with self._locked():
            keys = self.read()
            found = next((each for each in keys if each.name == name), None)
            if found is None:
                known = ", ".join(each.name for each in keys) or "none"
                raise SpecError(f"there is no key named {name!r}; there are: {known}")
            revoked = found.model_copy(update={"revoked": True})
            self._write(tuple(revoked if each.name == name else each for each in keys))
        return revoked

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.path}.lock")

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_text(self.path, _Keys(keys=keys).model_dump_json(indent=2) + "\n")
        self.path.chmod(0o600)


class Keyring:
    """The keys that a gateway accepts: those of a file, followed while it runs, and plain ones from the environment.

    Where there was ever a key, none that is wrong is let in: a file that vanishes or cannot be read leaves the keys
    that were known.
    """

    def __init__(self, file: Path | None = None, plain: Sequence[str] = ()) -> None:
        """Read the keys.

        Raises:
            SpecError: the file cannot be read.
        """
        # Named by what they are: whoever has a key owns its files, and places move when one is taken out.
        self._plain = tuple(
            Key(name=f"environment-{digest(key)[:8]}", sha256=digest(key), roles=("metrics",)) for key in plain
        )
        self._file = None if file is None else KeyFile(file)
        self._stamp: tuple[int, int, int] | None = None
        self._read_keys: tuple[Key, ...] = ()
        self._looked = -_LOOK_SECONDS
        self._lock = threading.Lock()
        self._look(first=True)

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask, because no keys were named. A file that is not there, or holds none, lets nobody in
        until the first key is made."""
        return self._file is None and not self._plain

    def find(self, secret: str) -> Key | None:
        """The valid key that a client sends; None where it is none."""
        self._look()
        asked, now = digest(secret), time.time()
        # Every key is compared in full, so the time tells nothing about them.
        same = [key for key in (*self._plain, *self._read_keys) if hmac.compare_digest(asked, key.sha256)]
        return next((key for key in same if key.is_valid(now)), None)

    def named(self, name: str) -> Key | None:
        """The valid key of that name; None where there is none."""
        self._look()
        found = (key for key in (*self._plain, *self._read_keys) if key.name == name)
        return next((key for key in found if key.is_valid(time.time())), None)

    def _look(self, first: bool = False) -> None:
        with self._lock:
            if self._file is None or time.monotonic() < self._looked + _LOOK_SECONDS:
                return
            self._looked = time.monotonic()
            try:
                stat = os.stat(self._file.path)
            except OSError:
                return
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            try:
                self._read_keys, self._stamp = self._file.read(), stamp
            except SpecError as error:
                if first:
                    raise
                _log.error("the keys stay those that were known: %s", error)


def digest(secret: str) -> str:
    """Hex sha256 of a key as a client sends it."""
    return hashlib.sha256(secret.encode("utf-8", errors="surrogatepass")).hexdigest()
