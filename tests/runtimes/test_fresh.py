from types import SimpleNamespace

import pytest

from icd_lib.runtimes.fresh import _precision


class Compiled:
    def get_property(self, name):
        assert name == "INFERENCE_PRECISION_HINT"
        return SimpleNamespace(to_string=lambda: "bf16")


@pytest.mark.parametrize("request_of", [lambda: Compiled(), lambda: SimpleNamespace(get_compiled_model=Compiled)])
def test_the_precision_is_asked_of_the_compiled_model_also_where_optimum_holds_a_request(request_of):
    model = SimpleNamespace(request=None)
    model.compile = lambda: setattr(model, "request", request_of())
    assert _precision(model) == "bf16"
