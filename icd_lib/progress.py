"""Saying how far a long step has come, without flooding the log."""

from collections.abc import Callable


def follow(progress: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """A (done, total) callback that says one line per quarter."""
    said = set()

    def report(done: int, total: int) -> None:
        quarter = 4 * done // max(total, 1)
        if quarter and quarter not in said:
            said.add(quarter)
            progress(f"{what}: {25 * quarter} %")

    return report
