"""A source of the recipe -> `Dataset`: open, convert once into the cache, choose rows, fingerprint."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from didact.cache.columns import within
from didact.cache.entry import CacheEntry
from didact.datasets import catalog
from didact.datasets.conversation import Conversation
from didact.datasets.dataset import Dataset
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import REASONED_FORMS, Noted
from didact.datasets.places import hub
from didact.datasets.rows.quarantine import Reject, check_share, first_of_all, write_quarantine
from didact.datasets.rows.raw_row import LEFT_OUT
from didact.datasets.sources.conversion import convert_rows
from didact.datasets.sources.opening import OpenedSource, open_source
from didact.datasets.stored.choice import Selection, select
from didact.datasets.stored.fill import ConversionJob, Converter, convert_here
from didact.datasets.stored.reader import StoredConversations
from didact.datasets.stored.view import ConversationView
from didact.env import cache_dir
from didact.errors import DataError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import SourceSpec

FORMAT_VERSION = 9
"""Raised when the same bytes become other conversations than before, so that caches made before are not used."""
LEAK = "held_out_prompt"
"""Why a training row is dropped that asks what a held-out row asks."""
LEAKS = "leaks"
"""Fact of a sample: rows that were left out of it for a held-out row's prompt."""
KEYS_ONLY = "keys"
"""Kind of the cache's entries for sources of which only the chosen rows' texts are stored."""

_log = get_logger(__name__)


def load_dataset(
    source: SourceSpec,
    *,
    seed: int,
    max_bad_rows_share: float,
    quarantine_dir: Path | None,
    opened: OpenedSource | None = None,
    convert: Converter = convert_here,
) -> Dataset:
    """Bring a source's rows to one form, or find them in the cache, and choose among them.

    Args:
        source: where the rows are, how they are written, and how many are used and held out.
        seed: `data.seed`; decides which rows are chosen and held out.
        max_bad_rows_share: largest share of refused rows, 0 to 1.
        quarantine_dir: folder for `<source name>.jsonl` with the refused rows; None writes nothing.
        opened: the source where it has been opened already.
        convert: converts what the cache does not hold.

    Returns:
        The data set. `rows_read` counts accepted and rejected rows, before any choice; `train` and `held_out` together
        hold at most `max_rows` rows, each in the source's order, and read texts from disk when asked.

    Raises:
        DataError: the source is missing or of an unknown form, too many rows are bad, or no row is left to train on.
    """
    _warn_unused(source)
    opened = opened or open_source(source)
    stored = store(opened, source, seed, convert)
    num_rows, num_rejected = stored.num_rows, stored.rejected.total()
    num_bad = sum(count for reason, count in stored.rejected.items() if reason not in LEFT_OUT)
    files = [part.places for part in opened.parts]
    quarantine = write_quarantine(quarantine_dir, source.name, stored.rejects(files))
    bad = (entry for entry in stored.rejects(files) if entry.reason not in LEFT_OUT)
    check_share(source.name, num_rows, num_bad, bad, max_bad_rows_share, quarantine)
    chosen = select(stored, max_rows=source.max_rows, held_out_rows=source.held_out_rows, seed=seed)
    if is_sampled(source):
        chosen = replace(chosen, num_leaks=stored.entry.facts()[LEAKS])
    if not len(chosen.train):
        told = first_of_all(stored.rejects(files), quarantine) if num_rejected else ""
        raise DataError(_too_few(source, chosen, num_rows, stored.rejected) + told)
    _log_noted(source.name, stored.noted)
    _log.debug(
        "source %s: %d rows read, %d rejected; %d to train on, %d held out, %d dropped for a held-out row's prompt",
        *(source.name, num_rows, num_rejected, len(chosen.train), len(chosen.held_out), chosen.num_leaks),
    )
    return Dataset(
        name=source.name,
        train=ConversationView(stored, chosen.train, f"{chosen.digest}/train"),
        held_out=ConversationView(stored, chosen.held_out, f"{chosen.digest}/held_out"),
        fingerprint=_fingerprint(source, seed, stored.entry.address),
        rows_read=num_rows,
        rows_rejected=num_rejected,
        quarantine=quarantine,
        dropped={LEAK: chosen.num_leaks} if chosen.num_leaks else {},
        files=opened.files,
        places=tuple(tuple(part.places) for part in opened.parts),
        chosen=_chosen(source, stored, chosen),
    )


def conversations_entry(opened: OpenedSource, source: SourceSpec, seed: int) -> CacheEntry:
    """The address of a source's conversations: the bytes of its files and every setting that decides a row's words."""
    address = fingerprint(
        {
            "version": FORMAT_VERSION,
            "identity": opened.identity,
            "format": source.format,
            # Where a card's files lie is not what they hold.
            "options": {name: value for name, value in source.options.items() if name != catalog.ROOT_OPTION},
            "seed": seed if _may_reason(opened) else None,
        }
    )
    return CacheEntry(cache_dir() / "conversations" / address)


def _may_reason(opened: OpenedSource) -> bool:
    # A row of another form than its file's may have a rationale where the file's form has none.
    return opened.options.reasoning != "before" or any(part.form in REASONED_FORMS for part in opened.parts)


