"""Figures: the binned graph keeps its weight, pictures carry alt text, missing data gives a reason."""

import subprocess
import sys
from itertools import combinations

import matplotlib
import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_factory import HOSTILE, write_run

from icd_lib.metric import not_measured
from icd_lib.report import graph_figures, loop_figures, measure_figures, setup_tables
from icd_lib.report.full_report import draw_all
from icd_lib.report.picture import COLOURS, MARKERS, SMALL, SPLIT_COLOURS, WIDTH, Picture, canvas, png_bytes, themed
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table, Verdict, badges


def test_binned_keeps_the_weight_and_follows_the_permutation():
    generator = np.random.default_rng(0)
    dense = generator.random((12, 12))
    graph, perm = sp.csr_array(dense), np.roll(np.arange(12), 1)  # a 12-cycle: direction matters
    assert np.allclose(graph_figures.binned(graph, perm, 12), dense[np.ix_(perm, perm)])
    coarse = graph_figures.binned(graph, perm, 4)
    assert np.allclose(coarse, dense[np.ix_(perm, perm)].reshape(4, 3, 4, 3).sum(axis=(1, 3)))


def test_every_figure_draws_with_alt_text(tmp_path):
    drawn = draw_all(Results.load(write_run(tmp_path / "bert")))
    assert all(isinstance(item, Picture) for item in drawn.values())
    assert len({item.name for item in drawn.values()}) == len(drawn)
    png, metadata = drawn["frontier"]._repr_png_()
    assert png.startswith(b"\x89PNG") and metadata["alt"] == drawn["frontier"].alt
    assert "iterative −40.0 % latency" in metadata["alt"].replace("-", "−")


@pytest.fixture
def drawings(monkeypatch):
    """Every figure that is rendered while the test runs."""
    rendered, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **named: rendered.append(self) or save(self, *args, **named)
    )
    return rendered


@pytest.mark.parametrize("language", [False, True])
def test_every_figure_is_legible_on_a_phone(tmp_path, drawings, language):
    drawn = draw_all(Results.load(write_run(tmp_path / "run", language=language)))
    assert len(drawings) == sum(isinstance(item, Picture) for item in drawn.values())
    for figure in drawings:
        assert figure.get_figwidth() == WIDTH
        small = {text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_fontsize() < SMALL}
        assert not small


def test_badges_stand_in_no_legend_title_or_panel(tmp_path, drawings):
    draw_all(Results.load(write_run(tmp_path / "run", quick=True)))
    for figure in drawings:
        (stamp,) = [text for text in figure.texts if "quick run" in text.get_text().replace("\n", " ")]
        box = stamp.get_window_extent()
        others = [*figure.legends, *figure.axes] + ([figure._suptitle] if figure._suptitle else [])
        assert not any(box.overlaps(other.get_tightbbox()) for other in others)
        assert 0 <= box.y0 and box.y1 <= figure.bbox.height and box.x1 <= figure.bbox.width


def test_the_theme_is_on_while_a_figure_is_drawn_and_only_then():
    before = dict(matplotlib.rcParams)
    sizes = themed(lambda: matplotlib.rcParams["font.size"])()
    assert sizes >= SMALL and dict(matplotlib.rcParams) == before


def test_the_same_drawing_gives_the_same_bytes():
    @themed
    def draw():
        figure, axes = canvas(2)
        axes.plot([0, 1], [1, 0])
        return png_bytes(figure)

    assert draw() == draw()


# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


@pytest.mark.parametrize("seen_as", [np.eye(3), PROTAN, DEUTAN], ids=["all cones", "no red cones", "no green cones"])
def test_colours_are_told_apart_by_the_colour_blind(seen_as):
    modes = {mode: np.array(to_rgb(COLOURS[mode])) for mode in MARKERS}
    splits = {split: np.array(to_rgb(colour)) for split, colour in SPLIT_COLOURS.items()}
    for colours in (modes, splits):
        shown = {name: np.clip(np.array(seen_as) @ colour**2.2, 0, 1) ** (1 / 2.2) for name, colour in colours.items()}
        for one, other in combinations(shown, 2):
            assert np.abs(shown[one] - shown[other]).max() > 0.15, (one, other)


def test_reading_results_needs_no_drawing_library():
    code = "import sys, icd_lib.report.headline, icd_lib.report.picture; sys.exit('seaborn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_data_there_is_a_reason_instead(tmp_path):
    empty = Results.load(tmp_path)
    drawn = draw_all(empty)
    assert all(isinstance(item, Missing) and item.reason for item in drawn.values())
    assert isinstance(loop_figures.loop_path(empty, "linear"), Missing)


