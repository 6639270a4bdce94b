"""llama.cpp on a GGUF file, as a process of its own: a peer, and never a dependency.

The process runs in this environment where it has llama-cpp-python, else in the one that ICD_LLAMACPP_PYTHON names (its
interpreter), else in the one of `make test-exports`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import nn

from icd_lib.decoding import llamacpp_child, llamacpp_quantize
from icd_lib.decoding.base import Decoder, DecodeRuntime
from icd_lib.decoding.prompt import Prompt, read_prompt
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.paths import project_root, user_path

VARIABLE = "ICD_LLAMACPP_PYTHON"
_PACKAGE = "llama_cpp"


def find_python() -> str | None:
    """The interpreter of an environment with llama-cpp-python; None where there is none."""
    if importlib.util.find_spec(_PACKAGE) is not None:
        return sys.executable
    if named := os.environ.get(VARIABLE):
        return named
    other = project_root() / ".venv-exports" / "llamacpp"
    return str(other / "bin" / "python") if any(other.glob(".installed-*")) else None


class LlamaCppDecoder(Decoder):
    """told: what the process said of the model: vocabulary, positions, bytes, version."""

    def __init__(self, process: subprocess.Popen, told: dict, texts: int, context: int):
        super().__init__()
        self._input, self._output = pipes_of(process)
        self._process, self._texts, self._new = process, texts, True
        self.told, self.positions, self.weight_bytes = told, min(told["positions"], context), told["bytes"]

    def _prefill(self, prompt: Prompt) -> np.ndarray:
        self._check(prompt)
        seen = np.ones_like(prompt.ids, dtype=bool) if prompt.mask is None else prompt.mask.astype(bool)
        rows = np.broadcast_to(np.arange(len(seen))[:, None], seen.shape)
        return self._ask(np.stack([prompt.ids[seen], rows[seen], prompt.positions[seen]], axis=1))

    def _step(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self._ask(np.stack([ids, np.arange(len(ids)), positions], axis=1))

    def whole(self, ids: np.ndarray) -> np.ndarray:
        """Logits (B, L, V) at every token of texts read at once; the texts are forgotten."""
        prompt = read_prompt(ids, None, self.positions)
        self._check(prompt)
        self.reset()
        rows = np.broadcast_to(np.arange(len(prompt.ids))[:, None], prompt.ids.shape)
        triples = np.stack([prompt.ids, rows, prompt.positions], axis=-1).reshape(-1, 3)
        logits = self._ask(triples, every=True)
        self.reset()
        return logits.reshape(*prompt.ids.shape, -1)

    def _check(self, prompt: Prompt) -> None:
        if len(prompt.ids) > self._texts:
            raise ConfigError(f"llama.cpp was opened for {self._texts} texts, not {len(prompt.ids)}; pass texts=")

    def _ask(self, triples: np.ndarray, every: bool = False) -> np.ndarray:
        """Logits (B, V) after tokens, each with its text and its place there, (N, 3); (N, V) of `every` token."""
        rows = len(triples) if every else int(triples[:, 1].max()) + 1
        asked = json.dumps({"n": len(triples), "new": self._new, "every": every}).encode() + b"\n"
        self._new = False
        try:
            self._input.write(asked + triples.astype(np.int32).tobytes())
            self._input.flush()
        except BrokenPipeError as error:
            raise ResourceError("the process of llama.cpp has ended; prepare the decoder again") from error
        _read_line(self._process, self._output)
        wanted = rows * self.told["vocabulary"]
        return np.frombuffer(self._output.read(4 * wanted), np.float32).reshape(rows, -1)

    def _forget(self) -> None:
        self._new = True

    def close(self) -> None:
        super().close()
        self._input.close()
        self._process.wait(timeout=60)
        self._output.close()


def pipes_of(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    """What is written to and read from a process that was opened with pipes."""
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def _read_line(process: subprocess.Popen, output: IO[bytes]) -> dict:
    line = output.readline()
    if not line:
        raise ResourceError(
            f"the process of llama.cpp ended with exit code {process.wait()}; prepare the decoder again"
        )
    told = json.loads(line)
    if "error" in told:
        raise ResourceError(f"llama.cpp: {told['error']}")
    return told


class LlamaCpp(DecodeRuntime):
    def check(self) -> None:
        self.python()

    def python(self) -> str:
        """The interpreter that has llama.cpp; `ResourceError` where there is none."""
        if (found := find_python()) is None:
            raise ResourceError(
                "llama.cpp needs the package llama-cpp-python, built from source: install it into an environment "
                f"and name that one's interpreter in {VARIABLE}, or run make test-exports"
            )
        return found

    def prepare(
        self,
        model: nn.Module | None,
        *,
        threads: int | None = None,
        file: Path | str | None = None,
        texts: int = 1,
        context: int = 4352,
        **_: Any,
    ) -> LlamaCppDecoder:
        """file: a GGUF, as it comes or as `icd.export(..., runtime="gguf")` wrote it; `model` is not looked at.

        texts: how many are decoded at once; context: places of the cache for each
        """
        python = self.python()
        if file is None:
            raise ConfigError('llama.cpp reads a GGUF file: pass file=, e.g. one that icd.export(runtime="gguf") wrote')
        path = user_path(file)
        if not path.is_file():
            raise ConfigError(f"no GGUF file {path}; pass the file that a package or icd.export wrote")
        options = {"threads": threads or torch.get_num_threads(), "texts": texts, "context": context}
        # -P: beside the script lie modules called as the packages are that it imports.
        words = [python, "-P", llamacpp_child.__file__, str(path), json.dumps(options)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            told = _read_line(process, pipes_of(process)[1])
        except ResourceError:
            process.kill()
            process.wait()
            raise
        return LlamaCppDecoder(process, told, texts, context)


def quantize_gguf(source: Path | str, target: Path | str, kind: str, threads: int = 1) -> Path:
    """Let llama.cpp write `source`, a GGUF in floats, as `kind`, e.g. Q4_K_M; `ResourceError` where it does not.

    Matrices whose columns are no multiple of a kind's block get another of llama.cpp's choice: look at the file.
    """
    words = [RUNTIME.python(), "-P", llamacpp_quantize.__file__, str(user_path(source)), str(user_path(target))]
    done = subprocess.run([*words, kind, str(threads)], capture_output=True, text=True)
    if done.returncode:
        raise ResourceError(f"llama.cpp did not write {kind}: {done.stderr.strip()[-300:]}")
    return user_path(target)


RUNTIME = LlamaCpp("llamacpp", "llama.cpp, its own blocks of 4 to 8 bits", precision="int4", tolerance=1.0)
