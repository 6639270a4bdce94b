"""A process whose user has no account: no name and no home folder, as in a container that runs as any number."""

import contextlib
import getpass
import os
import tempfile
from collections.abc import Iterator

from icd_lib.paths import home_folder


@contextlib.contextmanager
def some_account() -> Iterator[None]:
    """Inside the block this process and its children have a user name and a home folder.

    Libraries ask for both, and fail or write into a folder named `~` where there is none. A home that is missing is a
    temporary folder, so nothing that they keep there outlives the run.
    """
    given: dict[str, str] = {}
    with contextlib.ExitStack() as held:
        if home_folder() is None:
            given["HOME"] = held.enter_context(
                tempfile.TemporaryDirectory(prefix="icd-home-", ignore_cleanup_errors=True)
            )
        if user_name() is None:
            given["LOGNAME"] = f"uid{os.getuid()}"
        os.environ.update(given)
        try:
            yield
        finally:
            for name in given:
                os.environ.pop(name, None)


def user_name() -> str | None:
    """The name of the user; None where neither the environment nor the system says one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None