def test_random_weights_draw_the_path_without_quality(tmp_path):
    results = Results.load(write_run(tmp_path / "bert", trained=False))
    assert isinstance(loop_figures.loop_path(results, "iterative"), Picture)
    assert measure_figures.quality_frontier(results).reason == "random weights"


def test_most_pruned_axis_is_drawn(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    results.solves["iterative"].widths.update({"ffn.0": 20, "ffn.1": 10})
    assert graph_figures.most_pruned(results, "iterative") == "ffn.1"
    assert graph_figures.most_pruned(results, None) == "ffn.0"


def test_table_escapes_cells_and_shows_figures_in_words():
    item = not_measured("%", HOSTILE)
    table = Table(HOSTILE, ["a", HOSTILE], [[HOSTILE, item], ["x", Verdict("fail")]], HOSTILE)
    html = table._repr_html_()
    assert "<script" not in html and html.count("&lt;script&gt;") == 5
    assert '<span class="fail">fail</span>' in html
    assert f"not measured: {HOSTILE}" in repr(table)


def test_quick_badge_shows_even_before_the_setup_has_run(tmp_path):
    folder = write_run(tmp_path / "bert", quick=True)
    (folder / "setup" / "setup.json").unlink()
    assert badges(Results.load(folder)).texts == ["quick run: figures are rough"]


def test_attempts_keep_their_number_when_one_had_no_candidate(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    results.solves["linear"].attempts.reverse()
    alt = loop_figures.loop_path(results, "linear").alt
    assert "attempt 2 at −38.0 %: rolled back: quality" in alt.replace("-", "−") and "attempt 1" not in alt
    assert "draft 4 at" in alt and "attempt 3 at" in alt


def test_losses_by_domain_are_told_for_both_splits_and_both_readings(tmp_path):
    picture = measure_figures.quality_domains(Results.load(write_run(tmp_path / "bert")))
    assert "unseen products own quality +0.300, drop-in quality +1.100" in picture.alt
    assert "seen films own quality +0.020" in picture.alt
    language = measure_figures.quality_domains(Results.load(write_run(tmp_path / "mamba", language=True)))
    assert isinstance(language, Picture) and "drop-in" not in language.alt
    assert measure_figures.quality_domains(Results.load(tmp_path / "none")).reason == "03_measure has not finished"
    assert len(set(SPLIT_COLOURS.values()) | set(COLOURS.values())) == len(SPLIT_COLOURS) + len(COLOURS)


def test_the_set_up_lists_every_domain_with_its_group_sizes_and_licence(tmp_path):
    table = setup_tables.provenance(Results.load(write_run(tmp_path / "bert")))
    rows = dict(table.rows)
    expected = "sentences of film reviews; 1,000 calibrate, 50 seen; licence MIT; from vaderSentiment 3.3.2"
    assert rows["seen (calibrates): films"] == expected
    assert rows["unseen (judges): products"].startswith("sentences of product reviews; 50 unseen; licence MIT")
    assert "30 selection" in rows["selection (chooses): verses"] and rows["missing: manual"] == "no package"
    assert rows["dense on unseen text"].startswith("60.00 % (measured, n = 100): products 60.0 %")


def test_the_table_of_attempts_says_what_each_was_and_where_j_and_the_clock_disagree(tmp_path):
    table = setup_tables.attempts(Results.load(write_run(tmp_path / "bert")), "iterative")
    assert [row[1] for row in table.rows] == ["draft", "attempt", "attempt", "attempt"]
    assert "drop-in +0.900 pp, cosine 0.9900" in table.rows[1][4] and "J rose by 0.0400" in table.rows[1][-1]


def test_verified_axes_are_grouped_with_the_worst_error():
    made = [{"kind": "ffn", "axis": f"ffn.{i}", "size": 32, "max_rel_error": i * 1e-9} for i in range(3)]
    table = setup_tables.verified_axes([*made, {"kind": "qk", "axis": "qk.0.1", "size": 8, "max_rel_error": 0.0}])
    assert [row[:4] for row in table.rows] == [
        ["ffn", "3", "32", "2.0e-09 (ffn.2)"],
        ["qk", "1", "8", "0.0e+00 (qk.0.1)"],
    ]
