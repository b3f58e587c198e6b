"""Object storage that speaks its real protocol, served from threads of this process, filled by the vendors' clients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import boto3
import httpx
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "rows"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


class ObjectStore(Protocol):
    """A server with one bucket."""

    url: str
    """Of the bucket, such as `s3://rows`."""
    environment: dict[str, str]
    """By which a user's shell names server and credentials."""
    piece_bytes: int
    """The fewest bytes of a piece that is not the last."""

    def put(self, name: str, content: bytes) -> None:
        """Store an object, in place of what it held."""

    def put_in_pieces(self, name: str, pieces: Sequence[bytes]) -> None:
        """Store an object by an upload of several requests."""


class S3Store:
    """S3 by moto."""

    url = f"s3://{BUCKET}"
    piece_bytes = 5 << 20

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        # Without a machine's own credentials to ask for, a refusal comes at once.
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        key, secret, region = KEYS.values()
        place = {"endpoint_url": endpoint, "region_name": region}
        self._client = boto3.client("s3", aws_access_key_id=key, aws_secret_access_key=secret, **place)
        self._client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def put_in_pieces(self, name: str, pieces: Sequence[bytes]) -> None:
        place = {"Bucket": BUCKET, "Key": name}
        place["UploadId"] = self._client.create_multipart_upload(**place)["UploadId"]
        parts = [
            {"PartNumber": number, "ETag": self._client.upload_part(PartNumber=number, Body=piece, **place)["ETag"]}
            for number, piece in enumerate(pieces, start=1)
        ]
        self._client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **place)

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Refuse all keys in the block, for the server knows no user."""
        self._allow("0")
        try:
            yield
        finally:
            self._allow("inf")

    def _allow(self, unchecked_requests: str) -> None:
        httpx.post(f"{self.endpoint}/moto-api/reset-auth", content=unchecked_requests).raise_for_status()


class GcsStore:
    """Google's storage by an emulator that checks no credentials."""

    url = f"gs://{BUCKET}"
    piece_bytes = 256 << 10

    def __init__(self, endpoint: str) -> None:
        self.environment = {"STORAGE_EMULATOR_HOST": endpoint}
        place = {"project": "test", "client_options": {"api_endpoint": endpoint}}
        self._bucket = storage.Client(credentials=AnonymousCredentials(), **place).bucket(BUCKET)

    def put(self, name: str, content: bytes) -> None:
        self._bucket.blob(name).upload_from_string(content)

    def put_in_pieces(self, name: str, pieces: Sequence[bytes]) -> None:
        blob = self._bucket.blob(name, chunk_size=self.piece_bytes)
        blob.upload_from_string(b"".join(pieces))


@contextmanager
def serve_s3() -> Iterator[S3Store]:
    """Serve S3 until the block ends."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Store(f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def serve_gcs() -> Iterator[GcsStore]:
    """Serve Google's storage until the block ends."""
    with create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET) as server:
        yield GcsStore(f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
