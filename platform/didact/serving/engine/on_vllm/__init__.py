"""The engine `vllm`: plain LoRA adapters on vLLM, which runs in a process and a Python environment of its own.

    GenerationRequest -> VllmEngine -> VllmLink -> [vllm_process.py in vLLM's environment: AsyncLLM] -> Delta

vLLM asks for other versions of transformers than didact, and its end must not be the replica's: so nothing here imports
it, and nothing there imports didact.

Example:
    >>> from didact.serving.engine.on_vllm import why_not_served
    >>> why_not_served({"method": "prefix"}, max_rank=64).partition(".")[0]
    'the engine vllm does not serve the method prefix'
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.serving.engine.on_vllm.served import why_not_served
    from didact.serving.engine.on_vllm.vllm_engine import VllmEngine
    from didact.serving.engine.on_vllm.vllm_start import start_vllm

__all__ = ["VllmEngine", "start_vllm", "why_not_served"]

__getattr__ = lazily(__name__)
