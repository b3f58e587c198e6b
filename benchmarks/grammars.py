"""What a form costs: the time to compile it, and to find the tokens that it allows, llguidance beside xgrammar.

    python benchmarks/grammars.py [--tokens 120] [--schemas tree values] [--xgrammar FOLDER]

On the tokenizer of the bundled base and one thread. A random walk through each schema chooses among the allowed tokens.
xgrammar is asked where it is installed, or lies in FOLDER (`pip install --target`).
"""

import argparse
import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from didact.models import load_tokenizer
from didact.spec import ModelSpec

Step = Callable[[int | None], np.ndarray | None]
"""From the token that was taken to bits of those allowed next; None behind the end."""


def _object(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "additionalProperties": False, **more}


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = _object({"a": schema}, required=["a"])
    return schema


_TEXT = {"type": "string"}
_KIDS = {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/n"}}}
SCHEMAS = {
    "fields": _object({"name": _TEXT, "age": {"type": "integer"}, "tags": {"type": "array", "items": _TEXT}}),
    "tree": {"$defs": {"n": _object(_KIDS, required=["v", "kids"])}, "$ref": "#/$defs/n"},
    "values": {"enum": [f"value number {number * 7919 % 100003}" for number in range(5000)]},
    "alternatives": {"anyOf": [_object({f"k{i}": _TEXT, "z": {"type": "integer"}}) for i in range(200)]},
    "optional": _object({f"p{i}": _TEXT for i in range(500)}),
    "deep": _deep(50),
    "long": _object({"s": {"type": "string", "maxLength": 1000}}, required=["s"]),
}


def llguidance_steps(tokenizer: Any) -> Callable[[dict[str, Any]], Step]:
    """Compile with llguidance."""
    words = from_tokenizer(tokenizer, n_vocab=len(tokenizer))

    def compiled(schema: dict[str, Any]) -> Step:
        matcher = LLMatcher(words, LLMatcher.grammar_from_json_schema(schema), log_level=0)

        def step(token: int | None) -> np.ndarray | None:
            if token is not None and (not matcher.consume_token(token) or matcher.is_stopped()):
                return None
            return np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)

        return step

    return compiled


def xgrammar_steps(tokenizer: Any) -> Callable[[dict[str, Any]], Step]:
    """Compile with xgrammar, without its cache."""
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    bits = xgrammar.allocate_token_bitmask(1, len(tokenizer))

    def compiled(schema: dict[str, Any]) -> Step:
        matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))

        def step(token: int | None) -> np.ndarray | None:
            if token is not None and (not matcher.accept_token(token) or matcher.is_terminated()):
                return None
            matcher.fill_next_token_bitmask(bits)
            return bits.numpy().view(np.uint8)[0]

        return step

    return compiled


def walk(compiled: Callable[[dict[str, Any]], Step], schema: dict[str, Any], tokens: int) -> tuple[float, float]:
    """Seconds to compile, and the median of a token's."""
    begun = time.perf_counter()
    step = compiled(schema)
    spent, chance, token, times = time.perf_counter() - begun, random.Random(0), None, list[float]()
    for _ in range(tokens):
        begun = time.perf_counter()
        bits = step(token)
        times.append(time.perf_counter() - begun)
        allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little")) if bits is not None else []
        if not len(allowed):
            break
        token = int(chance.choice(allowed))
    return spent, median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--schemas", nargs="+", default=list(SCHEMAS), choices=list(SCHEMAS))
    parser.add_argument("--xgrammar")
    arguments = parser.parse_args()
    if arguments.xgrammar:
        sys.path.append(arguments.xgrammar)
    tokenizer = load_tokenizer(ModelSpec())
    libraries = {"llguidance": llguidance_steps(tokenizer)}
    if importlib.util.find_spec("xgrammar"):
        libraries["xgrammar"] = xgrammar_steps(tokenizer)
    print("| schema | library | compile, ms | a token, us | compile, of llguidance's |")
    print("|---|---|---:|---:|---:|")
    for name in arguments.schemas:
        first = 0.0
        for library, compiled in libraries.items():
            spent, each = walk(compiled, SCHEMAS[name], arguments.tokens)
            first = first or spent
            print(f"| {name} | {library} | {1e3 * spent:.1f} | {1e6 * each:.0f} | {spent / first:.0f} |", flush=True)


if __name__ == "__main__":
    main()
