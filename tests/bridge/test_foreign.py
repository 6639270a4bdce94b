"""A foreign .mlir file: read and described, and nothing is compiled before that is asked for."""

import numpy as np
import pytest

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from icd_lib.bridge import foreign  # noqa: E402
from icd_lib.bridge.load import open_iree  # noqa: E402
from icd_lib.errors import ArtifactError, ResourceError  # noqa: E402
from tests.bridge.modules import product  # noqa: E402

WEIGHT = np.random.default_rng(0).normal(size=(48, 64)).astype(np.float32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "theirs.mlir"
    path.write_text(product(WEIGHT))
    return path


def test_it_is_described_and_not_compiled(file, monkeypatch):
    monkeypatch.setattr(foreign, "lower", lambda *given: pytest.fail("it was compiled"))
    found = foreign.read_mlir(file)
    assert list(found.functions) == ["main"] and "tensor<2x4x48xf32>" in found.functions["main"]
    assert found.operators["stablehlo.dot_general"] == 1 and found.weights == ("w",)
    assert [item.name for item in file.parent.iterdir()] == ["theirs.mlir"]


def test_it_is_compiled_when_that_is_asked_for(file, tmp_path):
    x = np.random.default_rng(1).normal(size=(2, 4, 64)).astype(np.float32)
    artifact = foreign.read_mlir(file).compile(tmp_path / "theirs.vmfb")
    assert np.allclose(open_iree(str(artifact), 1)(x), x @ WEIGHT.T, atol=1e-4)


def test_what_is_no_module_is_named_with_its_fault(tmp_path):
    path = tmp_path / "broken.mlir"
    path.write_text("module { func.func @main( }")
    with pytest.raises(ArtifactError, match=r"broken\.mlir is no MLIR"):
        foreign.read_mlir(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError, match=r"broken\.mlir is no text \(byte 0\)"):
        foreign.read_mlir(path)
    with pytest.raises(ArtifactError, match=r"no file gone\.mlir"):
        foreign.read_mlir(tmp_path / "gone.mlir")


def test_what_the_compiler_refuses_is_said(tmp_path):
    path = tmp_path / "odd.mlir"
    path.write_text(
        "module { func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {\n"
        "  %0 = stablehlo.custom_call @nobody(%x) : (tensor<2xf32>) -> tensor<2xf32>\n  return %0 : tensor<2xf32>\n} }"
    )
    with pytest.raises(ResourceError, match="IREE cannot compile the module: .*error:"):
        foreign.read_mlir(path).compile(tmp_path / "odd.vmfb")