def store(
    opened: OpenedSource, source: SourceSpec, seed: int, convert: Converter = convert_here
) -> StoredConversations:
    """All conversations of a source, converted now unless the cache holds them; of one that `is_sampled` the chosen.

    Args:
        opened: the source.
        source: its entry in the recipe.
        seed: `data.seed`.
        convert: does the work.
    """
    if opened.check is not None:
        convert = _after(opened.check, convert)
    entry = conversations_entry(opened, source, seed)
    settings = RowSettings(opened.options, seed, any_form=source.format == "auto")
    jobs = [ConversionJob(part.key, entry, part, settings) for part in opened.parts]
    if not is_sampled(source):
        return _fill(jobs, source, convert)
    keys_only = CacheEntry(entry.folder.parent.with_name(KEYS_ONLY) / entry.address)
    keys = _fill([replace(job, entry=keys_only, texts=False) for job in jobs], source, convert)
    chosen = select(keys, max_rows=source.max_rows, held_out_rows=source.held_out_rows, seed=seed)
    sample = CacheEntry(entry.folder.with_name(fingerprint([entry.address, chosen.digest])))
    places, starts = np.union1d(chosen.train, chosen.held_out).astype(np.int64), keys.first_positions
    kept = [within(places, start, stop) - start for start, stop in itertools.pairwise(starts)]
    jobs = [replace(job, entry=sample, kept=mine) for job, mine in zip(jobs, kept, strict=True)]
    return _fill(jobs, source, convert, num_leaks=chosen.num_leaks)


def _after(check: Callable[[], object], convert: Converter) -> Converter:
    def checked(keys: Sequence[str], jobs: Sequence[ConversionJob]) -> None:
        check()
        convert(keys, jobs)

    return checked


def is_sampled(source: SourceSpec) -> bool:
    """Whether only the chosen rows of a source are stored: it is read twice where it is, for its keys and for them."""
    return source.stream and source.max_rows is not None


def _fill(
    jobs: Sequence[ConversionJob], source: SourceSpec, convert: Converter, *, num_leaks: int = 0
) -> StoredConversations:
    """Do those jobs of an entry that the cache does not hold.

    Args:
        jobs: one for each part of the source, in order.
        source: its entry in the recipe.
        convert: does the work.
        num_leaks: of a sample, rows that were left out for a held-out row's prompt.
    """
    by_key, entry = {job.key: job for job in jobs}, jobs[0].entry

    def make(missing: list[str]) -> None:
        convert(list(by_key), [by_key[key] for key in missing])

    entry.fill(list(by_key), {**source_facts(source), LEAKS: num_leaks}, make)
    return StoredConversations(entry)


def source_facts(source: SourceSpec) -> dict[str, str]:
    """What is written down about a source beside what was made of it."""
    # The name of a file need not be UTF-8.
    return {"source": source.name, "path": source.path.encode("utf-8", errors="backslashreplace").decode()}


@dataclass(frozen=True, slots=True)
class FirstRows:
    """What the beginning of a source holds."""

    forms: tuple[str, ...]
    """Every form that was met, in order."""
    accepted: tuple[Conversation, ...]
    rejects: tuple[Reject, ...]
    noted: Noted
    """What was seen in the accepted rows."""


def first_rows(opened: OpenedSource, num_rows: int) -> FirstRows:
    """Read the beginning of a source, to look at it or to check it.

    Raises:
        DataError: a file of unknown form.
    """
    rows = list(islice(opened.rows, num_rows))
    batches = list(convert_rows(iter(rows), RowSettings(opened.options, any_form=True)))
    accepted = tuple(conversation for batch in batches for conversation in batch.accepted)
    rejects = tuple(refused for batch in batches for refused in batch.rejects)
    noted = Noted()
    for batch in batches:
        noted.unused.update(batch.noted.unused)
        noted.changed.update(batch.noted.changed)
    return FirstRows(tuple(dict.fromkeys(form for form, _ in rows)), accepted, rejects, noted)


def _chosen(source: SourceSpec, stored: StoredConversations, selection: Selection) -> np.ndarray | None:
    if source.max_rows is None:
        return None
    chosen = np.union1d(selection.train, selection.held_out).astype(np.int64)
    return None if len(chosen) == len(stored) else chosen


def _log_noted(source: str, noted: Noted) -> None:
    if noted.unused or noted.changed:
        for line in noted.in_words():
            _log.info("source %s: %s", source, line)


def _too_few(source: SourceSpec, chosen: Selection, num_read: int, rejected: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(rejected.items()))
    told = f"{sum(rejected.values()):,}" + (f" ({reasons})" if reasons else "")
    advice = [f"lower held_out_rows ({source.held_out_rows})"] if source.held_out_rows else []
    advice += [f"raise max_rows ({source.max_rows})"] if source.max_rows is not None else []
    advice += ["repair the rejected rows"] if rejected else []
    return (
        f"source {source.name!r}: no row is left to train on: {num_read:,} read, {told} rejected, "
        f"{len(chosen.held_out):,} held out, {chosen.num_leaks:,} with the prompt of a held-out row; "
        + " or ".join([*advice, "give more data"])
    )


def _warn_unused(source: SourceSpec) -> None:
    of_the_hub = source.path.startswith((hub.PREFIX, catalog.PREFIX))
    if (source.revision is not None or source.split != "train") and not of_the_hub:
        _log.warning("source %s: split and revision only have an effect for %sOWNER/NAME", source.name, hub.PREFIX)


def _fingerprint(source: SourceSpec, seed: int, address: str) -> str:
    return fingerprint(
        {
            "conversations": address,
            "max_rows": source.max_rows,
            "held_out_rows": source.held_out_rows,
            "seed": seed,
            "split": source.split,
            "revision": source.revision,
        }
    )
