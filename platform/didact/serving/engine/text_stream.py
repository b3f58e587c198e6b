"""Tokens -> text that can be shown at once."""

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
_LONGEST_WAIT = 16
"""Tokens to wait for a character's end. One needs at most four; more means the bytes are no text at all."""


class TextStream:
    """Turns one answer's tokens into text as they come.

    Two things are held back: bytes that do not yet make a whole character, and text that may be the beginning of a stop
    text. Each step decodes only the tokens since the last shown text, so a long answer costs no more per token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._context = 0
        """First token of the decoding window; some tokenizers need the token before to place blanks."""
        self._shown = 0
        """Tokens whose text has left the window."""
        self._held = ""
        self.met: str | None = None
        """The stop text that was met."""

    def push(self, token: int, may_stop: bool = True) -> str:
        """Add a token; returns the text that may be shown now, which is often empty.

        Args:
            token: the newest.
            may_stop: False where a stop text up to here is text like any other.
        """
        self._ids.append(token)
        if not may_stop:
            shown, self._held = self._held + self._decode_new(last=False), ""
            return shown
        return self._release(self._decode_new(last=False), last=False)

    def finish(self) -> str:
        """All that is still held back, once no more tokens come."""
        return self._release(self._decode_new(last=True), last=True)

    def _decode_new(self, last: bool) -> str:
        before = self._decode(self._ids[self._context : self._shown])
        now = self._decode(self._ids[self._context :])
        waiting = len(self._ids) - self._shown < _LONGEST_WAIT and not last
        if now == before and not waiting:
            # Tokens without any text, such as special ones that do not end an answer, are not looked at again.
            del self._ids[self._shown :]
            return ""
        if len(now) <= len(before) or (now.endswith(_UNFINISHED) and waiting):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return now[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _release(self, new: str, last: bool) -> str:
        if self.met is not None:
            return ""
        text = self._held + new
        found = [(position, stop) for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            position, self.met = min(found, key=lambda each: each[0])
            self._held = ""
            return text[:position]
        keep = 0 if last else self._possible_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_stop(self, text: str) -> int:
        """Length of the longest ending of `text` that begins a stop text."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
