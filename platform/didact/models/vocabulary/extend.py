"""A base with more tokens: new pieces in the tokenizer, new rows in the embeddings, as a folder to train from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from didact.datasets import load_dataset
from didact.errors import ModelError
from didact.files import write_json
from didact.logs import get_logger
from didact.models.base.description import load_tokenizer
from didact.models.base.load import base_fingerprint, base_folder
from didact.models.model_folder import check_model, check_output, new_model_folder, save_model
from didact.models.vocabulary.facts import VOCABULARY_FILE
from didact.models.vocabulary.pieces import NewPiece, extend_tokenizer
from didact.spec import ModelSpec, SourceSpec

_PROBED_TEXTS = 1000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExtendedVocabulary:
    """What `vocabulary.json` says."""

    base: str
    base_fingerprint: str
    corpus: str
    corpus_fingerprint: str
    first_id: int
    """Id of the first new token; the others follow."""
    num_tokens: int
    """New tokens."""
    characters_per_token_before: float
    characters_per_token: float
    """Over texts of the corpus, with the extended tokenizer."""


def extend_vocabulary(
    spec: ModelSpec, corpus: SourceSpec, size: int, output: Path, *, ascii_too: bool = False
) -> ExtendedVocabulary:
    """Write `output`: the base with up to `size` tokens learned on a corpus.

    The row of a new token, in the input embeddings and in an output layer of its own, starts at the mean of the rows
    of the tokens that it replaces (Gee et al., 2022, "Fast vocabulary transfer for language model compression").

    Args:
        spec: the base; its quantization and dtype are ignored, weights are written in the dtype they are stored in.
        corpus: documents (`format: text`).
        size: most new tokens.
        output: folder to write; any recipe can name it as `model.base`.
        ascii_too: as `extend_tokenizer`.

    Raises:
        DataError: no corpus is there, or it holds no text.
        ModelError: not a base or tokenizer that can be extended, or `output` exists.
    """
    check_output(output)
    dataset = load_dataset(corpus, seed=0, max_bad_rows_share=0.01, quarantine_dir=None)
    texts = [each.messages[0].content for each in dataset.train]
    tokenizer = load_tokenizer(spec)
    extended, pieces = extend_tokenizer(tokenizer, texts, size, ascii_too=ascii_too)
    if len(pieces) < size:
        _log.warning("the corpus gives %d new pieces, not %d; a larger corpus gives more", len(pieces), size)
    model = AutoModelForCausalLM.from_pretrained(
        base_folder(spec), dtype="auto", trust_remote_code=spec.trust_remote_code
    )
    add_rows(model, pieces)
    probed = texts[:_PROBED_TEXTS]
    facts = ExtendedVocabulary(
        base=spec.base,
        base_fingerprint=base_fingerprint(spec),
        corpus=corpus.path,
        corpus_fingerprint=dataset.fingerprint,
        first_id=pieces[0].token_id,
        num_tokens=len(pieces),
        characters_per_token_before=_characters_per_token(tokenizer, probed),
        characters_per_token=_characters_per_token(extended, probed),
    )
    with new_model_folder(output, check_model) as scratch:
        save_model(model, scratch)
        extended.save_pretrained(scratch)
        _check_saved(scratch, extended, probed)
        write_json(scratch / VOCABULARY_FILE, {"format": 1, **asdict(facts)})
    return facts


def add_rows(model: PreTrainedModel, pieces: Sequence[NewPiece]) -> None:
    """Give every new token a row, at the mean of its parts' rows; rows the model has to spare are used first."""
    rows = pieces[-1].token_id + 1
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    own_outputs = outputs is not None and outputs.weight is not inputs.weight
    with torch.no_grad():
        for layer in (inputs, outputs) if own_outputs else (inputs,):
            _set_means(layer.weight, pieces)
        if getattr(outputs, "bias", None) is not None:
            _set_means(outputs.bias, pieces)


def _set_means(rows: torch.Tensor, pieces: Sequence[NewPiece]) -> None:
    for piece in pieces:
        rows[piece.token_id] = rows[list(piece.parts)].float().mean(0).to(rows.dtype)


def _characters_per_token(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return sum(map(len, texts)) / max(1, sum(map(len, encoded)))


def _check_saved(folder: Path, extended: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Some tokenizer classes build themselves anew from the vocabulary when they are loaded."""
    loaded = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        expected, found = (
            each(text, add_special_tokens=False, verbose=False)["input_ids"] for each in (extended, loaded)
        )
        if found != expected:
            raise ModelError(f"the tokenizer is not the same after saving: {text[:80]!r} gives {found}, not {expected}")
