"""A run trains on what it was prepared from, or not at all."""

import json
from pathlib import Path

import pytest

from didact.errors import DataError
from didact.preparation import PartJob, PreparedRecord, open_prepared, prepare_data
from didact.spec import FinetuneSpec
from tests.fakes.recipes import tiny_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def spec(tmp_path: Path) -> FinetuneSpec:
    return tiny_recipe(tmp_path)


def change(file: Path, row: int) -> None:
    lines = file.read_text().splitlines()
    lines[row] = json.dumps({**json.loads(lines[row]), "output": "something else"})
    file.write_text("\n".join(lines) + "\n")


def test_workers_open_what_was_prepared(tmp_path: Path, spec: FinetuneSpec) -> None:
    prepared = prepare_data(spec)
    PreparedRecord.of(prepared).write(tmp_path / "prepared.json")
    opened = open_prepared(tmp_path / "prepared.json", spec)
    assert opened.mixture.fingerprint == prepared.mixture.fingerprint and opened.datasets == ()
    assert opened.num_steps == prepared.num_steps
    for table, other in zip(
        [*opened.mixture.tables, *opened.mixture.held_out.values()],
        [*prepared.mixture.tables, *prepared.mixture.held_out.values()],
        strict=True,
    ):
        assert [sample.ids.tolist() for sample in table] == [sample.ids.tolist() for sample in other]
    assert opened.loader(spec).step(3).sample_ids == prepared.loader(spec).step(3).sample_ids
    # Where the source is not visible, what was prepared from it is enough.
    (tmp_path / "sums.jsonl").unlink()
    assert open_prepared(tmp_path / "prepared.json", spec).mixture.fingerprint == prepared.mixture.fingerprint


def test_a_machine_without_the_cache_prepares_the_same(
    tmp_path: Path, spec: FinetuneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    PreparedRecord.of(prepare_data(spec)).write(tmp_path / "prepared.json")
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "elsewhere"))
    opened = open_prepared(tmp_path / "prepared.json", spec)
    assert opened.mixture.fingerprint == PreparedRecord.read(tmp_path / "prepared.json").mixture


@pytest.mark.fault("D5")
@pytest.mark.fault("D6")
@pytest.mark.parametrize("row", [0, 59])
def test_a_file_that_changed_after_preparation_stops_the_run(tmp_path: Path, spec: FinetuneSpec, row: int) -> None:
    before = PreparedRecord.of(prepare_data(spec))
    before.write(tmp_path / "prepared.json")
    file = tmp_path / "sums.jsonl"
    change(file, row)
    after = PreparedRecord.of(prepare_data(spec))
    (old,), (new,) = before.sources[0].files.values(), after.sources[0].files.values()
    assert old != new and before.mixture != after.mixture
    for attempt in (
        lambda: open_prepared(tmp_path / "prepared.json", spec),  # between preparation and step 1
        lambda: after.write(tmp_path / "prepared.json"),  # at resume
    ):
        with pytest.raises(DataError) as caught:
            attempt()
        for expected in ("'sums'", str(file), old, new):
            assert expected in str(caught.value)
    assert PreparedRecord.read(tmp_path / "prepared.json") == before


def test_another_number_of_held_out_rows_is_other_data(tmp_path: Path, spec: FinetuneSpec) -> None:
    PreparedRecord.of(prepare_data(spec)).write(tmp_path / "prepared.json")
    other = tiny_recipe(tmp_path, data__sources=[spec.data.sources[0].model_dump() | {"held_out_rows": 9}])
    with pytest.raises(DataError, match=r"source 'sums': rows \w+ became"):
        PreparedRecord.of(prepare_data(other)).write(tmp_path / "prepared.json")


def test_a_second_preparation_runs_no_job(spec: FinetuneSpec) -> None:
    prepare_data(spec)
    done: list[PartJob] = []

    def run(jobs: list[PartJob], _: object) -> object:
        done.extend(jobs)
        return iter(())

    prepare_data(spec, run=run)  # type: ignore[arg-type]
    assert not done
