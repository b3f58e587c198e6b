"""OpenAI's batch lines in a file: each names its model and settings, and is answered as the API would answer it."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from didact.errors import DataError
from didact.serving.batch.lines import BatchLine, are_batch_lines, without_doubles
from didact.serving.engine.protocol import AdapterRef
from didact.serving.predict import PredictReport, PredictSettings, batch_models, predict_file
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.pinned import PinnedNames
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SHORT = PredictSettings(max_new_tokens=6, concurrency=3)
HELLO = [{"role": "user", "content": "hello"}]


def line(custom_id: str, url: str = CHAT, **body: object) -> str:
    defaults = {"messages": HELLO} if url == CHAT else {"prompt": "abc"}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {**defaults, **body}})


REQUESTS = [
    line("base", model="tiny", temperature=0),
    line("first", model="demo", temperature=0),
    line("second", model="demo:2", temperature=0),
    line("text", COMPLETIONS, model="demo@champion", temperature=0, max_tokens=4, logprobs=2, stop=["~"]),
    line("two", model="demo:2", n=2, seed=7, temperature=1.5, top_p=0.9, presence_penalty=0.5, logit_bias={"65": 5}),
    line("mine", temperature=0),
]
BAD = {
    "{broken": ("invalid_json_line", None),
    "[1]": ("invalid_json_line", None),
    '{"custom_id": "no-body", "method": "POST", "url": "/v1/completions"}': ("missing_required_parameter", "no-body"),
    line("base", model="tiny"): ("duplicate_custom_id", "base"),
    line("put", model="tiny").replace("POST", "PUT"): ("invalid_method", "put"),
    line("away", "/v1/embeddings", model="tiny"): ("invalid_url", "away"),
    '{"custom_id": "\\ud800", "method": "POST", "url": "/v1/completions", "body": {}}': ("invalid_custom_id", None),
    '{"custom_id": "u", "method": "POST", "url": "\\ud800", "body": {}}': ("invalid_url", "u"),
}
REFUSED = {
    line("stream", model="tiny", stream=True): (400, "stream"),
    line("hot", model="tiny", temperature=9): (400, "temperature"),
    line("nobody", model="nobody"): (404, "model"),
    line("long", COMPLETIONS, model="tiny", prompt="x" * 2000): (400, "prompt"),
    line("half", COMPLETIONS, model="tiny", prompt="\ud800"): (400, None),
}


def written(worker: Worker, registry: ShelfRegistry, folder: Path, lines: list[str]) -> tuple[PredictReport, list]:
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("\n".join(lines) + "\n\n")
    catalog = Catalog("tiny", registry, worker.prepare)
    names = PinnedNames.of(catalog, batch_models(source), {"tiny": None})
    report = predict_file(worker, source, output, model="tiny", settings=SHORT, names=names)
    return report, [json.loads(each) for each in output.read_text().splitlines()]


def test_lines_are_answered_as_over_http_by_the_adapters_that_they_name(
    worker: Worker, registry: ShelfRegistry, client: TestClient, tmp_path: Path
) -> None:
    report, records = written(worker, registry, tmp_path, REQUESTS)
    assert report == PredictReport(num_answered=6, num_failed=0, num_kept=0)
    assert [record["custom_id"] for record in records] == ["base", "first", "second", "text", "two", "mine"]
    for sent, record in zip(REQUESTS, records, strict=True):
        request = json.loads(sent)
        assert record["error"] is None and record["response"]["status_code"] == 200
        assert record["id"].startswith("batch_req_") and record["response"]["request_id"]
        body = {"model": "tiny", "max_tokens": 6, **request["body"]}
        expected = client.post(request["url"], json=body).json()
        found = record["response"]["body"]
        for name in ("choices", "usage", "model", "object", "system_fingerprint"):
            assert found[name] == expected[name]
    texts = [record["response"]["body"]["choices"][0]["message"]["content"] for record in records[:3]]
    assert len(set(texts)) == 3


def test_a_bad_line_costs_itself(worker: Worker, registry: ShelfRegistry, tmp_path: Path) -> None:
    report, records = written(worker, registry, tmp_path, [REQUESTS[0], *BAD, *REFUSED, REQUESTS[1]])
    assert report == PredictReport(num_answered=2, num_failed=len(BAD) + len(REFUSED), num_kept=0)
    assert all(record["response"]["status_code"] == 200 for record in (records[0], records[-1]))
    for number, (record, (code, custom_id)) in enumerate(zip(records[1:], BAD.values(), strict=False), start=2):
        assert (record["response"], record["error"]["code"], record["custom_id"]) == (None, code, custom_id)
        assert f"line {number}" in record["error"]["message"]
    for record, (status, param) in zip(records[1 + len(BAD) :], REFUSED.values(), strict=False):
        assert record["error"] is None
        assert record["response"]["status_code"] == status
        assert record["response"]["body"]["error"]["param"] == param


def test_an_interrupted_batch_continues_with_each_line_once(
    worker: Worker, registry: ShelfRegistry, tmp_path: Path
) -> None:
    _, whole = written(worker, registry, tmp_path, [*REQUESTS, *BAD])
    content = (tmp_path / "out.jsonl").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "out.jsonl").write_bytes(content[:length])
        report, records = written(worker, registry, tmp_path, [*REQUESTS, *BAD])
        assert report.num_kept == content[:length].count(b"\n")
        assert [record["custom_id"] for record in records] == [record["custom_id"] for record in whole]
        assert records[: report.num_kept] == whole[: report.num_kept]
    with pytest.raises(DataError, match="other lines"):
        written(worker, registry, tmp_path, [line("another", model="tiny"), *REQUESTS])


def test_names_keep_their_meaning_for_the_whole_file(worker: Worker, registry: ShelfRegistry) -> None:
    catalog = Catalog("tiny", registry, worker.prepare)
    mine = AdapterRef("runs/mine#1", Path("runs/mine"))
    names = PinnedNames.of(catalog, ["demo", "nobody", "runs/mine"], {"runs/mine": mine})
    registry.point("demo", "champion", 2)
    catalog.refresh()
    assert names.meaning("demo").adapter.version == 1
    assert names.meaning("runs/mine").adapter is mine
    assert names.meaning("tiny").adapter is None


@pytest.mark.parametrize(
    ("first", "is_batch"),
    [
        (REQUESTS[0], True),
        ("{broken\n" + REQUESTS[0], True),
        ('{"prompt": "x", "custom_id": "1", "body": {}}', False),
        ('{"prompt": "x"}\n' + REQUESTS[0], False),
        ("[]", False),
    ],
)
def test_the_lines_say_what_they_are(first: str, is_batch: bool) -> None:
    assert are_batch_lines(each.encode() for each in first.split("\n")) is is_batch


def test_doubles_are_found_among_good_lines_only() -> None:
    lines = [BatchLine.parse(n, each.encode()) for n, each in enumerate([line("a", "/v1/no"), line("a"), line("a")], 1)]
    assert [each.error and each.error.code for each in without_doubles(lines)] == [
        "invalid_url",
        None,
        "duplicate_custom_id",
    ]
