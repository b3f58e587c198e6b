"""A model behind an address: what speaks OpenAI's API, with the limits under which it is asked."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from didact.spec.base import Spec
from didact.spec.explain.schema import Says

_OURS = ("messages", "prompt", "model", "stream", "n", "stop", "echo", "logprobs")
_ROUTES = ("/chat/completions", "/completions")


class PriceSpec(Spec):
    """What a provider asks for, in any one currency."""

    prompt: float = Field(ge=0)
    """For a million tokens of prompts."""
    answer: float = Field(ge=0)
    """For a million tokens of answers."""


class EndpointSpec(Spec):
    """An OpenAI-compatible endpoint: this program's own server, vLLM, a provider."""

    url: str
    """Its address up to the version, such as `http://localhost:8000/v1`."""
    model: str = Field(min_length=1)
    """The model's name there."""
    key_env: Annotated[str, Says("a name in capitals that ends with _API_KEY, such as OPENAI_API_KEY")] | None = Field(
        default=None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$"
    )
    """The environment variable that holds the key, such as `OPENAI_API_KEY`; no other kind of name is sent anywhere."""
    at_once: int = Field(default=8, ge=1)
    """Requests under way together."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """At most so many requests are begun in any minute."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """At most so many tokens in any minute, prompts and answers together; estimated before, corrected after."""
    timeout_seconds: float = Field(default=120, gt=0)
    """Longest time from sending a request to the last byte of its answer."""
    retries: int = Field(default=5, ge=0)
    """How often a request is sent again after a timeout, a lost connection, 429, 5xx or an unreadable answer."""
    gives_up_after: int = Field(default=10, ge=1)
    """Requests in a row that failed in all their tries, after which the endpoint counts as down."""
    deadline_seconds: float = Field(default=4 * 3600, gt=0)
    """Longest time for all requests of an evaluation, from the first one."""
    keep_days: float = Field(default=30, ge=0)
    """Answers that it gave longer ago are asked again, since what stands behind an address may change; 0 asks all
    again. Reports say how old those are that were kept."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of an evaluation, prompts and answers together."""
    prices: PriceSpec | None = None
    """Needed for `max_cost`."""
    max_cost: float | None = Field(default=None, gt=0)
    """Most that an evaluation may cost, in the currency of `prices`."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the API calls the longest answer; OpenAI's reasoning models want `max_completion_tokens`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """More fields of each request, such as `reasoning_effort: low`; null leaves out one that is sent otherwise, such as
    `temperature: null`. They are written into reports, so no secret may stand here."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            # Not even shown: reports and errors name the address.
            raise ValueError("expected an address without name, password or query; a key is named by key_env")
        short = url.rstrip("/")
        if route := next((each for each in _ROUTES if short.endswith(each)), None):
            raise ValueError(f"expected the address without {route}, which is added")
        return short

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(options) & set(_OURS)):
            raise ValueError(f"{', '.join(taken)} cannot be set here; evaluation sets them")
        return options

    @model_validator(mode="after")
    def _prices_for_a_cost(self) -> "EndpointSpec":
        if self.max_cost is not None and self.prices is None:
            raise ValueError("max_cost needs prices: what a million tokens of prompts and of answers cost")
        return self
