"""Ray Data prepares what one process prepares; errors come back as they were raised."""

import json
from pathlib import Path

import pytest

from didact.cluster import WORTH_RAY_BYTES, ray_runner, run_on_ray, score_on_ray
from didact.datasets import load_dataset
from didact.datasets.sources.opening import open_source
from didact.datasets.stored.view import ConversationView
from didact.errors import DataError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.preparation import Encoder, Runner, prepare_data, prepare_source, run_here, score_here, tokenize
from didact.spec import SourceSpec, TokensSpec
from didact.tokens import TemplateContract, TokenTable, view_table
from tests.fakes.recipes import tiny_recipe
from tests.fakes.web_server import serve

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def write(path: Path) -> SourceSpec:
    records = [{"instruction": f"question {row}", "output": f"answer {row}"} for row in range(200)]
    path.write_text("[]\n" + "".join(json.dumps(record) + "\n" for record in records))
    return SourceSpec(name="rows", path=str(path), held_out_rows=5)


def prepared(source: SourceSpec, cache: Path, run: Runner, note: object = None) -> tuple[TokenTable, int, int]:
    tokenizer = byte_tokenizer()
    tokenizer.note = note
    encoder = Encoder(tokenizer, TemplateContract.build(tokenizer, "auto"), TokensSpec())
    opened, counts = open_source(source, 1000), [0, 0]

    def counted(jobs, using):  # type: ignore[no-untyped-def]
        for done in run(jobs, using):
            counts[0], counts[1] = counts[0] + done.rows, counts[1] + done.rejected
            yield done

    prepare_source(opened, source, 0, encoder, cache, counted)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0.1, quarantine_dir=cache / "q", opened=opened)
    assert isinstance(dataset.train, ConversationView)
    return view_table(tokenize(dataset, encoder, cache), dataset.train, "rows"), *counts


def test_the_cluster_makes_the_same_table_and_names_what_it_cannot_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "a.jsonl")
    tables = []
    for name, run in (("here", run_here), ("ray", run_on_ray)):
        monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / name))
        table, rows, rejected = prepared(source, tmp_path / name, run)
        assert (rows, rejected, len(table)) == (201, 1, 195)
        tables.append((table.fingerprint, table.stats, [sample.ids.tolist() for sample in table]))
    assert tables[0] == tables[1]
    assert (tmp_path / "ray" / "q" / "rows.jsonl").read_text() == (tmp_path / "here" / "q" / "rows.jsonl").read_text()

    def on_a_node_without_the_source(jobs, encoder):  # type: ignore[no-untyped-def]
        (tmp_path / "a.jsonl").rename(tmp_path / "elsewhere")
        return run_on_ray(jobs, encoder)

    with pytest.raises(DataError, match=r"does not see .*a\.jsonl.*all nodes share"):
        monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "third"))
        prepared(source, tmp_path / "third", on_a_node_without_the_source)


class KillsOnce:
    """Kills the first process that unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        code = f"""
import os, signal
try:
    open({str(self.trace)!r}, "x").close()
except FileExistsError:
    pass
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""
        return exec, (code,)


def test_a_killed_worker_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, trace = write(tmp_path / "a.jsonl"), tmp_path / "killed"
    tables = []
    for name, run, note in (("here", run_here, None), ("ray", run_on_ray, KillsOnce(trace))):
        monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / name))
        table, *counts = prepared(source, tmp_path / name, run, note)
        tables.append((table.fingerprint, counts, [sample.ids.tolist() for sample in table]))
    assert tables[0] == tables[1]
    assert trace.exists()


def test_few_bytes_are_prepared_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    source = write(tmp_path / "a.jsonl")
    with ray_runner() as run, pytest.raises(AttributeError, match="pickle"):
        prepared(source, tmp_path / "cache", run, note=lambda: "cannot be sent to another process")
    with ray_runner(WORTH_RAY_BYTES) as run:
        table, rows, _ = prepared(source, tmp_path / "cache", run, note=lambda: "nor need it be")
    assert (rows, len(table)) == (201, 195)


def test_the_cluster_reads_a_stream_for_its_keys_and_again_for_the_chosen_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "www").mkdir()
    write(tmp_path / "www" / "a.jsonl")
    tables = []
    with serve(tmp_path / "www") as web:
        source = SourceSpec(name="rows", path=f"{web.url}/a.jsonl", stream=True, max_rows=40, held_out_rows=5)
        for name, run in (("here", run_here), ("ray", run_on_ray)):
            monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / name))
            table, rows, rejected = prepared(source, tmp_path / name, run)
            assert (rows, rejected, len(table)) == (2 * 201, 2, 35)
            tables.append((table.fingerprint, table.stats, [sample.ids.tolist() for sample in table]))
    assert tables[0] == tables[1]


def test_rows_are_scored_on_workers_as_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"name": "sums", "path": str(tmp_path / "sums.jsonl"), "choose": {"by": "ifd", "share": 0.5}}
    spec = tiny_recipe(tmp_path, data__sources=[source], placement={"num_workers": 2, "cpus_per_worker": 1})
    mixtures = []
    for name, score in (("here", score_here), ("ray", score_on_ray)):
        monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / name))
        mixtures.append(prepare_data(spec, score=score).mixture.fingerprint)
        assert len(list((tmp_path / name / "scores").glob("*/*.npy"))) == 2
    assert mixtures[0] == mixtures[1]
