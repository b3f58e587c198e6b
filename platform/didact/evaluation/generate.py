"""Prompts in, greedy answers out, in batches that give the same answers as one prompt at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.logs import get_logger
from didact.models import base_of
from didact.tokens.template import TemplateContract

_log = get_logger(__name__)

PAD_ID = 0
"""Fills short rows. Padding is masked and never read back, so any id of the vocabulary does; not every tokenizer has a
padding token, and one that was added to a tokenizer may lie outside the model's vocabulary."""


def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The greedy continuation of each prompt, in the order of `prompts`.

    Prompts of similar length share a batch and are padded on the left. The model's own generation settings (such as a
    repetition penalty) are set aside for the call, so that base and adapter are compared under the same rules.
    A prompt that leaves no room for `max_new_tokens` in the model's context is answered with "" and counted in a
    warning: one long item must not end an evaluation.

    Args:
        model: a causal language model, plain or with a PEFT adapter (LoRA or prefix).
        tokenizer: the model's.
        contract: renders prompts and names the tokens that end an answer.
        prompts: one conversation each, ending with the user's turn.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts generated together.

    Raises:
        DataError: a prompt renders to no tokens at all.
    """
    encoded = [contract.prompt_ids(tokenizer, prompt) for prompt in prompts]
    if [] in encoded:
        raise DataError(f"prompt {encoded.index([])} renders to no tokens; expected at least one message with text")
    answers = [""] * len(encoded)
    order = _fitting_longest_first(encoded, _context_length(model), max_new_tokens)
    config = _greedy(contract, max_new_tokens)
    with evaluation_mode(model), _own_settings_aside(model), torch.inference_mode():
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            rows = _continue([encoded[index] for index in indices], model, config)
            for index, row in zip(indices, rows, strict=True):
                ids = _before_stop(row, contract.stop_token_ids)
                answers[index] = tokenizer.decode(ids, skip_special_tokens=True)
    return answers


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards the mode that was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def num_prefix_positions(model: Any) -> int:
    """Trained positions that the active adapter puts before every row (prefix tuning); 0 for everything else."""
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


@contextlib.contextmanager
def _own_settings_aside(model: Any) -> Iterator[None]:
    # `generate` fills every field that the caller left unset from the model's own settings, even when a whole
    # configuration is passed, so those must be empty.
    base = base_of(model)
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _greedy(contract: TemplateContract, max_new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(contract.stop_token_ids) or None,
        pad_token_id=PAD_ID,
    )


def _context_length(model: Any) -> int | None:
    """Positions for prompt and answer together; None for families without a limit."""
    limit = getattr(base_of(model).config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else limit - num_prefix_positions(model)


def _fitting_longest_first(encoded: list[list[int]], context: int | None, max_new_tokens: int) -> list[int]:
    # Longest first: a batch that does not fit in memory fails at once, not at the end.
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    if context is None:
        return order
    room = max(context - max_new_tokens, 0)
    fitting = [index for index in order if len(encoded[index]) <= room]
    if len(fitting) < len(order):
        _log.warning(
            f"{len(order) - len(fitting)} of {len(order)} prompts are longer than the {room} tokens that a context of "
            f"{context} leaves beside max_new_tokens={max_new_tokens}; they are answered with an empty text"
        )
    return fitting


def _continue(prompts: list[list[int]], model: Any, config: GenerationConfig) -> list[list[int]]:
    width = max(len(ids) for ids in prompts)
    input_ids = [[PAD_ID] * (width - len(ids)) + ids for ids in prompts]
    attention_mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    output = model.generate(
        input_ids=torch.tensor(input_ids, device=model.device),
        attention_mask=torch.tensor(attention_mask, device=model.device),
        generation_config=config,
    )
    rows: list[list[int]] = output[:, width:].tolist()
    return rows


def _before_stop(ids: list[int], stops: Sequence[int]) -> list[int]:
    end = next((position for position, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]
