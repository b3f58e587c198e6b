"""Tokenizers of published bases: the same ids as the original files give, from models trained here in a moment."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from didact.errors import ModelError
from didact.models import load_base, load_tokenizer
from didact.models.families.sentencepieces import fast_tokenizer
from didact.spec import ModelSpec
from tests.fakes.originals import CONFIGS, save_original
from tests.fakes.sentencepieces import train

TEXTS = [
    "The cat sat on the mat, 12 times in 2024.",
    "two  spaces   and\ta tab",
    "line one\nline two\n\n    indented",
    "猫坐在垫子上。",
    "naïve café 🙂 ½",
    " leading and trailing ",
    "",
]


def ids(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int]:
    return tokenizer(text, add_special_tokens=special).input_ids


@pytest.mark.parametrize("family", ["baichuan-7b", "baichuan-13b", "internlm"])
@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_llama_like_tokenizers_give_the_ids_of_their_model_file(
    tmp_path: Path, family: str, dummy_prefix: bool
) -> None:
    folder = save_original(tmp_path / family, family)
    original = train(folder / "tokenizer.model", add_dummy_prefix=dummy_prefix)
    tokenizer = load_tokenizer(ModelSpec(base=str(folder)))
    for text in TEXTS:
        assert ids(tokenizer, text) == original.encode(text), text
        assert tokenizer.decode(ids(tokenizer, text)) == original.decode(original.encode(text))
    assert ids(tokenizer, "cat", special=True) == [original.bos_id(), *original.encode("cat")]
    assert (tokenizer.eos_token_id, tokenizer.eos_token) == (original.eos_id(), "</s>")


def test_settings_of_the_folder_are_followed(tmp_path: Path) -> None:
    folder = save_original(tmp_path / "base", "baichuan-13b")
    original = train(folder / "tokenizer.model", user_defined_symbols=["<reserved_1>"])
    settings = {
        "add_bos_token": False,
        "pad_token": {"content": "<unk>"},
        "chat_template": "{{ messages[0]['content'] }}",
        "tokenizer_class": "BaichuanTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(ModelSpec(base=str(folder)))
    assert ids(tokenizer, "cat", special=True) == original.encode("cat")
    assert tokenizer.pad_token_id == original.unk_id() and tokenizer.chat_template == settings["chat_template"]
    assert original.piece_to_id("<reserved_1>") in ids(tokenizer, "the<reserved_1>")


@pytest.mark.parametrize("third", [False, True])
def test_chatglm2_tokens_follow_the_model_file(tmp_path: Path, third: bool) -> None:
    folder = save_original(tmp_path / "base", "chatglm2")
    original = train(folder / "tokenizer.model")
    size = original.get_piece_size()
    if third:
        (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"7": "<|user|>"}}))
    tokenizer = load_tokenizer(ModelSpec(base=str(folder)))
    for text in TEXTS:
        assert ids(tokenizer, text) == original.encode(text), text
    assert ids(tokenizer, "cat", special=True) == [size + 1, size + 3, *original.encode("cat")]
    assert tokenizer.eos_token_id == original.eos_id() and tokenizer.pad_token_id == original.unk_id()
    assert (tokenizer.convert_tokens_to_ids("<|user|>") == size + 6) is third


@pytest.mark.parametrize("images", [False, True])
def test_chatglm_6b_marks_blanks_and_line_ends(tmp_path: Path, images: bool) -> None:
    folder = save_original(tmp_path / "base", "chatglm-6b")
    train(
        folder / "ice_text.model",
        model_type="unigram",
        vocab_size=150,
        hard_vocab_limit=False,
        byte_fallback=False,
        user_defined_symbols=["<n>"],
        control_symbols=["<pad>"],
    )
    original = runtime_model(folder / "ice_text.model")
    offset = 20_000 if images else 0
    tokenizer = load_tokenizer(ModelSpec(base=str(with_vocabulary(folder, 150_528) if images else folder)))
    for text in TEXTS:
        marked = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        for length in range(80, 1, -1):
            marked = marked.replace(" " * length, f"<|blank_{length}|>")
        assert ids(tokenizer, text) == [offset + each for each in original.encode(marked)], text
        assert tokenizer.decode(ids(tokenizer, text)) == text
    gmask, start = (offset + original.piece_to_id(token) for token in ("[gMASK]", "<sop>"))
    assert ids(tokenizer, "cat", special=True) == [*ids(tokenizer, "cat"), gmask, start]
    assert tokenizer.eos_token_id == offset + original.piece_to_id("<eop>")


def runtime_model(file: Path) -> SentencePieceProcessor:
    """The oracle: the file with the pieces that the original's code adds to it in memory."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(file.read_bytes())
    for token in ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"):
        proto.pieces.add(piece=token, score=0.0, type=3)
    for token in ("<|tab|>", *(f"<|blank_{length}|>" for length in range(2, 81))):
        proto.pieces.add(piece=token, score=0.0, type=4)
    for byte in range(256):
        proto.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=6)
    proto.trainer_spec.byte_fallback = True
    return SentencePieceProcessor(model_proto=proto.SerializeToString())


def with_vocabulary(folder: Path, size: int) -> Path:
    """The same folder with the first release's vocabulary, whose embedding is too large to be worth filling in."""
    config = {**CONFIGS["chatglm-6b"], "vocab_size": size}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        tensors[name] = torch.zeros(size, 64, dtype=torch.float16)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_moss_adds_its_tokens_to_gpt2s(tmp_path: Path) -> None:
    folder = save_original(tmp_path / "base", "moss")
    vocabulary = {char: index for index, char in enumerate(bytes_to_unicode().values())}
    vocabulary |= {"th": 256, "the": 257, "<|endoftext|>": 258}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    added = {"<eoh>": 259, "<eom>": 260}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    tokenizer = load_tokenizer(ModelSpec(base=str(folder)))
    assert ids(tokenizer, "the cat<eom>") == [257, *(vocabulary[char] for char in "Ġcat"), 260]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (258, 260)
    for text in TEXTS:
        assert tokenizer.decode(ids(tokenizer, text)) == text
    (folder / "added_tokens.json").write_text(json.dumps({"<eoh>": 300}))
    with pytest.raises(ModelError, match="leaves a gap"):
        load_tokenizer(ModelSpec(base=str(folder)))


def test_a_model_file_of_words_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "words.model", model_type="word", vocab_size=20, byte_fallback=False)
    with pytest.raises(ModelError, match="expected BPE or unigram"):
        fast_tokenizer(tmp_path / "words.model")


def test_a_folder_without_its_tokenizer_file_loads_as_a_model_only(tmp_path: Path) -> None:
    spec = ModelSpec(base=str(save_original(tmp_path / "base", "internlm")))
    assert load_base(spec).config.model_type == "llama"
    with pytest.raises(ModelError, match="has no tokenizer that can be loaded"):
        load_tokenizer(spec)
