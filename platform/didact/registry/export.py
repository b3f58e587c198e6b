"""An adapter as a plain model, asked as its template contract says."""

from pathlib import Path

from didact.datasets.conversation import Message
from didact.devices import this_machine
from didact.errors import AdapterError
from didact.models import Manners, MergeProof, load_tokenizer, merge_adapter
from didact.models.model_folder import check_output
from didact.spec import MergeSpec, ModelSpec
from didact.tokens import CONTRACT_FILE, TemplateContract, tokenizer_digest

_CONVERSATIONS = (
    (Message("user", "What is the capital of France, and how far is it from Berlin?"),),
    (Message("user", "把下面的句子翻译成英文：今天天气很好，我们去公园散步吧。"),),  # noqa: RUF001
    (
        Message("user", "Write a Python function that reverses a list."),
        Message("assistant", "def reverse(items):\n    return items[::-1]"),
        Message("user", "Now without slicing."),
    ),
)


def export_merged(base: ModelSpec, adapter: Path, output: Path, settings: MergeSpec) -> MergeProof:
    """Write base + adapter as a Hugging Face folder that answers as the adapter was taught, with its proof.

    Args:
        base: the base model.
        adapter: an adapter folder.
        output: folder to write, which must not exist.
        settings: of the merge.

    Raises:
        AdapterError: see `merge_adapter`; also when the base has another tokenizer than the adapter was trained with.
        ModelError: the result is too far from base + adapter, or `output` exists.
        TemplateError: the adapter has no template contract.
    """
    check_output(output, adapter, Path(base.base))  # before anything is fetched
    contract, tokenizer = TemplateContract.load(adapter), load_tokenizer(base)
    if (digest := tokenizer_digest(tokenizer)) != contract.tokenizer_sha256:
        raise AdapterError(
            f"adapter {adapter} was trained with another tokenizer ({contract.tokenizer_sha256[:12]}) than that of "
            f"{base.base!r} ({digest[:12]})"
        )
    manners = Manners(
        chat_template=contract.standalone,
        stop_token_ids=contract.stop_token_ids,
        generation=contract.generation,
        prompts=[contract.prompt_ids(tokenizer, messages) for messages in _CONVERSATIONS],
        files=[adapter / CONTRACT_FILE],
    )
    return merge_adapter(base, adapter, output, settings, manners=manners, device=this_machine().device.type)
