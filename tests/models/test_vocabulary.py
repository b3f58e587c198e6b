"""More tokens for a base: old text keeps its ids, new text takes fewer, only the new rows and the adapter learn."""

import io
import json
import random
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from didact.errors import ModelError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost, attach_adapter, base_fingerprint, load_base, merge_adapter, save_adapter
from didact.models.families.sentencepieces import fast_tokenizer, wrapped
from didact.models.vocabulary import add_rows, extend_tokenizer, extend_vocabulary, new_token_ids
from didact.spec import LoraSpec, ModelSpec, SourceSpec
from tests.fakes.models import save_tiny_base, tiny_model

WORDS = ["你好", "世界", "中文", "分词", "标点", "机器学习", "自然语言", "处理", "模型", "训练"]
OLD = ["the", "cat", "sat", "on", "a", "mat", "and", "dogs", "ran", "over", "hill", "to", "see", "what", "is", "there"]
TEXTS_OLD = ["the cat  sat\non the mat.", "naïve café <|im_end|> 🙂 12,345", "", " ", "龘"]


def corpus(seed: int = 0, lines: int = 200) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(WORDS, k=20)) + "。" for _ in range(lines)]


def sentencepiece_file(folder: Path) -> Path:
    draw, model = random.Random(0), io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(draw.choices(OLD, k=9)) for _ in range(300)] + ["中文 有 一 点"] * 3),
        model_writer=model,
        **{"vocab_size": 330, "model_type": "bpe", "byte_fallback": True, "character_coverage": 0.99},
        **{"remove_extra_whitespaces": False, "normalization_rule_name": "identity", "minloglevel": 2},
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder / "tokenizer.model"


