"""A cluster's workers: what goes out and comes back, which errors, who may not work."""

import json
import platform
import sys

import pytest

from rrtf import cluster

NAME = f"{__name__}:double"


def version():
    return "1"


def double(message, cpus):
    if message["n"] == 3:
        raise ValueError("three: expected another number")
    if message["n"] == 4:
        raise FileNotFoundError("four is not here")
    return {"twice": 2 * message["n"], "cpus": cpus}


@pytest.fixture
def worker():
    found = cluster._Worker()
    assert cluster._value(found.begin(NAME, "1", 2)) is None
    return found


def test_a_worker_does_what_it_is_named_and_speaks_json(worker):
    answer = worker.do(json.dumps({"n": 21}))
    assert isinstance(answer, str) and cluster._value(answer) == {"twice": 42, "cpus": 2}


def test_errors_come_back_as_they_were_and_name_the_node_where_it_may_be_at_fault(worker):
    with pytest.raises(ValueError, match=r"^three: expected another number$"):
        cluster._value(worker.do('{"n": 3}'))
    with pytest.raises(FileNotFoundError, match=rf"^node {platform.node()}: four is not here$"):
        cluster._value(worker.do('{"n": 4}'))


def test_a_node_with_another_version_or_without_the_code_may_not_work():
    with pytest.raises(RuntimeError, match=r"node .*: another version of rrtf"):
        cluster._value(cluster._Worker().begin(NAME, "2", 1))
    with pytest.raises(ImportError, match=r"node .*: No module named 'rrtf.nothing'"):
        cluster._value(cluster._Worker().begin("rrtf.nothing:work", "1", 1))


def test_a_missing_ray_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rrtf\[ray\]'"):
        cluster.spread(double, [1], message=dict, finished=print)
