"""How much of waiting prompts is read between two turns of running rows, so that their next token is not late."""

_STEPS = 2.0
"""Steps of the running rows that a piece may take: with the step behind it a token comes after three."""
_LEAST = 16
"""Tokens that are read in any case, so that a prompt of any length comes to its end."""
_OWN_SHARE = 0.25
"""Of a piece's time that its tokens took at least, where a step seems to take all of it."""
_TOGETHER = 0.2
"""Share of a step in which those who come to an idle engine are joined by others, whose steps they would take alone."""


class ReadingPace:
    """Learns from the last step and the last piece; not told of any, it says `most`.

    A piece reads the weights once, as a step does, and then takes the longer the more tokens it has and the longer the
    text before them: so no fixed number of tokens is right for a long prompt's beginning and for its end.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._step: float | None = None
        self._piece: tuple[int, float] | None = None

    def stepped(self, seconds: float) -> None:
        """A step of running rows took so long."""
        self._step = seconds

    def read(self, tokens: int, seconds: float) -> None:
        """So many tokens of prompts took so long."""
        self._piece = tokens, seconds

    def tokens(self, running: int, waiting: int) -> int:
        """To read now, at most `most` and never 0.

        Where more wait for their first token than run, running ones wait the longer, up to `most`: to let many wait for
        few makes all of them slow.

        Args:
            running: rows that wait for their next token.
            waiting: rows whose prompts are not read.
        """
        if not running or self._step is None or self._piece is None:
            return self.most
        tokens, seconds = self._piece
        each = max(seconds - self._step, _OWN_SHARE * seconds) / tokens
        steps = _STEPS * max(1.0, waiting / (2 * running)) - 1
        return max(min(int(steps * self._step / max(each, 1e-9)), self.most), min(_LEAST, self.most))

    @property
    def together(self) -> float:
        """Seconds for which an idle engine waits for others after each that comes."""
        return min(max(_TOGETHER * (self._step or 0.0), 0.001), 0.03)
