"""What is known of a dense model: computed once, and kept where the caller says."""

import torch

from icd_lib.transforms import observed as module
from tests.tiny_problems import small_problem


def test_moments_are_kept_where_the_inputs_say_and_taken_from_there(tmp_path, monkeypatch):
    file = tmp_path / "moments.safetensors"
    first = small_problem(keep_moments=file).inputs.observe()
    computed = first.moments
    assert file.is_file() and first.moments is computed
    monkeypatch.setattr(module, "consumer_moments", None)  # computing them again would fail
    again = small_problem(keep_moments=file).inputs.observe()
    assert all(torch.equal(again.moments[axis].gram, found.gram) for axis, found in computed.items())
    for axis, path in first.element_paths.items():
        assert again.element_paths[axis].order == path.order


def test_goals_and_teacher_states_are_those_of_the_model():
    observed = small_problem().inputs.observe()
    sums = list(observed.goals)
    assert len(sums) == len(list(observed.adapter.blocks())) and observed.goals is observed.goals
    with torch.no_grad():
        hidden = observed.model(**observed.distill_batches[1]).last_hidden_state
    assert torch.allclose(observed.teacher_states(1)[-1], hidden, atol=1e-5)
