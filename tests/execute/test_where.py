"""Where points run when nobody says it: on local workers only where Dask is there and more than one has work."""

import pytest

from icd_lib.execute import where as module
from icd_lib.execute.where import AUTO, EACH_BYTES, HERE, chosen_cluster, local_workers


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine of so many cores and so much free memory, with Dask or without."""

    def be(cores=4, memory=100 * EACH_BYTES, dask=True):
        monkeypatch.setattr(module, "_usable_cores", lambda: cores)
        monkeypatch.setattr(module, "free_memory", lambda: memory)
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object() if dask else None)

    return be


def choose(asked, points):
    said = []
    return chosen_cluster(asked, points, said.append), said


@pytest.mark.parametrize(
    ("cores", "memory", "points", "workers"),
    [(4, 100, 9, 4), (4, 100, 3, 3), (4, 2.5, 9, 2), (1, 100, 9, 1), (4, 0.1, 9, 1), (4, 100, 1, 1)],
)
def test_workers_are_limited_by_points_cores_and_memory(machine, cores, memory, points, workers):
    machine(cores, int(memory * EACH_BYTES))
    assert local_workers(points) == workers
    assert choose(AUTO, points)[0] == (("local", workers) if workers > 1 else (None, 1))


def test_the_choice_is_said_and_how_to_undo_it(machine):
    machine()
    assert choose(AUTO, 9)[1] == ["4 local workers solve points at once; --cluster none runs one point after the other"]
    machine(cores=1)
    assert choose(AUTO, 9) == ((None, 1), []), "one core: nothing to gain, nothing to say"


def test_without_dask_points_run_here_and_the_extra_is_named(machine):
    machine(dask=False)
    where, said = choose(AUTO, 9)
    assert where == (None, 1) and "pip install 'icd-lib[cluster]'" in said[0] and "one after the other" in said[0]
    machine(cores=1, dask=False)
    assert choose(AUTO, 9) == ((None, 1), [])


def test_what_is_asked_for_is_done(machine):
    machine()
    assert choose(HERE, 9) == choose(None, 9) == ((None, 1), [])
    assert choose("local", 3) == (("local", 3), []) and choose("tcp://head:8786", 9) == (("tcp://head:8786", 1), [])
