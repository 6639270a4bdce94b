"""float32 is multiplied in full within; whatever the caller had set, in either of torch's two ways, is back after."""

import pytest
import torch
from torch import backends, nn

from icd_lib.codesign.surroundings import our_own
from icd_lib.runtimes.exactness import multiply_in_full, read_exactness, restore_exactness

OPERATIONS = (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)


def as_torch_starts():
    for backend in (backends, backends.cudnn, backends.mkldnn):
        backend.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for operation in OPERATIONS:
        operation.fp32_precision = "none"


@pytest.fixture(autouse=True)
def back():
    as_torch_starts()
    yield
    as_torch_starts()


SET = {
    "nothing": lambda: None,
    "products high": lambda: torch.set_float32_matmul_precision("high"),
    "products medium": lambda: torch.set_float32_matmul_precision("medium"),
    "products allowed": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "convolutions not": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "all of torch": lambda: setattr(backends, "fp32_precision", "tf32"),
    "all of torch in full": lambda: setattr(backends, "fp32_precision", "ieee"),
    "products, newer": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "products in full, newer": lambda: setattr(backends.cuda.matmul, "fp32_precision", "ieee"),
    "convolutions, newer": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "cudnn, newer": lambda: setattr(backends.cudnn, "fp32_precision", "ieee"),
    "the CPU's products": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "the CPU": lambda: setattr(backends.mkldnn, "fp32_precision", "bf16"),
}


@pytest.fixture(params=SET)
def caller(request):
    SET[request.param]()
    return SET[request.param]


def everything():
    return backends.fp32_precision, backends.cudnn.fp32_precision, backends.mkldnn.fp32_precision, read_exactness()


def test_within_everything_is_in_full_and_both_ways_can_be_read(caller):
    multiply_in_full()
    older, operations = read_exactness()
    assert older == ("highest", False) and set(operations) == {"ieee"}


def test_after_it_everything_is_the_callers(caller):
    before = everything()
    with our_own(nn.Linear(2, 2)) as ours:
        assert set(read_exactness()[1]) == {"ieee"}
        assert ours.call(everything) == before, "in a function of the caller's too"
        assert set(read_exactness()[1]) == {"ieee"}
    assert everything() == before


def test_what_followed_the_whole_of_torch_follows_it_again(caller):
    state = read_exactness()
    multiply_in_full()
    restore_exactness(state)
    backends.fp32_precision = "tf32"
    followed = read_exactness()
    as_torch_starts()
    caller()
    backends.fp32_precision = "tf32"
    assert followed == read_exactness()
