"""Notifications that cannot be sent are warnings, and say nothing of the address."""

from __future__ import annotations

import logging
import socket

import pytest

from apf_tasks.errors import ParamsError
from apf_tasks.params.gate import NotifyParams
from apf_tasks.promotion.notices import resolved


def test_an_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "s3cret")
    assert resolved("https://chat.example/${TEAM_TOKEN}/x") == "https://chat.example/s3cret/x"
    with pytest.raises(ParamsError, match="expected the environment variable NO_TOKEN, found it is not set"):
        resolved("https://chat.example/${NO_TOKEN}")


def test_what_cannot_be_sent_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from flows.orchestration.notify import notify_on_failure, send_notification

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setenv("TEAM_TOKEN", "s3cret")
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/${{TEAM_TOKEN}}"
        with caplog.at_level(logging.INFO, logger="apf"):
            send_notification(NotifyParams(webhook=address), "refused", "reviews", "not better")
            send_notification(NotifyParams(webhook="${NO_TOKEN}"), "refused", "reviews", "not better")
            send_notification(NotifyParams(webhook=address, on=("promoted",)), "refused", "reviews", "not asked for")
            with pytest.raises(ZeroDivisionError), notify_on_failure(NotifyParams(webhook=address), "reviews"):
                raise ZeroDivisionError
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert [record.message.rpartition("(")[2] for record in caplog.records] == [
        "ConnectionError)",
        "ParamsError)",
        "ConnectionError)",
    ]
    assert "s3cret" not in caplog.text
    assert "the webhook was not notified that apf: reviews was refused" in caplog.text
