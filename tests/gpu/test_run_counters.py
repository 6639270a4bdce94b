"""Counters of a run's arms on a real board: one profile of the embedded Mamba, and windows of its energy."""

from dataclasses import replace

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.measure.board import Board
from icd_lib.measure.board_energy import board_windows, energy_figure
from icd_lib.measure.energy import NvmlCounter
from icd_lib.measure.profiled import count_arms, hit_figure, save_inputs
from icd_lib.measure.statistics import ratio_of_means
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.runtimes.cuda import cuda_runtimes

pytestmark = pytest.mark.gpu

INPUTS = {"input_ids": torch.randint(5, 100, (4, 64), generator=torch.Generator().manual_seed(0)), "use_cache": False}
ROW = replace(cuda_runtimes()["cuda_graph_bf16"], device="cuda")


@pytest.fixture(scope="module")
def mamba():
    return load_model(resolve_checkpoint(None, family="mamba"))[0]


def test_ncu_counts_a_warm_call_of_an_arm_in_a_process_of_its_own(mamba, tmp_path):
    folder = save_optimized(mamba, None, tmp_path / "dense")
    save_inputs(INPUTS, tmp_path / "inputs.safetensors")
    module = type(mamba).__module__
    found = count_arms(
        {"dense": folder},
        tmp_path / "inputs.safetensors",
        module,
        ROW,
        groups=[["dense"]],
        rounds=1,
        budget_s=120.0,
        timeout_s=120.0,
    )
    item = hit_figure(found, "dense")
    if item.is_missing and ("not on the PATH" in item.reason or item.reason.startswith("ncu: ")):
        pytest.skip(item.reason)
    assert not item.is_missing, item.reason
    assert 0 < item.value < 100 and item.n == 1 and "same kernels as in the graph" in item.method
    (record,) = found.arms["dense"].rounds
    layers = mamba.config.num_hidden_layers
    assert record.kernels >= 5 * layers and record.passes >= 1 and record.version
    read = found.arms["dense"].figures["l2_read_mb"].value
    weights_mb = 2 * sum(parameter.numel() for name, parameter in mamba.named_parameters() if "layers" in name) / 1e6
    assert read > 0.9 * weights_mb, "a call reads every weight of its layers, in bf16"


def test_energy_of_a_board_in_short_windows(mamba):
    try:
        counter, board = NvmlCounter("cuda"), Board("cuda")
    except ResourceError as error:
        pytest.skip(error.args[0])
    row = replace(cuda_runtimes()["cuda_eager_bf16"], device="cuda")
    call = row.prepare(mamba, INPUTS).call(INPUTS)
    kept = []
    joules, how = board_windows(
        {"dense": call, "dense_again": call}, 4 * 64, counter, board, windows=2, window_s=1.5, keep=kept.extend
    )
    item = energy_figure(joules["dense"], how)
    assert 0 < item.value < 1 and item.n == 2
    assert 20 < how.idle_w["before"].value < 1000 and how.board["dense"].readings >= 10
    assert how.integrated_rel is None or abs(how.integrated_rel) < 0.3
    assert abs(ratio_of_means(joules["dense_again"], joules["dense"])["value"]) < 0.2
    assert {"idle before", "dense", "dense_again", "idle after"} <= {reading.phase for reading in kept}


def test_a_mamba_is_captured_as_a_graph_with_its_flag_and_gives_what_eager_gives(mamba):
    eager = replace(cuda_runtimes()["cuda_eager_bf16"], device="cuda").prepare(mamba, INPUTS).run(INPUTS)
    captured = ROW.prepare(mamba, INPUTS)
    assert abs(captured.run(INPUTS) - eager).max() <= 0.02 * abs(eager).max()
