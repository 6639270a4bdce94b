"""Execute one notebook in a fresh kernel of this interpreter and keep the evidence, whatever happens.

The executed notebook and its HTML page appear only when they are whole: papermill works on a hidden file beside them.
"""

import ast
import difflib
import logging
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from icd_lib import errors
from icd_lib.errors import ArtifactError, ConfigError, IcdError, InternalError, ResourceError
from icd_lib.execute.kernel_server import KernelServer
from icd_lib.scrub.text import scrub_strings
from icd_lib.storage.atomic import atomic_write, write_error

_DISK_FULL = re.compile(r"\[Errno (28|122)\]|No space left on device", re.IGNORECASE)
# nbformat's NotJSONError is a ValueError; the others come from JSON that is not of a notebook's shape.
_NO_NOTEBOOK = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError)
_NO_NOTEBOOK += (nbformat.ValidationError,)
_OUT_OF_MEMORY = {"MemoryError", "_ArrayMemoryError", "OutOfMemoryError"}


@dataclass(frozen=True)
class CellFailure:
    """The first error of an executed notebook: source cell (counted from 1), its first line, name and text."""

    cell: int
    line: str
    ename: str
    evalue: str

    def to_error(self, notebook: str) -> IcdError:
        """The error of the same class that the cell raised (`InternalError` if it is none of ours)."""
        text = re.sub(r"^\[E_\w+\] ", "", self.evalue)
        where = f"{notebook}, cell {self.cell} (`{self.line}`)"
        known = getattr(errors, self.ename, None)
        if isinstance(known, type) and issubclass(known, IcdError):
            return known(f"{where} failed: {text}")
        if _DISK_FULL.search(text):
            return ArtifactError(f"{where} failed: the disk is full; free some space or choose another --out ({text})")
        if self.ename in _OUT_OF_MEMORY:
            return ResourceError(f"{where} ran out of memory: {text}")
        return InternalError(f"{where} failed with {self.ename}: {text}")


