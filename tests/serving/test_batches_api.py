"""Files and batches, asked with OpenAI's own client: answered in the background, cancelled, continued after a kill."""

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from openai.types import Batch
from typing_extensions import override

from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.api.keys import KeyFile, Keyring
from didact.serving.batch.routes import Batches
from didact.serving.batch.store import ACTIVE
from didact.serving.engine.protocol import EngineStats
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from didact.spec import BatchesSpec
from tests.fakes.backends import FallibleBackend
from tests.fakes.registry import ShelfRegistry

COMPLETIONS = "/v1/completions"


def line(custom_id: str, url: str = COMPLETIONS, **body: Any) -> str:
    body = {"prompt": custom_id, "max_tokens": 4, "temperature": 0, "model": "tiny", **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


@pytest.fixture()
def serve(worker: Worker, registry: ShelfRegistry, tmp_path: Path) -> Callable[..., TestClient]:
    """A gateway with batches in one folder; call it again for the next start of the server."""

    def build(**limits: Any) -> TestClient:
        spec = BatchesSpec(folder=str(tmp_path / "batches"), **{"concurrency": 3, **limits})
        keys = tmp_path / "keys.json"
        settings = GatewaySettings(max_new_tokens=8, keys_file=keys if keys.is_file() else None)
        catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=0.02)
        app = build_gateway(worker, catalog, settings, extensions=[Batches(spec)])
        return TestClient(app, raise_server_exceptions=False)

    return build


@pytest.fixture()
def http(serve: Callable[..., TestClient]) -> Iterator[TestClient]:
    with serve() as each:
        yield each


def client_of(http: httpx.Client, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key=key, http_client=http, max_retries=0)


def begin(client: openai.OpenAI, lines: list[str], **changes: Any) -> Batch:
    content = io.BytesIO(("\n".join(lines) + "\n").encode())
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    body: dict[str, Any] = {"endpoint": COMPLETIONS, "completion_window": "24h", **changes}
    return client.batches.create(input_file_id=file.id, **body)


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + 60
    while (now := client.batches.retrieve(batch.id)).status in ACTIVE:
        assert time.monotonic() < deadline, now
    return now


def records(client: openai.OpenAI, number: str | None) -> dict[str, dict[str, Any]]:
    assert number is not None
    found = [json.loads(each) for each in client.files.content(number).text.splitlines()]
    assert len({each["custom_id"] for each in found}) == len(found)
    return {each["custom_id"]: each for each in found}


def test_a_batch_is_answered_as_the_api_answers(http: TestClient) -> None:
    client = client_of(http)
    lines = [line("a"), line("b", model="demo:2"), line("c", model="nobody"), line("d", n=2, seed=1, temperature=1.0)]
    batch = begin(client, lines, metadata={"night": "1"})
    assert (batch.object, batch.status, batch.metadata) == ("batch", "validating", {"night": "1"})
    done = ended(client, batch)
    assert (done.status, done.errors) == ("completed", None)
    counts = done.request_counts
    assert counts is not None and (counts.total, counts.completed, counts.failed) == (4, 3, 1)
    assert done.in_progress_at and done.completed_at and done.expires_at == done.created_at + 86_400
    answered, refused = records(client, done.output_file_id), records(client, done.error_file_id)
    assert answered.keys() == {"a", "b", "d"} and refused.keys() == {"c"}
    for sent in lines[:2]:
        body = json.loads(sent)["body"]
        expected = client.completions.create(**body).choices[0].text
        found = answered[json.loads(sent)["custom_id"]]["response"]["body"]
        assert found["choices"][0]["text"] == expected and found["model"] == body["model"]
    assert len(answered["d"]["response"]["body"]["choices"]) == 2
    assert refused["c"]["response"]["status_code"] == 404
    assert [each.id for each in client.batches.list()] == [batch.id]
    files = {each.id: each for each in client.files.list()}
    assert files.keys() == {batch.input_file_id, done.output_file_id, done.error_file_id}
    assert files[str(done.output_file_id)].purpose == "batch_output"
    assert client.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


def test_what_is_no_batch_fails_as_a_whole_and_says_why(http: TestClient) -> None:
    client = client_of(http)
    bad = [line("a"), "{broken", line("a"), line("x", "/v1/chat/completions"), '{"custom_id": "y"}']
    failed = ended(client, begin(client, bad))
    assert failed.status == "failed" and failed.output_file_id is None and failed.errors is not None
    told = [(each.line, each.code) for each in failed.errors.data or []]
    assert told == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "mismatched_endpoint"),
        (5, "missing_required_parameter"),
    ]
    empty = ended(client, begin(client, [""]))
    assert empty.errors is not None and (empty.errors.data or [])[0].code == "invalid_file"


