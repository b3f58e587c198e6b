"""How much of waiting prompts is read between two turns of running rows, so that their next token is not late."""

_STEPS = 2
"""Steps of the running rows that reading may take at a time: with the step behind it a token comes after three."""
_LEAST = 16
"""Tokens that are read in any case, so that a prompt of any length comes to its end."""


class ReadingPace:
    """Learns from the last step and the last piece; not told of any, it says `most`.

    A token of a prompt costs the more the longer the text before it, and a step what its rows cost: so no fixed number
    of tokens is right for a long prompt's beginning and for its end.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._step: float | None = None
        self._token: float | None = None

    def stepped(self, seconds: float) -> None:
        """A step of running rows took so long."""
        self._step = seconds

    def read(self, tokens: int, seconds: float) -> None:
        """So many tokens of prompts took so long."""
        self._token = seconds / tokens

    def tokens(self, rows_run: bool) -> int:
        """To read now, at most `most` and never 0; `most` where nobody waits for a next token."""
        if not rows_run or self._step is None or not self._token:
            return self.most
        return max(min(int(_STEPS * self._step / self._token), self.most), min(_LEAST, self.most))
