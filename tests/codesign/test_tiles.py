"""Axes that a mode leaves as they are for want of whole tiles are told, with the cure."""

import pytest
from tiny_problems import small_model

from icd_lib.codesign.options import Settings
from icd_lib.codesign.tiles import check_axes, fitting_tile, unfit_axes
from icd_lib.errors import ConfigError
from icd_lib.models.families import find_adapter


def unfit(width, mode, **settings):
    return unfit_axes(find_adapter(small_model(intermediate_size=width)), Settings(**settings), mode)


def test_an_ffn_of_100_with_tiles_of_16_is_told_to_linear_alone():
    assert unfit(100, "linear") == [
        "axes 'ffn.0', 'ffn.1': 100 FFN neurons are no whole number of tiles of 16, so linear leaves them as they are; "
        "set tile (transform.tile) to 10, which divides 100"
    ]
    assert unfit(100, "iterative") == unfit(100, "oneshot") == []
    assert unfit(100, "linear", tile=10) == unfit(96, "linear") == unfit(100, "linear", axes=("heads",)) == []


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
@pytest.mark.parametrize("width", [5, 16])
def test_one_tile_or_less_is_told_to_every_mode(width, mode):
    (line,) = unfit(width, mode)
    assert f"{width} FFN neurons are no more than one tile of 16, so {mode} leaves them" in line
    assert f"to {fitting_tile(width, 16)}, which" in line
    assert unfit(width, mode, tile=fitting_tile(width, 16)) == []


def test_kinds_that_the_model_does_not_have_are_refused_unless_one_is_there():
    adapter = find_adapter(small_model())
    check_axes(adapter, Settings(axes=("ffn", "inner")))
    with pytest.raises(ConfigError, match="takes kinds that BertModel has, heads, ffn; got inner, state"):
        check_axes(adapter, Settings(axes=("inner", "state")))