@pytest.fixture(params=["bytes", "converted sentencepiece", "llama"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedTokenizerBase:
    if request.param == "bytes":
        return byte_tokenizer()
    file = sentencepiece_file(tmp_path)
    if request.param == "llama":
        return LlamaTokenizer.from_pretrained(tmp_path)
    return wrapped(fast_tokenizer(file), {}, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_new_tokens_only_join_what_the_base_tokenizer_made(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    extended, pieces = extend_tokenizer(tokenizer, corpus(), 60)
    assert len(pieces) == 60
    first = max(tokenizer.get_vocab().values()) + 1
    assert [piece.token_id for piece in pieces] == list(range(first, first + 60))
    parts = {piece.token_id: piece.parts for piece in pieces}
    extended.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*corpus(seed=1, lines=30), *TEXTS_OLD, "x你 好世 界y"]:
        before, after = ids_of(tokenizer, text), ids_of(extended, text)
        assert [part for token_id in after for part in parts.get(token_id, (token_id,))] == before
        assert extended.decode(after) == tokenizer.decode(before)
        assert ids_of(loaded, text) == after
    for text in TEXTS_OLD:
        assert ids_of(extended, text) == ids_of(tokenizer, text), "a text without new pieces keeps its ids"
    unseen = "".join(corpus(seed=2, lines=20))
    assert len(ids_of(extended, unseen)) < 0.3 * len(ids_of(tokenizer, unseen))
    assert (extended.eos_token_id, len(extended)) == (tokenizer.eos_token_id, first + 60)
    assert extended.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("seed", range(5))
def test_the_tokenizers_own_merges_come_first(tmp_path: Path, seed: int) -> None:
    """New words of letters that the base joins in its own ways: nothing of that may change."""
    tokenizer = wrapped(fast_tokenizer(sentencepiece_file(tmp_path)), {}, {"eos_token": "</s>", "unk_token": "<unk>"})
    draw = random.Random(seed)
    words = ["".join(draw.choices("thecasondrv", k=draw.randint(2, 9))) for _ in range(60)]
    texts = [" ".join(draw.choices(words, k=9)) for _ in range(100)]
    extended, pieces = extend_tokenizer(tokenizer, texts, 80, ascii_too=True)
    parts = {piece.token_id: piece.parts for piece in pieces}
    for text in [*texts, *("".join(draw.choices("thecasondrv ", k=40)) for _ in range(100))]:
        before, after = ids_of(tokenizer, text), ids_of(extended, text)
        assert [part for token_id in after for part in parts.get(token_id, (token_id,))] == before


def test_pieces_do_not_depend_on_the_order_of_texts() -> None:
    texts = corpus()
    _, pieces = extend_tokenizer(byte_tokenizer(), texts, 40)
    assert extend_tokenizer(byte_tokenizer(), texts[::-1], 40)[1] == pieces


def test_sentencepiece_words_are_not_joined_over_spaces_marks_or_scripts(tmp_path: Path) -> None:
    tokenizer = wrapped(fast_tokenizer(sentencepiece_file(tmp_path)), {}, {"eos_token": "</s>", "unk_token": "<unk>"})
    texts = [f"{text}the cat, 12 12 {text}" for text in corpus()]
    _, pieces = extend_tokenizer(tokenizer, texts, 200, ascii_too=True)
    assert "the" in {piece.text for piece in pieces}
    for text in (piece.text for piece in pieces):
        letters = text.removeprefix("▁")
        assert len(text) == 1 or letters.isalpha(), text
        assert len({character.isascii() for character in letters}) <= 1, text


def test_ascii_keeps_its_ids_whatever_the_corpus_holds(tokenizer: PreTrainedTokenizerBase) -> None:
    foreign = "The cats deploy Kubernetes\n\tin Kubernetes."
    texts = [text + foreign + text for text in corpus()]
    extended, pieces = extend_tokenizer(tokenizer, texts, 100)
    assert len(pieces) == 100
    assert ids_of(extended, foreign) == ids_of(tokenizer, foreign)
    joined, _ = extend_tokenizer(tokenizer, texts, 100, ascii_too=True)
    assert len(ids_of(joined, foreign)) < len(ids_of(tokenizer, foreign))


def test_a_small_corpus_gives_what_it_has() -> None:
    _, pieces = extend_tokenizer(byte_tokenizer(), ["abab", "abab"], 50, ascii_too=True)
    assert {piece.text for piece in pieces} == {"ab", "abab"}
    with pytest.raises(ModelError, match="gives no new piece"):
        extend_tokenizer(byte_tokenizer(), ["abc"], 50, ascii_too=True)


def test_a_token_that_the_base_has_is_not_made_a_second_time() -> None:
    vocabulary = {"a": 0, "b": 1, "c": 2, "d": 3, "bc": 4, "ab": 5, "abc": 6}
    backend = Tokenizer(models.BPE(vocabulary, [("b", "c"), ("a", "b"), ("ab", "c")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert ids_of(tokenizer, "abc") == [0, 4], "its own merges never come to abc"
    extended, pieces = extend_tokenizer(tokenizer, ["abc", "abc", "abc", "bcd", "bcd"], 9, ascii_too=True)
    assert [(piece.text, piece.token_id, piece.parts) for piece in pieces] == [("bcd", 7, (4, 3))]
    assert ids_of(extended, "abc") == [0, 4]


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0)))
    with pytest.raises(ModelError, match="of kind Unigram; expected byte-pair"):
        extend_tokenizer(unigram, ["ab"], 5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # with an output layer of its own, and tied
def test_new_rows_are_means_and_old_text_computes_as_before(family: str) -> None:
    model, text = tiny_model(family), torch.tensor([ids_of(byte_tokenizer(), "the cat sat")])
    old = model.get_input_embeddings().weight.detach().clone()
    with torch.inference_mode():
        before = model(input_ids=text).logits
    _, pieces = extend_tokenizer(byte_tokenizer(), corpus(), 60)
    add_rows(model, pieces)
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert inputs.shape[0] == outputs.shape[0] == model.config.vocab_size == 259 + 60
    assert (inputs is outputs) == (family == "gpt2")
    with torch.inference_mode():
        after = model(input_ids=text).logits
    assert torch.equal(after[..., :259], before[..., :259])
    assert torch.equal(inputs[:259], old[:259])
    for piece in pieces:
        for rows in (inputs, outputs):
            torch.testing.assert_close(rows[piece.token_id], rows[list(piece.parts)].mean(0))


def test_rows_that_the_model_has_to_spare_are_used_first() -> None:
    model = tiny_model()
    _, pieces = extend_tokenizer(byte_tokenizer(), corpus(), 10)
    add_rows(model, pieces)
    assert model.get_input_embeddings().weight.shape[0] == 272


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def extended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A base with 60 new tokens, as a recipe names it."""
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "corpus.txt").write_text("\n".join(corpus()), encoding="utf-8")
    save_tiny_base(folder / "base", request.param)
    source = SourceSpec(name="corpus", path=str(folder / "corpus.txt"), format="text", options={"end_mark": "\n"})
    facts = extend_vocabulary(ModelSpec(base=str(folder / "base")), source, 60, folder / "wide")
    assert (facts.first_id, facts.num_tokens) == (259, 60)
    assert facts.characters_per_token > 3 * facts.characters_per_token_before
    return ModelSpec(base=str(folder / "wide"), dtype="float32")


def batch_of(spec: ModelSpec) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(spec.base)
    return torch.tensor([ids_of(tokenizer, text)[:15] for text in corpus(seed=3, lines=4)])


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids).logits


def trained(spec: ModelSpec, adapter: LoraSpec) -> torch.nn.Module:
    model, ids = attach_adapter(load_base(spec), adapter, seed=0, base_name="wide"), batch_of(spec)
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    for _ in range(5):
        scores = model(input_ids=ids).logits[:, :-1]
        torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_only_new_rows_and_the_adapter_learn(extended: ModelSpec) -> None:
    untouched = load_base(extended)
    before = untouched.state_dict()
    model = trained(extended, LoraSpec(r=4, train_new_tokens=True))
    learned = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    assert all("lora_" in name or "trainable_tokens_delta" in name for name, _ in learned)
    tied = untouched.get_input_embeddings().weight is untouched.get_output_embeddings().weight
    assert sum(each.numel() for name, each in learned if "delta" in name) == (1 if tied else 2) * 60 * 64
    merged, new = model.merge_and_unload(), new_token_ids(Path(extended.base))
    old = [token_id for token_id in range(259) if token_id not in new]
    for mine, other in (
        (merged.get_input_embeddings(), untouched.get_input_embeddings()),
        (merged.get_output_embeddings(), untouched.get_output_embeddings()),
    ):
        assert torch.equal(mine.weight[old], other.weight[old])
        assert (mine.weight[new] != other.weight[new]).any(1).sum() >= 10  # of 60, those that the batch holds
    for name, tensor in merged.state_dict().items():
        if "norm" in name or "ln_" in name or name.endswith("bias"):
            assert torch.equal(tensor, before[name]), name


def test_a_saved_adapter_gives_the_same_logits_live_and_merged(extended: ModelSpec, tmp_path: Path) -> None:
    ids = batch_of(extended)
    model = trained(extended, LoraSpec(r=4, train_new_tokens=True))
    expected, bare = logits(model, ids), logits(load_base(extended), ids)
    assert not torch.allclose(expected, bare, atol=1e-2)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(model, folder, base="wide", base_fingerprint=base_fingerprint(extended), method="lora")
    plain = trained(extended, LoraSpec(r=4))
    (tmp_path / "plain").mkdir()
    save_adapter(plain, tmp_path / "plain", base="wide", base_fingerprint=base_fingerprint(extended), method="lora")
    assert (folder / "adapter_model.safetensors").stat().st_size < 319 * 64 * 4 * 2 + 200_000
    host = AdapterHost(load_base(extended), base_fingerprint(extended))
    host.load("new", folder)
    host.load("plain", tmp_path / "plain")
    for name, wanted in (("new", expected), (None, bare), ("plain", logits(plain, ids)), ("new", expected)):
        with host.active(name) as live:
            torch.testing.assert_close(logits(live, ids), wanted, atol=1e-5, rtol=1e-5)
    merge_adapter(extended, folder, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    torch.testing.assert_close(logits(merged, ids), expected, atol=1e-4, rtol=1e-4)


def test_rows_learn_on_a_half_precision_base_in_full_precision(extended: ModelSpec) -> None:
    half = extended.model_copy(update={"dtype": "bfloat16"})
    model = attach_adapter(load_base(half), LoraSpec(r=4, train_new_tokens=True), seed=0, base_name="wide")
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}


def test_a_base_without_new_tokens_is_refused(tmp_path: Path) -> None:
    base = load_base(ModelSpec(base=str(save_tiny_base(tmp_path))))
    with pytest.raises(ModelError, match=r"tokens that `didact vocabulary` adds, but .* has no vocabulary.json"):
        attach_adapter(base, LoraSpec(train_new_tokens=True), seed=0, base_name="tiny")


def test_an_output_layer_with_bias_is_refused(tmp_path: Path) -> None:
    base = load_base(ModelSpec(base=str(save_tiny_base(tmp_path, "phi"))))
    with pytest.raises(ModelError, match="leaves out the bias"):
        attach_adapter(base, LoraSpec(train_new_tokens=True), seed=0, base_name="tiny")


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(corpus()), encoding="utf-8")
    source = SourceSpec(name="corpus", path=str(tmp_path / "corpus.txt"), format="text")
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")))
    with pytest.raises(ModelError, match="exists; give a folder that does not"):
        extend_vocabulary(base, source, 5, tmp_path / "base")
    facts = extend_vocabulary(base, source, 5, tmp_path / "new")
    recorded = json.loads((tmp_path / "new" / "vocabulary.json").read_text(encoding="utf-8"))
    assert recorded["base_fingerprint"] == facts.base_fingerprint == base_fingerprint(base)
    assert base_fingerprint(ModelSpec(base=str(tmp_path / "new"))) != facts.base_fingerprint
