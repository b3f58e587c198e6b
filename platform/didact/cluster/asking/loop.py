"""An event loop of its own for an evaluation, also where one runs already, as in a notebook."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_Found = TypeVar("_Found")
_PATIENCE_SECONDS = 5.0
"""For workers to be told that they are not needed any more."""


def in_a_loop(work: Coroutine[Any, Any, _Found]) -> _Found:
    """Run it to its end; an interrupt of the caller ends it."""
    loop, over = asyncio.new_event_loop(), threading.Event()

    async def to_its_end() -> _Found:
        try:
            return await work
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}  # of models that are asked beside one that raised
            for each in left:
                each.cancel()
            if left:
                await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
            over.set()

    thread = threading.Thread(target=loop.run_forever, name="evaluation", daemon=True)
    thread.start()
    future = asyncio.run_coroutine_threadsafe(to_its_end(), loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt of the caller ends the workers as well
        over.wait(_PATIENCE_SECONDS)
        raise
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
