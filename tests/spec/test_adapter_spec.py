"""Options of methods: right ones load, wrong ones name the right ones, impossible recipes say why."""

from typing import Any, get_args

import pytest

from didact.errors import SpecError
from didact.spec import ADAPTER_METHODS, FinetuneSpec, FullSpec, LoraSpec, MethodSpec, PromptSpec, validate


def recipe(adapter: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "data": {"sources": [{"name": "a", "path": "a.jsonl"}]},
        "training": {"steps": 10, **parts.pop("training", {})},
        "adapter": adapter,
        **parts,
    }


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        validate(FinetuneSpec, values, "my.yaml")
    return str(caught.value)


REQUIRED = {"peft": {"name": "hra"}, "partial": {"last_n_layers": 1}}


@pytest.mark.parametrize("method", ADAPTER_METHODS)
def test_every_method_loads_with_its_defaults(method: str) -> None:
    spec = validate(FinetuneSpec, recipe({"method": method, **REQUIRED.get(method, {})}), "my.yaml")
    assert get_args(type(spec.adapter).model_fields["method"].annotation) == (method,)


def test_a_recipe_that_states_no_rate_gets_what_suits_its_method() -> None:
    def rate(adapter: dict[str, Any] | MethodSpec | None, **training: Any) -> float:
        values = recipe({}) | {"adapter": adapter}
        if adapter is None:
            del values["adapter"]
        return validate(FinetuneSpec, values | {"training": {"steps": 1, **training}}, "my.yaml").training.learning_rate

    assert rate(None) == rate({"r": 4}) == LoraSpec.suitable_rate
    assert rate({"method": "full"}) == FullSpec.suitable_rate < LoraSpec.suitable_rate < PromptSpec.suitable_rate
    assert rate({"method": "prompt"}) == rate(PromptSpec(method="prompt")) == PromptSpec.suitable_rate
    assert rate({"method": "prompt"}, learning_rate=1e-5) == 1e-5
    assert rate({"method": "prompt"}, learning_rate=None) == PromptSpec.suitable_rate
    assert "training: missing" in refused({key: value for key, value in recipe({}).items() if key != "training"})


def test_a_wrong_option_names_those_of_its_own_method_only() -> None:
    message = refused(recipe({"method": "ia3", "qqqqq": 8}))
    assert "adapter.qqqqq: unknown key; method 'ia3' takes feedforward_modules, from, method, target_modules" in message
    assert "did you mean adapter.block_size?" in refused(recipe({"method": "oft", "blok_size": 8}))


def test_an_unknown_method_names_the_known_ones() -> None:
    message = refused(recipe({"method": "lorra"}))
    assert "'bottleneck'" in message and "'p_tuning'" in message


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"init": "pissa", "dora": True}, "choose one of them"),
        ({"init": "orthogonal", "r": 3}, "choose an even one"),
        ({"method": "adalora", "init_r": 4, "target_r": 4}, "ranks only shrink"),
        ({"method": "adalora", "warmup_share": 0.6, "final_share": 0.4}, "no steps to allocate"),
        ({"method": "prompt", "init": "text"}, "init 'text' and text belong together"),
        ({"method": "prompt", "text": "x"}, "init 'text' and text belong together"),
        ({"target_modules": []}, "names no module; write all-linear, or a list"),
        ({"target_modules": "q_proj"}, "found text 'q_proj'; write [q_proj], or all-linear"),
        ({"target_modules": "q_proj, v_proj"}, "found text 'q_proj, v_proj'; write [q_proj, v_proj], or all-linear"),
        ({"target_modules": "q_proj v_proj"}, "found text 'q_proj v_proj'; write [q_proj, v_proj], or all-linear"),
        ({"target_modules": ".*(q|v_proj"}, "no regular expression"),
        ({"method": "bottleneck", "size": 8, "reduction_factor": 4}, "either size or reduction_factor"),
        ({"method": "partial"}, "nothing would be trained"),
        ({"method": "ia3", "target_modules": ["k"]}, "give both"),
        ({"method": "ia3", "target_modules": ["k"], "feedforward_modules": ["f"]}, "must be among target_modules"),
    ],
)
def test_options_that_contradict_each_other_are_refused(adapter: dict[str, Any], message: str) -> None:
    assert message in refused(recipe(adapter))


@pytest.mark.parametrize(
    ("adapter", "parts", "message"),
    [
        ({"method": "p_tuning"}, {"tokens": {"packing": True}}, "set tokens.packing to auto or false"),
        ({"method": "prefix"}, {"training": {"gradient_checkpointing": True}}, "gradient_checkpointing to false"),
        ({"init": "loftq"}, {}, "set model.quantization.bits to 4"),
        ({"init": "loftq"}, {"model": {"quantization": {"bits": 8}}}, "set model.quantization.bits to 4"),
        ({"init": "pissa"}, {"model": {"quantization": {"bits": 4}}}, "adapter.init to 'loftq' or 'default'"),
        ({"init": "orthogonal"}, {"model": {"quantization": {"bits": 8}}}, "set adapter.init to 'default'"),
        ({"dora": True}, {"model": {"quantization": {"bits": 8}}}, "set model.quantization.bits to 4"),
        ({"method": "loha"}, {"model": {"quantization": {"bits": 4}}}, "packed in 4 bits"),
        ({"method": "partial", "embeddings": True}, {"model": {"quantization": {"bits": 4}}}, "trains the base's"),
    ],
)
def test_impossible_recipes_say_why_and_what_to_change(
    adapter: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    assert message in refused(recipe(adapter, **parts))
