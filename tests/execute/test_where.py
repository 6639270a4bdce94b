"""Where points run when nobody says it: on local workers only where Dask is there and more than one has work."""

import pytest

from icd_lib.execute import where as module
from icd_lib.execute.point import Job
from icd_lib.execute.where import (
    AUTO,
    EACH_BYTES,
    HERE,
    LOCAL,
    Place,
    chosen_cluster,
    chosen_place,
    comparison_of,
    local_workers,
    visible_devices,
)
from icd_lib.sweeps.plan import sweep_of


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


def jobs(base, tmp_path, device="cuda", repeat=(), **grid):
    overrides = {"device": device} if device else {}
    given = {
        "base": base,
        "grid": {"transform.rate": [0.2, 0.3], **grid},
        "overrides": overrides,
        "repeat": list(repeat),
    }
    return [Job(point, tmp_path, "out") for point in sweep_of(given, "mine").points]


@pytest.fixture
def place(machine, monkeypatch):
    """Where jobs run on a machine with so many GPUs."""
    machine()

    def of(asked, given, gpus):
        monkeypatch.setattr(module, "visible_devices", lambda: [str(number) for number in range(gpus)])
        said = []
        return chosen_place(asked, given, said.append), said

    return of


def test_bases_and_seeds_are_divided_among_gpus_and_what_is_compared_stays_together(place, tmp_path):
    two = jobs(["bert", "mamba"], tmp_path)
    assert len({comparison_of(job) for job in two}) == 2 < len(two)
    found, said = place(AUTO, two, 4)
    assert found == Place(LOCAL, 2, ("0", "1")) and "each with a GPU of its own" in said[0]
    assert place(AUTO, jobs("bert", tmp_path, repeat=[0, 1, 2]), 2)[0] == Place(LOCAL, 2, ("0", "1"))


def test_one_comparison_or_one_gpu_is_run_here(place, tmp_path):
    assert place(AUTO, jobs("bert", tmp_path), 4)[0] == Place()
    assert place(AUTO, jobs(["bert", "mamba"], tmp_path), 1)[0] == Place()
    assert place(LOCAL, jobs(["bert", "mamba"], tmp_path), 1)[0] == Place(LOCAL, 1, ("0",))
    assert place(LOCAL, jobs("bert", tmp_path), 0)[0] == Place(), "the points say that there is no GPU"


@pytest.mark.parametrize("device", ["cuda:1", "cpu and cuda"])
def test_points_that_cannot_be_divided_run_one_after_the_other_and_it_is_said(place, tmp_path, device):
    given = (
        jobs("bert", tmp_path, device)
        if device == "cuda:1"
        else [*jobs("bert", tmp_path), *jobs("mamba", tmp_path, None)]
    )
    found, said = place(AUTO, given, 4)
    assert found == Place() and "one after the other" in said[0]


def test_points_of_the_cpu_ask_for_no_gpu(place, tmp_path, monkeypatch):
    found, _ = place(AUTO, jobs(["bert", "mamba"], tmp_path, None), 4)
    assert found == Place(LOCAL, 4) and not found.devices
    assert place(HERE, jobs("bert", tmp_path), 4)[0] == Place()
    assert place("tcp://head:8786", jobs("bert", tmp_path), 4)[0] == Place("tcp://head:8786", 1)


def test_gpus_are_those_that_torch_may_use(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert visible_devices() == ["3", "GPU-ab"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert visible_devices() == []
