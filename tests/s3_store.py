"""An S3 store over HTTP: the one at S3_TEST_ENDPOINT, or moto's server in this process."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest


def name_store(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Makes the environment name a store on loopback, and hides the user's own AWS settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-written-anywhere")


@dataclass(frozen=True)
class Bucket:
    """A bucket that only this test uses."""

    name: str
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, files: Mapping[str, bytes]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.client.put_object(Bucket=self.name, Key=key, Body=files[key]), files))

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def contents(self) -> dict[str, bytes]:
        return {key: self.client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in self.keys()}

    def delete(self, keys: Iterable[str]) -> None:
        with ThreadPoolExecutor(8) as pool:  # one request for all would need a checksum that not every store knows
            list(pool.map(lambda key: self.client.delete_object(Bucket=self.name, Key=key), keys))


@pytest.fixture(scope="session")
def mock_endpoint() -> Iterator[str]:
    """The URL of moto's server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket, which is reached through environment variables, as a user would."""
    import boto3  # late, as moto: a machine without them runs the tests that need no store
    from botocore.config import Config

    endpoint = os.environ.get("S3_TEST_ENDPOINT")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    else:
        name_store(monkeypatch, request.getfixturevalue("mock_endpoint"))
        monkeypatch.setattr("pipeline.output.lease.SETTLE_S", 0.0)
    config = Config(request_checksum_calculation="when_required")  # Swift refuses others
    client = boto3.Session().client("s3", config=config)
    bucket = Bucket(f"shardtalk-{uuid.uuid4().hex}", client)
    region = client.meta.region_name
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=bucket.name, **elsewhere)
    yield bucket
    bucket.delete(bucket.keys())
    client.delete_bucket(Bucket=bucket.name)
