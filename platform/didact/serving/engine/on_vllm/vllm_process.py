"""What runs in vLLM's own process: its AsyncLLM behind one socket. Needs vLLM and nothing of didact.

    lines of JSON on the socket -> AsyncLLM -> lines of JSON

It is started by path, with the Python of the environment that vLLM is installed in. When the other end of the socket
closes, the process ends; when vLLM's engine dies, it says so and ends.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
from typing import Any

_LONGEST_LINE = 2**27
_LOOK_SECONDS = 0.25
_GIB = 2**30


class Server:
    """Answers the messages of one client.

    Messages in: `generate`, `abort`, `load`, `unload`, `close`. Messages out carry the number of the request they
    belong to, except for `ready`, `stats` and `dead`.
    """

    def __init__(self, llm: Any, writer: asyncio.StreamWriter) -> None:
        self._llm = llm
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def send(self, **message: Any) -> None:
        """Queue a message; the loop writes it."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the client closes the socket or asks for the end, or vLLM's engine dies."""
        watch = asyncio.create_task(self._watch())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                message = json.loads(line)
                do, number = message["do"], message.get("id", 0)
                if do == "close":
                    break
                if do == "abort":
                    if task := self._tasks.get(number):
                        task.cancel()
                    continue
                work = self._generate if do == "generate" else self._adapt
                self._tasks[number] = asyncio.create_task(self._guarded(work, number, message))
        watch.cancel()
        for task in self._tasks.values():
            task.cancel()

    async def _guarded(self, work: Any, number: int, message: dict[str, Any]) -> None:
        try:
            await work(number, message)
        except Exception as error:  # noqa: BLE001 - told to the client, which knows what it asked for
            if self._llm.errored:
                self._die(error)
            self.send(id=number, error=_words(error))
        finally:
            self._tasks.pop(number, None)

    async def _generate(self, number: int, message: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(**message["params"], detokenize=False, output_kind=RequestOutputKind.DELTA)
        if message["grammar"] is not None:
            from vllm.sampling_params import StructuredOutputsParams

            params.structured_outputs = StructuredOutputsParams(grammar=message["grammar"])
        params.logit_bias = {int(token): bias for token, bias in message["bias"]} or None
        prompt = {"prompt_token_ids": message["prompt"], "cache_salt": message["salt"]}
        adapter = _lora(message["adapter"]) if message["adapter"] else None
        priority = message["priority"]
        stream = self._llm.generate(prompt, params, str(number), lora_request=adapter, priority=priority)
        async for output in stream:
            answer = output.outputs[0]
            told = [_logprobs(*each) for each in zip(answer.token_ids, answer.logprobs or (), strict=False)]
            self.send(
                id=number,
                tokens=list(answer.token_ids),
                logprobs=told,
                cached=output.num_cached_tokens or 0,
                queued=_queued(output.metrics),
                end=answer.finish_reason,
                prompt=_of_prompt(message["prompt"], output.prompt_logprobs),
            )
            await self._writer.drain()

    async def _adapt(self, number: int, message: dict[str, Any]) -> None:
        if message["do"] == "load":
            await self._llm.add_lora(_lora(message["adapter"]))
        else:
            await self._llm.remove_lora(message["adapter"]["id"])
        self.send(id=number, done=True)

    async def _watch(self) -> None:
        """Nobody else notices that the engine died while it had nothing to do."""
        while not self._llm.errored:
            await asyncio.sleep(_LOOK_SECONDS)
        self._die(self._llm.dead_error)

    def _die(self, error: BaseException) -> None:
        self.send(dead=_words(error))
        self._writer.close()


def _lora(adapter: dict[str, Any]) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter["name"], lora_int_id=adapter["id"], lora_path=adapter["path"])


def _queued(times: Any) -> float:
    """Seconds that a request waited in vLLM's own queue."""
    return max(getattr(times, "scheduled_ts", 0.0) - getattr(times, "queued_ts", 0.0), 0.0)


def _logprobs(token: int, found: Any) -> list[Any]:
    """[of the token, [[token, its], ...]] from vLLM's mapping, likeliest first, the chosen one where it belongs."""
    ranked = sorted(found.items(), key=lambda each: each[1].rank)
    return [found[token].logprob, [[other, each.logprob] for other, each in ranked]]


def _of_prompt(ids: list[int], found: Any) -> list[Any] | None:
    """`_logprobs` of all tokens of a prompt but the first, where they were asked for."""
    if not found:
        return None
    return [_logprobs(token, each) for token, each in zip(ids[1:], list(found)[1:], strict=True)]


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:1000]


def _stat_logger(writer: asyncio.StreamWriter) -> Any:
    """vLLM's own figures, sent at most ten times a second."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Figures(StatLoggerBase):
        last, sent = None, 0.0

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

        def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is None or writer.is_closing():
                return
            names = ("num_running_reqs", "num_waiting_reqs", "kv_cache_usage")
            found = [getattr(scheduler_stats, name, 0) for name in names]
            now = asyncio.get_running_loop().time()
            if found != self.last and (now - self.sent > 0.1 or not found[0]):
                writer.write(json.dumps({"stats": found}).encode() + b"\n")
                self.last, self.sent = found, now

        def log_engine_initialized(self) -> None: ...

    return Figures


def _takes_grammars(settings: dict[str, Any]) -> bool:
    """Whether vLLM can hold answers to grammars: with llguidance, for a tokenizer that its transformers reads."""
    if importlib.util.find_spec("llguidance") is None:
        return False
    try:
        from transformers import AutoTokenizer

        remote = settings.get("trust_remote_code", False)
        return bool(AutoTokenizer.from_pretrained(settings["model"], trust_remote_code=remote).is_fast)
    except Exception as error:  # noqa: BLE001 - answers without a grammar need no tokenizer here
        print(f"no grammars: {_words(error)}", flush=True)
        return False


def build(settings: dict[str, Any], writer: asyncio.StreamWriter) -> tuple[Any, dict[str, Any]]:
    """AsyncLLM, and what the client should know of it."""
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    grammars = _takes_grammars(settings)
    if grammars:
        from vllm.config import StructuredOutputsConfig

        settings["structured_outputs_config"] = StructuredOutputsConfig(backend="guidance")
    settings["skip_tokenizer_init"] = not grammars  # vLLM needs it for nothing else here
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**settings), stat_loggers=[_stat_logger(writer)])
    facts = {
        "version": vllm.__version__,
        "context_length": int(llm.model_config.max_model_len),
        "vocabulary_size": int(llm.model_config.get_vocab_size()),
        "grammars": grammars,
        "device": llm.vllm_config.device_config.device_type,
    }
    return llm, facts


async def main(descriptor: int) -> None:
    """Serve the socket of this file descriptor."""
    connection = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=connection, limit=_LONGEST_LINE)
    settings = json.loads(await reader.readline())
    try:
        llm, facts = build(settings, writer)
    except BaseException as error:
        writer.write(json.dumps({"dead": _words(error)}).encode() + b"\n")
        await writer.drain()
        raise
    server = Server(llm, writer)
    server.send(ready=facts)
    try:
        await server.serve(reader)
    finally:
        llm.shutdown()


if __name__ == "__main__":
    # Ctrl-C reaches every process of a terminal; the client ends this one when its own answers are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(main(int(sys.argv[1])))
    finally:
        os._exit(0 if sys.exc_info()[0] is None else 1)  # threads of vLLM must not keep the process
