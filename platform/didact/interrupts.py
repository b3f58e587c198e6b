"""Ctrl-C and SIGTERM: a command that is told to end unwinds like one that failed, and ends what it has started."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTS = (KeyboardInterrupt, SystemExit)
"""What a block sees that is told to end."""


class Terminated(SystemExit):
    """SIGTERM. An exit with the code that shells give to it; libraries let it pass, as they do not an interrupt."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def ending_in_order() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM finds the block. A second one is not heard: the first is being obeyed.

    Without it Python ends at once, and Ray's own processes stay behind, or write the stack of a crash. Only a process's
    main thread can listen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    told = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit as error:
        # Ray, found waiting, makes an exit of its own with code 1. A command that took it as its end, as a server does,
        # exits with 0.
        if told and error.code and not isinstance(error, Terminated):
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def own_handlers() -> Iterator[None]:
    """Keep this process's handlers in a block that calls a library which sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
