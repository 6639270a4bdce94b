"""torch.compile (Inductor) with static shapes: one graph per shape, compiled by `warm`."""

import inspect
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.runtimes.base import Runtime
from icd_lib.runtimes.eager import PreparedModule, in_bf16

# Models of one class share the code that is compiled. Apart, each has its own graphs, whose number is limited, and its
# calls try no other model's guards. Older versions of torch have the limit alone, which is then a higher one.
APART = {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}
MOST_GRAPHS = 64  # of one class: torch's own 8 are fewer than the widths of a curve


@contextmanager
def compiling() -> Iterator[None]:
    """What runs here may compile; `ResourceError` where that fails, or where one more graph would not be compiled."""
    exceptions = torch._dynamo.exc
    try:
        # Past the recompile limit dynamo would run eager without a word, and eager would be timed as compiled.
        most = {} if APART else {"recompile_limit": MOST_GRAPHS}
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, **most):
            yield
    except (exceptions.TorchDynamoException, exceptions.FailOnRecompileLimitHit) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ResourceError(f"torch.compile failed here ({type(error).__name__}): {first_line}") from error


class PreparedCompiled(PreparedModule):
    @property
    def judged(self) -> nn.Module:
        """The module that is compiled: a graph for every shape of a text would take hours."""
        return self.module._orig_mod

    def warm(self, inputs: dict) -> None:
        with compiling():
            self.run(inputs)


class Compiled(Runtime):
    def check(self) -> None:
        super().check()
        compiler = os.environ.get("CXX", "g++")
        if not (shutil.which(compiler) or shutil.which("clang++")):
            raise ResourceError(f"torch.compile needs a C++ compiler and {compiler} is not on the PATH; install g++")

    def reset(self) -> None:
        """Graphs of earlier models count towards the recompile limit."""
        torch.compiler.reset()

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedCompiled:
        self.check()
        prepared = PreparedCompiled(torch.compile(self.form(model), dynamic=False, **APART))
        prepared.warm(example_inputs)
        return prepared

    def form(self, model: nn.Module) -> nn.Module:
        """What is compiled."""
        return model.eval()


class CompiledBf16(Compiled):
    def form(self, model: nn.Module) -> nn.Module:
        return in_bf16(model)


RUNTIME = Compiled("compile", "torch.compile (Inductor), fp32, one graph per shape")
BF16 = CompiledBf16(
    "compile_bf16", "torch.compile (Inductor), bf16 weights, one graph per shape", "bf16", tolerance=0.15
)
