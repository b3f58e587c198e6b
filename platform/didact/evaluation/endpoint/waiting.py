"""How long to wait before another try: as long as the endpoint asks, else longer each time."""

import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_FIRST, _LONGEST = 1.0, 30.0


def back_off(number: int, dice: random.Random) -> float:
    """Seconds before the try after `number` others: 1, 2, 4, ... 30, each a random part shorter, so that requests that
    failed together do not come back together."""
    return min(_LONGEST, _FIRST * 2**number) * dice.uniform(0.5, 1.0)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After` (a number, or a date) or `retry-after-ms`; None where there is neither."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        given = headers.get("retry-after")
        if given is None:
            return None
        if given.strip().replace(".", "", 1).isdigit():
            return float(given)
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
