"""A page in a browser, where there is one: it is never wider than its window."""

import shutil
import subprocess

import pytest

from icd_lib.report.html import links, page, show
from icd_lib.report.table import Badges, Table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = "<script>const e = document.documentElement; document.title = `${e.scrollWidth} of ${e.clientWidth}`</script>"


@pytest.mark.skipif(BROWSER is None, reason="there is no browser here")
@pytest.mark.parametrize("width", [500, 900])
def test_a_page_is_as_wide_as_its_window_whatever_names_stand_on_it(tmp_path, width):
    name = f"layouts/layout-{'5e20d8aa41' * 7}.json"
    table = Table(name, [f"column {i} of many" for i in range(12)], [[name] * 12])
    body = f"<h1>{name}</h1><p>{name}</p>{links([(name, name)] * 6)}{show(table)}<pre>{name * 3}</pre>"
    path = tmp_path / "page.html"
    path.write_text(page("wide", body, Badges([])).replace("</body>", f"{MEASURE}</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},800", "--dump-dom"]
    options.append(f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run([BROWSER, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found, window = map(int, done.stdout.partition("<title>")[2].partition("</title>")[0].split(" of "))
    assert 0.9 * width < window and found <= window, "the page has a horizontal scrollbar"
