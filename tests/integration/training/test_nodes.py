"""Several machines: here two that share a folder and a loopback address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.cache import store
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime import _nodes
from apf_tasks.runtime._nodes import (
    ADDRESS,
    WANTED,
    NodeRequest,
    claim_node_rank,
    live_calls,
    next_call,
    rendezvous_folder,
    request_nodes,
)
from tests.integration.training.test_ranks import LONGER, alone, folder, same_as_alone  # noqa: F401
from tests.integration.training.test_train_stage import train

TWO = RuntimeParams(device="cpu", nodes=2)


@pytest.mark.slow
def test_two_machines_train_as_one(
    folder: Path,  # noqa: F811
    tmp_path: Path,
    alone: dict[str, Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ADDRESS, "127.0.0.1")
    command = [sys.executable, "-m", "flows.cli.main", "join", "--patience", "0.5"]
    other = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    trained = train(folder, tmp_path / "out", params=LONGER, nodes=2)
    same_as_alone(trained, alone)
    said = other.communicate(timeout=1200)[0]
    assert "joins 127.0.0.1 as machine 2 of 2" in said
    assert said.rstrip().endswith("joined 1")
    assert not list((store.root() / "nodes").iterdir())


def test_a_call_is_joined_by_as_many_as_it_wants_and_only_while_it_lives() -> None:
    known: dict[Path, int] = {}
    with rendezvous_folder(TWO) as place:
        wanted = request_nodes(place, TWO, "cpu")
        assert wanted is not None
        assert live_calls(known) == []  # it may have been left by a process that is dead
        os.utime(place / WANTED, ns=(0, 1))
        assert live_calls(known) == [(place, wanted)]
        assert [claim_node_rank(place, wanted) for _ in range(2)] == [1, None]
    assert live_calls(known) == []
    assert claim_node_rank(place, wanted) is None


def test_waiting_for_a_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nodes, "POLL_SECONDS", 0.01)
    assert next_call({}, 0.05, []) is None
    assert next_call({}, float("inf"), [15]) is None


def test_one_machine_needs_no_meeting() -> None:
    with rendezvous_folder(RuntimeParams()) as place:
        assert store.root() not in place.parents
        assert request_nodes(place, RuntimeParams(), "cpu") is None
    assert not place.exists()


def test_torchrun_is_told_where_the_first_machine_is() -> None:
    wanted = NodeRequest(address="a", port=1234, nodes=3, devices=8, device="cuda")
    assert _nodes.torchrun_options(wanted, 2, 8, "cuda") == [
        "--nnodes=3",
        "--node-rank=2",
        "--nproc-per-node=8",
        "--master-addr=a",
        "--master-port=1234",
    ]
