"""Parts of pages that scripts write: between `<!-- NAME: start -->` and `<!-- NAME: end -->`."""

from icd_lib.errors import ArtifactError


def with_marked(page: str, name: str, text: str) -> str:
    """The page with the part called `name` made anew; `ArtifactError` when its markers are missing.

    >>> with_marked("a\\n<!-- x: start -->\\nold\\n<!-- x: end -->\\nb", "x", "new")
    'a\\n<!-- x: start -->\\nnew\\n<!-- x: end -->\\nb'
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, opened, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ArtifactError(f"the page has no '{start}' … '{end}'; put the two markers back")
    return f"{before}{start}\n{text}\n{end}{after}"