def test_a_cancelled_batch_keeps_what_was_answered(http: TestClient) -> None:
    client = client_of(http)
    lines = [line("first"), *(line(f"r{number}", max_tokens=500, ignore_eos=True) for number in range(200))]
    batch = begin(client, lines)
    while not client.batches.retrieve(batch.id).in_progress_at:
        pass
    assert client.batches.cancel(batch.id).status == "cancelling"
    gone = ended(client, batch)
    assert gone.status == "cancelled" and gone.cancelled_at and gone.request_counts is not None
    assert gone.request_counts.completed < 200
    if gone.output_file_id is not None:
        assert len(records(client, gone.output_file_id)) == gone.request_counts.completed
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(ended(client, begin(client, [line("a")])).id)


def test_the_next_start_goes_on_with_each_line_once(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    lines = [line(f"r{number}", max_tokens=40, ignore_eos=True) for number in range(30)]
    with serve() as http:
        batch = begin(client_of(http), lines)
        place = tmp_path / "batches" / "batches" / batch.id
        while not (place / "output.jsonl").is_file():
            assert http.get("/health").status_code == 200
    before = (place / "output.jsonl").read_bytes()
    kept = [json.loads(each) for each in before.splitlines()]
    assert 0 < len(kept) < 30
    (place / "output.jsonl").write_bytes(before + b'{"id": "cut of')  # as a kill leaves it
    with serve() as http:
        client = client_of(http)
        assert client.batches.retrieve(batch.id).status == "in_progress"
        done = ended(client, batch)
        answered = records(client, done.output_file_id)
    assert done.status == "completed" and answered.keys() == {f"r{number}" for number in range(30)}
    assert all(answered[each["custom_id"]] == each for each in kept)


def test_a_kill_while_results_become_files_loses_none(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    with serve() as http:
        client = client_of(http)
        done = ended(client, begin(client, [line("a")]))
        expected = records(client, done.output_file_id)
    place = tmp_path / "batches" / "batches" / done.id
    record = json.loads((place / "batch.json").read_text())
    (place / "batch.json").write_text(json.dumps({**record, "status": "finalizing"}))
    (tmp_path / "batches" / "files" / f"{done.output_file_id}.data").rename(place / "output.jsonl")
    with serve() as http:
        client = client_of(http)
        again = ended(client, done)
        assert (again.status, again.output_file_id) == ("completed", done.output_file_id)
        assert records(client, again.output_file_id) == expected


def test_a_batch_that_is_too_late_expires(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    with serve() as http:
        batch = begin(client_of(http), [line(f"r{n}", max_tokens=500, ignore_eos=True) for n in range(60)])
    place = tmp_path / "batches" / "batches" / batch.id / "batch.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "expires_at": int(time.time())}))
    with serve() as http:
        late = ended(client_of(http), batch)
    assert late.status == "expired" and late.request_counts is not None and late.request_counts.completed < 60


@pytest.mark.fault("X6")
def test_keys_see_their_own_and_a_revoked_key_answers_no_more(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ann_key, bob_key = keys.add("ann", models=["tiny"]), keys.add("bob")
    with serve() as http:
        assert http.get("/v1/files").status_code == http.post("/v1/batches", json={}).status_code == 401
        ann, bob = client_of(http, ann_key), client_of(http, bob_key)
        done = ended(ann, begin(ann, [line("a"), line("b", model="demo")]))
        assert records(ann, done.error_file_id)["b"]["response"]["status_code"] == 404  # not hers to ask
        assert list(bob.batches.list()) == list(bob.files.list()) == []
        for call in (
            lambda: bob.batches.retrieve(done.id),
            lambda: bob.batches.cancel(done.id),
            lambda: bob.files.content(str(done.output_file_id)),
            lambda: bob.files.delete(done.input_file_id),
            lambda: bob.batches.create(input_file_id=done.input_file_id, endpoint=COMPLETIONS, completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        waiting = begin(ann, [line(f"r{n}", max_tokens=200, ignore_eos=True) for n in range(30)])
    keys.revoke("ann")
    with serve() as http:
        deadline = time.monotonic() + 30
        place = tmp_path / "batches" / "batches" / waiting.id / "batch.json"
        while (record := json.loads(place.read_text()))["status"] in ACTIVE:
            assert time.monotonic() < deadline and http.get("/health").status_code == 200
    assert record["errors"][0]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input_file_id": "file-" + "0" * 32}, 404, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, 404, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"priority": 3}, 400, "priority"),
    ],
)
def test_bodies_of_batches_are_checked(http: TestClient, body: dict, status: int, param: str) -> None:
    whole = {"input_file_id": "file-" + "0" * 32, "endpoint": COMPLETIONS, "completion_window": "24h", **body}
    refused = http.post("/v1/batches", json=whole)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param), refused.text


def test_uploads_have_limits(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    with serve(max_file_mib=1, max_folder_gib=1.5 / 1024) as http:
        large = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("x", b"a" * (2**20 + 1))})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
        for form, said in [
            ({"data": {"purpose": "fine-tune"}, "files": {"file": ("x", b"a")}}, "purpose"),
            ({"data": {}, "files": {"file": ("x", b"a")}}, "purpose"),
            ({"data": {"purpose": "batch"}, "files": {"other": ("x", b"a")}}, "other"),
            ({"data": {"purpose": "batch"}}, "multipart"),
            ({"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "multipart"),
            ({"content": b"a", "headers": {"content-type": "multipart/form-data"}}, "multipart"),
        ]:
            refused = http.post("/v1/files", **form)
            assert refused.status_code == 400 and said in refused.json()["error"]["message"], refused.text
        assert list((tmp_path / "batches" / "files").iterdir()) == []  # nothing half received stays
        sizes = {2**20: 200, 500_000: 200, 200_000: 413}  # a whole one, half of what is left, and more than that
        for size, status in sizes.items():
            form = {"data": {"purpose": "batch"}, "files": {"file": ("x", b"a" * size)}}
            assert http.post("/v1/files", **form).status_code == status
        assert http.get("/v1/files/..%2f..%2fkeys.json").status_code == 404
        assert http.get("/v1/files?limit=0").status_code == 400
        assert http.get(f"/v1/files?limit={'9' * 5000}").status_code == 400  # more digits than Python reads
        page = http.get("/v1/files?limit=1&order=asc").json()
        assert page["has_more"] and http.get(f"/v1/files?after={page['last_id']}").json()["data"] != page["data"]


class CrowdedBackend(FallibleBackend):
    """Has requests of others, waiting or running, as a test wants."""

    waiting, running = 1, 0
    looks = 0

    @override
    async def stats(self) -> EngineStats:
        self.looks += 1
        return EngineStats(self.running, self.waiting, (), 0, 0, 0, 0, max_running=2)


def test_a_line_begins_only_while_nobody_waits_and_there_is_room(registry: ShelfRegistry, tmp_path: Path) -> None:
    backend = CrowdedBackend({})
    catalog = Catalog("tiny", registry, backend.prepare)
    batches = Batches(BatchesSpec(folder=str(tmp_path)))
    with TestClient(build_gateway(backend, catalog, GatewaySettings(), extensions=[batches])) as http:
        client = client_of(http)
        batch = begin(client, [line("a")])
        for backend.waiting, backend.running in ((1, 0), (0, 2)):
            until = backend.looks + 3
            while backend.looks < until:
                assert client.batches.retrieve(batch.id).status in ACTIVE
            assert backend.asked == []
        backend.running = 1
        assert ended(client, batch).status == "completed"
    assert len(backend.asked) == 1


def test_without_a_folder_the_routes_are_not_there(client: TestClient) -> None:
    assert client.get("/v1/files").status_code == client.post("/v1/batches", json={}).status_code == 404


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ('Content-Disposition: form-data; filename="x"', "multipart/form-data; boundary=B"),
        ("Content-Disposition: form-data", "multipart/form-data; boundary=B"),
        ('Content-Disposition: form-data; name="purpose"', "multipart/form-data; boundary*=utf-8''%E2%82%AC"),
    ],
)
def test_forms_without_names_or_with_odd_borders_are_refused(http: httpx.Client, head: str, kind: str) -> None:
    body = f"--B\r\n{head}\r\n\r\nEXTRA\r\n--B--\r\n".encode()
    answer = http.post("/v1/files", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text


def test_a_place_in_the_environment_gives_no_key_the_files_of_another() -> None:
    first, second = Keyring(plain=["one", "two"]), Keyring(plain=["two"])
    mine, theirs = (ring.find("two") for ring in (first, second))
    assert mine is not None and theirs is not None and mine.name == theirs.name
    before = first.find("one")
    assert before is not None and before.name != mine.name and second.named(before.name) is None
