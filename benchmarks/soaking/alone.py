"""What versions answer while nothing else is asked: a replica's work in this process, one request at a time."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

from soaking.asking import PROMPTS

from didact.datasets.conversation import Message
from didact.models import base_fingerprint
from didact.serving.engine.protocol import AdapterRef, Delta
from didact.serving.replica.backend import Ask
from didact.serving.replica.load_worker import build_worker
from didact.serving.replica.worker import Worker
from didact.spec import ModelSpec, ServeSpec

LEAST_GAP = 1e-3
"""Between the logarithms of the two likeliest tokens: nearer ones may change places with the rows beside them."""
SECONDS = 600.0
"""For any answer."""


def answers_alone(model: ModelSpec, folders: Mapping[str, Path], registry: str) -> dict[tuple[str, int], str]:
    """Content of a version (twelve digits) and number of a prompt -> text.

    Pairs in which two tokens were nearly as likely are left out.

    Args:
        model: the base, which is asked as well.
        folders: digest of an adapter -> its folder.
        registry: address of one.
    """
    worker = build_worker(ServeSpec(model=model, tracking_uri=registry), num_threads=1)
    asked = {base_fingerprint(model)[:12]: None}
    asked |= {sha256[:12]: AdapterRef(f"alone#{sha256[:12]}", folder) for sha256, folder in folders.items()}
    try:
        return asyncio.run(_ask_all(worker, asked))
    finally:
        worker.close()


async def _ask_all(worker: Worker, asked: Mapping[str, AdapterRef | None]) -> dict[tuple[str, int], str]:
    found = {}
    for content, adapter in asked.items():
        for number in range(len(PROMPTS)):
            if (text := await _ask(worker, adapter, number)) is not None:
                found[content, number] = text
    return found


async def _ask(worker: Worker, adapter: AdapterRef | None, number: int) -> str | None:
    prompt, tokens = PROMPTS[number]
    name = adapter.version_id if adapter else "base"
    ask = Ask(f"{name}-{number}", (Message("user", prompt),), adapter, tokens, SECONDS, logprobs=2)
    text, gap = "", float("inf")
    async with aclosing(worker.ask(ask)) as events:
        async for event in events:
            if isinstance(event, Delta):
                text += event.text
                gap = min([gap, *(each.top[0][1] - each.top[1][1] for each in event.logprobs)])
    return None if gap < LEAST_GAP else text
