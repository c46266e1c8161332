"""The report on localhost, as JSON and for Prometheus."""

from __future__ import annotations

import json
import logging
import re
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from medddpm.errors import ConfigError
from medddpm.node.health import Health, health_endpoint, last_error, metrics_of

WELL = Health(
    healthy=True,
    series={"received": 1, "restored": 2, "sent": 0, "done": 5, "skipped": 3, "failed": 4},
    waiting=3,
    images_received=120,
    images_sent=64,
    free_gb=12.5,
    errors=[],
)


def test_metrics_are_in_the_format_of_prometheus() -> None:
    text = metrics_of(replace(WELL, last_error="x", last_error_time=1700000000.25))
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found == {
        'medddpm_node_series{state="received"}': "1",
        'medddpm_node_series{state="restored"}': "2",
        'medddpm_node_series{state="sent"}': "0",
        'medddpm_node_series{state="done"}': "5",
        'medddpm_node_series{state="skipped"}': "3",
        'medddpm_node_series{state="failed"}': "4",
        "medddpm_node_healthy": "1",
        "medddpm_node_series_waiting": "3",
        "medddpm_node_images_received_total": "120",
        "medddpm_node_images_sent_total": "64",
        "medddpm_node_free_disk_bytes": "12500000000",
        "medddpm_node_last_error_timestamp_seconds": "1700000000.25",
    }
    assert text.endswith("\n")
    for name in {re.split(r"[{ ]", line)[0] for line in found}:
        assert text.count(f"# HELP {name} ") == text.count(f"# TYPE {name} ") == 1


def get(port: int, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_two_pages() -> None:
    now = [WELL]
    with health_endpoint(0, lambda: now[0]) as port:
        status, kind, body = get(port, "/")
        assert (status, kind) == (200, "application/json")
        assert json.loads(body)["series"]["done"] == 5
        now[0] = replace(WELL, healthy=False, errors=["disk"])
        assert get(port, "/")[0] == 503
        status, kind, body = get(port, "/metrics")  # a scrape must not fail when the node is ill
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "medddpm_node_healthy 0" in body.splitlines()
        with pytest.raises(ConfigError, match="health port"), health_endpoint(port, lambda: WELL):
            pass


def test_the_last_warning_is_remembered() -> None:
    log = logging.getLogger("medddpm.node.anything")
    with last_error() as told:
        log.info("series a: done")
        assert (told.text, told.time) == ("", 0.0)
        log.warning("series %s: failed", "b")
    log.warning("later")
    assert told.text == "series b: failed"
    assert told.time > 1.7e9
