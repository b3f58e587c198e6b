"""How results show themselves: HTML in a notebook, text in a terminal. The same rich tables as on the command line."""

import contextlib
import contextvars
import io
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_NOTEBOOK_COLUMNS = 110
_PIPE_COLUMNS = 240  # a name that is folded over two lines is found by no `grep`
_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace">{code}</pre>'
# Control characters but line feed and tab, what changes the direction of text, and what takes no room. Joiners stay,
# since pictures and several scripts are written with them.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """Text as it is, but for characters that would not be seen, or that a terminal obeys: these as `<U+001B>`."""
    return _UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", text)


class Shown:
    """A result that says in `__rich__` how it looks. `repr` stays Python's own; `print` and notebooks show the look."""

    __slots__ = ()

    def __rich__(self) -> "RenderableType":
        """How it looks, for rich's console."""
        raise TypeError(f"{type(self).__name__} does not say how it looks")

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(
            file=io.StringIO(), highlight=False, record=True, width=_NOTEBOOK_COLUMNS, force_jupyter=False
        )
        console.print(self)
        return console.export_html(inline_styles=True, code_format=_HTML)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # IPython takes its text from here; from `_repr_pretty_` it does not where a class has a `__repr__` of its own.
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def as_text(shown: Shown) -> str:
    """How a result looks, as plain text as wide as the terminal."""
    from rich.console import Console

    written = io.StringIO()
    columns = _NOTEBOOK_COLUMNS if in_notebook() else _columns(sys.stdout)
    Console(file=written, highlight=False, force_terminal=False, force_jupyter=False, width=columns).print(shown)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def terminal(*, stderr: bool = False, highlight: bool = True) -> "Console":
    """Where the command line prints: as wide as the terminal; wide in a pipe, a file and a job's log."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=highlight, width=_columns(sys.stderr if stderr else sys.stdout))


def _columns(stream: TextIO) -> int | None:
    """Columns for output that no terminal shows (COLUMNS says otherwise); none where rich asks the terminal itself."""
    return None if stream.isatty() else shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns


def counted(number: int, noun: str) -> str:
    """A number of things that have a regular plural: `1 question`, `1,200 questions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_words(seconds: float) -> str:
    """A time that is only roughly known: `40 seconds`, `11 minutes`."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(round(seconds, -1), 10):.0f} seconds"


def write_anything() -> None:
    """Have stdout and stderr write what their encoding lacks as its number (`\\u4e2d`), where Python would give up.

    So output ends in no error on a terminal of ASCII or GBK, nor in a pipe with such an encoding.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def alongside(follow: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run `follow` on a thread until the block ends, which its event tells; what it prints in a notebook stays in the
    block's cell.

    Args:
        follow: looks and shows until the event is set, and then once more.
        name: of the thread.
    """
    stop = threading.Event()
    # The cell that a notebook prints below is part of the context, which a thread does not have by itself.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(follow, stop), daemon=True, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")