def check_parameters(path: Path, given: dict) -> None:
    """Raise `ConfigError` unless the notebook has one `parameters` cell that assigns every name in `given`."""
    notebook = read_notebook(path)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        why = error.message[:300]
        raise ArtifactError(f"{path} is not a notebook ({why}); restore it from the repository") from error
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ConfigError(f"{path.name} needs exactly one cell tagged 'parameters', it has {len(cells)}")
    try:
        body = ast.parse(cells[0].source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the parameters cell of {path.name} is not Python: {error}") from error
    targets = [t for node in body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{path.name} has no parameter {name!r}{hint} It has: {', '.join(sorted(names))}")
        if not _is_text(given[name]):
            raise ConfigError(f"{name} is {given[name]!r}, which has characters that are no text; rename it")


def _is_text(value) -> bool:
    """Whether a notebook, which is UTF-8, can hold a parameter: a file's name need not be text."""
    if isinstance(value, list):
        return all(map(_is_text, value))
    return not isinstance(value, str) or value.isascii() or value == value.encode("utf-8", "replace").decode()


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook as nbformat 4; `ArtifactError` if it is missing or not one."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ArtifactError(f"cannot read the notebook {path}: {error.strerror}") from error
    except _NO_NOTEBOOK as error:
        raise ArtifactError(f"{path} is truncated or not a notebook; restore it from the repository") from error


def execute(
    source: Path,
    target: Path,
    parameters: dict,
    *,
    cwd: Path,
    timeout_s: float,
    echo: Callable[[str], None] = print,
    home: str = "index.html",
    server: KernelServer | None = None,
) -> None:
    """Run `source` with `parameters`; write the executed notebook to `target` and its page beside it.

    `echo` gets the notebook's printed lines as they come; `timeout_s` limits the whole notebook; the kernel comes from
    `server` where one is given. Raises the error that a cell raised, `ResourceError` on a time-out or a dead kernel,
    and lets KeyboardInterrupt through; in every case the kernel is gone and what was executed is kept.
    """
    check_parameters(source, parameters)
    partial = target.with_name(f".{target.stem}.running.ipynb")
    lines = LineWriter(echo)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _execute(source, partial, parameters, cwd, timeout_s, lines, server)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        lines.close()
        _publish(partial, target, home)


def _execute(
    source: Path,
    partial: Path,
    parameters: dict,
    cwd: Path,
    timeout_s: float,
    lines: "LineWriter",
    server: KernelServer | None,
) -> None:
    if server is not None:
        server.start()  # it imports while this process does
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    from icd_lib.execute.kernel_manager import own_kernel

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # what it would log is in our own messages
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix="icd-kernel-") as scratch:
        try:
            papermill.execute_notebook(
                _no_fields(source),
                _no_fields(partial),
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=lines,
                cwd=cwd,
                kernel_manager_class=own_kernel(scratch, server),
                shutdown_kernel="immediate",
                timeout_func=lambda cell: max(1, round(deadline - time.monotonic())),
            )
        except papermill.PapermillExecutionError as error:
            failure = _failure(partial, error)
            if failure.ename == "KeyboardInterrupt":
                raise KeyboardInterrupt from error
            raise failure.to_error(source.name) from error
        except CellTimeoutError as error:
            raise ResourceError(
                f"{source.name} took longer than {timeout_s:g} s and was stopped; "
                "raise the limit with --override stage_timeout_s=SECONDS"
            ) from error
        except DeadKernelError as error:
            raise ResourceError(
                f"the kernel of {source.name} died, most likely for want of memory; free some, or use --quick"
            ) from error
        except RuntimeError as error:  # jupyter_client's word for a kernel that does not answer
            raise ResourceError(f"the kernel of {source.name} did not start: {error}") from error


def _no_fields(path: Path) -> str:
    """papermill formats paths: braces must be doubled to be taken as they are."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _failure(partial: Path, error) -> CellFailure:
    """What papermill's error says, its cell counted from 1 as in the source notebook."""
    executed = read_notebook(partial)
    code = [c for c in executed.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    before = code[: error.cell_index + 1]
    injected = sum("injected-parameters" in cell.metadata.get("tags", []) for cell in before)
    line = next((text.strip() for text in error.source.splitlines() if text.strip()), "")
    return CellFailure(error.cell_index + 1 - injected, line, error.ename, error.evalue)


def _publish(partial: Path, target: Path, home: str) -> None:
    """Turn papermill's working file into the scrubbed notebook and its page, and remove it."""
    from icd_lib.execute.html import to_html

    if not partial.exists():
        return
    try:
        notebook = nbformat.from_dict(scrub_strings(read_notebook(partial)))
    except ArtifactError:
        # Cut off while papermill was writing it (a full disk): there is nothing whole to keep.
        partial.unlink()
        return
    _join_streams(notebook)
    atomic_write(target, nbformat.writes(notebook) + "\n")
    atomic_write(target.with_suffix(".html"), to_html(notebook, target.stem, home))
    partial.unlink()


def _join_streams(notebook: nbformat.NotebookNode) -> None:
    """Join neighbouring pieces of one stream: live output arrives in as many pieces as it was flushed."""
    for cell in notebook.cells:
        joined: list = []
        for output in cell.get("outputs", []):
            last = joined[-1] if joined else {}
            if output.output_type == "stream" and output.get("name") == last.get("name"):
                last["text"] += output["text"]
            else:
                joined.append(output)
        if "outputs" in cell:
            cell["outputs"] = joined


class LineWriter:
    """A file-like object that hands over whole lines as soon as they are complete."""

    def __init__(self, echo: Callable[[str], None]):
        self.echo = echo
        self.rest = ""

    def write(self, text: str) -> None:
        """Take a piece of text of any length."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._show(line)

    def _show(self, line: str) -> None:
        shown = line.rstrip().rpartition("\r")[2]  # of a line that rewrote itself, the last state
        if shown:
            self.echo(shown)

    def flush(self) -> None:
        """Nothing to do: lines are handed over as they come."""

    def close(self) -> None:
        """Hand over what is left without a line end."""
        self._show(self.rest)
        self.rest = ""
