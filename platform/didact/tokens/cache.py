"""The token cache: a source is tokenized once, and opened from disk ever after.

The folder's name is a digest of everything that decides the tokens, so a change of data, template, tokenizer or policy
makes another folder and nothing stale is ever read.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from didact import files
from didact.datasets.types import Conversation
from didact.errors import DataError
from didact.logs import get_logger
from didact.spec import TokensSpec
from didact.tokens.encode import Rejection, encode_all
from didact.tokens.table import ARRAYS, STATS_FILE, TokenStats, TokenTable, open_table
from didact.tokens.template import TemplateContract

log = get_logger(__name__)

FORMAT_VERSION = 1
"""Raised when the files' layout or the rules of `encode` change."""
_CHUNK = 1000
Part = Literal["train", "held_out"]


def prepare(
    conversations: Sequence[Conversation],
    *,
    source: str,
    source_fingerprint: str,
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    tokens: TokensSpec,
    cache_dir: Path,
    part: Part = "train",
) -> TokenTable:
    """The conversations as a table of samples, from the cache where it holds them.

    Processes that ask at once prepare it once: the others wait. A damaged folder is built again.

    Args:
        conversations: a source's rows, read only when the cache does not hold them.
        source: the source's name, for sample ids and messages.
        source_fingerprint: digest of the rows and their order.
        tokenizer: the base model's tokenizer.
        contract: its template contract.
        tokens: length, truncation and mask policy.
        cache_dir: the cache's root; the table goes to `tokens/<key>/` in it.
        part: which rows of the source these are.

    Raises:
        TemplateError: the template has no property by which answers can be found in its text.
    """
    key = cache_key(source_fingerprint, part, contract, tokens)
    folder = cache_dir / "tokens" / key
    table = _open_sound(folder, source)
    if table is not None:
        return table
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{key}.lock")):
        table = _open_sound(folder, source)
        if table is None:
            with files.new_folder(folder) as scratch:
                stats = _write(scratch, conversations, tokenizer, contract, tokens)
            _report(source, part, len(conversations), stats)
            table = open_table(folder, source)
    return table


def cache_key(source_fingerprint: str, part: Part, contract: TemplateContract, tokens: TokensSpec) -> str:
    """Hex digest of everything that decides a table's samples."""
    return files.fingerprint(
        {
            "format": FORMAT_VERSION,
            "source": source_fingerprint,
            "part": part,
            "contract": contract.fingerprint,
            "max_length": tokens.max_length,
            "truncation": tokens.truncation,
            "loss_on": tokens.loss_on,
        }
    )


def _open_sound(folder: Path, source: str) -> TokenTable | None:
    if not folder.is_dir():
        return None
    try:
        return open_table(folder, source)
    except DataError as error:
        log.warning("%s; tokenizing %s again", error, source)
        return None


@dataclass
class _Tally:
    samples: int = 0
    tokens: int = 0
    supervised: int = 0
    truncated: int = 0
    last_turn_only: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    longest: int = 0


def _write(
    folder: Path,
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    tokens: TokensSpec,
) -> TokenStats:
    tally = _Tally()
    writers = {stem: _GrowingArray(folder / f"{stem}.npy", dtype) for stem, dtype in ARRAYS.items()}
    with writers["ids"] as ids, writers["mask"] as mask, writers["offsets"] as offsets, writers["rows"] as rows:
        offsets.append([0])
        for start in range(0, len(conversations), _CHUNK):
            chunk = [conversations[index] for index in range(start, min(start + _CHUNK, len(conversations)))]
            for conversation, encoded in zip(chunk, encode_all(chunk, tokenizer, contract, tokens), strict=True):
                if isinstance(encoded.result, Rejection):
                    tally.rejected[encoded.result.reason] += 1
                    continue
                tally.truncated += encoded.truncated
                tally.last_turn_only += encoded.last_turn_only
                for sample in encoded.samples:
                    ids.append(sample.ids)
                    mask.append(sample.mask)
                    tally.samples += 1
                    tally.tokens += len(sample.ids)
                    tally.supervised += int(sample.mask[1:].sum())
                    tally.longest = max(tally.longest, len(sample.ids))
                    offsets.append([tally.tokens])
                    rows.append([conversation.row])
    stats = TokenStats(**vars(tally) | {"rejected": dict(sorted(tally.rejected.items()))})
    files.write_json(folder / STATS_FILE, asdict(stats))
    return stats


def _report(source: str, part: Part, conversations: int, stats: TokenStats) -> None:
    log.info(
        "%s (%s): %d conversations, %d samples, %d tokens, %d learned, %d cut at the end, rejected %s",
        *(source, part, conversations, stats.samples, stats.tokens, stats.supervised, stats.truncated),
        stats.rejected or "none",
    )
    if stats.last_turn_only:
        log.warning(
            "%s (%s): the chat template rewrites earlier answers, so %d conversations teach their last answer only",
            *(source, part, stats.last_turn_only),
        )


class _GrowingArray:
    """A one-dimensional `.npy` file of which the length is known only at the end."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._stream = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def append(self, values: np.ndarray | Sequence[int]) -> None:
        array = np.asarray(values, dtype=self._dtype)
        self._stream.write(array.tobytes())
        self._length += len(array)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the longest length, so that rewriting it moves no data.
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.seek(0)
        self._write_header()
        self._stream.close()
