"""index.html: the entrance to a run, made of whatever part of it exists."""

from html import escape

from icd_lib.report import measure_tables, setup_tables
from icd_lib.report.headline import headline
from icd_lib.report.html import link, links, page, show
from icd_lib.report.losses import lost_in
from icd_lib.report.picture import Picture
from icd_lib.report.results import Results
from icd_lib.report.rows import key_numbers
from icd_lib.report.table import badges
from icd_lib.report.words import interval_text, kind_text, value_text

BEST = "best.json"
REPORT_FILES = ("report.html", "report.csv")
_NOTEBOOKS = {
    "00_setup_check": "00 Set-up: machine, model, data",
    "01_build_graph": "01 Access graphs, curves, prediction",
    "linear/02_solve": "02 Solve: linear",
    "oneshot/02_solve": "02 Solve: oneshot",
    "iterative/02_solve": "02 Solve: iterative",
    "03_measure": "03 Measure",
    "04_validate": "04 Validate",
    "05_report": "05 Report",
}
_TABLE_NOTEBOOKS = {
    "00_setup_check": "00 Set-up: machine, table, accesses",
    "01_build_graph": "01 Access graph, what a layout costs",
}


def index_page(results: Results, drawn: dict, expected: tuple[str, ...] = ()) -> str:
    """The entrance to a run; `expected` are files that will exist once the running stage has finished."""
    first, *rest = headline(results)
    parts = [
        f"<h1>{escape(results.scenario)}: what re-permuting after the transform is worth</h1>",
        f'<p class="lead"><strong>{escape(first)}</strong></p>',
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in rest) + "</ul>" if rest else "",
        _cards(results),
        _documents(results, expected),
    ]
    if results.verdict:
        shown = (measure_tables.quality(results), measure_tables.gates(results), measure_tables.comparisons(results))
        parts += ["<h2>Verdict</h2>", *map(show, shown)]
    parts += ["<h2>Figures</h2>"] + [show(item) for item in drawn.values() if isinstance(item, Picture)]
    started = "Table and accesses" if results.is_table else "Model and data"
    parts += [f"<h2>{started}</h2>", show(setup_tables.provenance(results)), _take_home(results), _raw(results)]
    return page(f"ICD: {results.scenario}", "\n".join(parts), badges(results))


def _cards(results: Results) -> str:
    cards = []
    for what, item, remark in key_numbers(results):
        if item.is_missing:
            shown, below = '<b class="none">not_measured</b>', item.reason
        else:
            shown = f"<b>{escape(value_text(item.value, item.unit))}</b>"
            spread = [f"95 % CI {interval_text(item.ci95, item.unit)}"] if item.ci95 else []
            spread += [f"SE {item.se_pp:.3f} pp"] if item.se_pp is not None else []
            count = f", n = {item.n:,}" if item.n else ""
            below = "; ".join([*spread, f"{kind_text(item)}{count}"])
        cards.append(
            f'<div class="card"><span>{escape(what)}</span>{shown}'
            f"<span>{escape(below)}</span><span>{escape(remark)}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _documents(results: Results, expected: tuple[str, ...]) -> str:
    def there(rel: str) -> bool:
        return rel in expected or results.exists(rel)

    rows = []
    for stem, text in (_NOTEBOOKS | (_TABLE_NOTEBOOKS if results.is_table else {})).items():
        addresses = [
            link(f"{stem}.{ending}", word)
            for ending, word in (("html", "page"), ("ipynb", "notebook"))
            if there(f"{stem}.{ending}")
        ]
        record = results.stages.get(_stage_name(stem), {})
        state = record.get("status", "")
        note = f' <span class="fail">{escape(state)}</span>' if state in ("failed", "interrupted") else ""
        if addresses or note:
            rows.append(f"<li>{escape(text)}: {' · '.join(addresses) or 'no page'}{note}</li>")
    reports = [link(rel) for rel in REPORT_FILES if there(rel)]
    if reports:
        rows.append(f"<li>All tables: {' · '.join(reports)}</li>")
    if not rows:
        return ""
    return f'<h2>Executed notebooks and report</h2><ul class="links">{"".join(rows)}</ul>'


def _stage_name(stem: str) -> str:
    """`linear/02_solve` → `02_solve[linear]`, as in stages.json."""
    mode, _, name = stem.rpartition("/")
    return f"{name}[{mode}]" if mode else name


def _take_home(results: Results) -> str:
    if results.is_table:
        return _take_layout_home(results)
    if not results.exists("iterative/model/config.json"):
        return ""
    code = "import icd_lib as icd\n\nmodel = icd.load_optimized('iterative/model')  # the tokenizer lies beside it"
    uniform = results.config.get("transform", {}).get("uniform")
    plain = (
        "The widths are uniform, so plain transformers loads it too: AutoModel.from_pretrained('iterative/model')."
        if uniform
        else "Layers have widths of their own, so it needs icd_lib's loader; with --override transform.uniform=true "
        "plain transformers loads it."
    )
    more = "model.onnx comes from icd.export_onnx(model, example_inputs, 'model.onnx')."
    told = f"{plain} {more} {_fastest(results)}"
    return f"<h2>Take the model home</h2><pre>{escape(code)}</pre><p>{escape(told)}</p>{_best(results)}"


def _best(results: Results) -> str:
    """The export for the fastest runtime whose quality holds, or why there is none."""
    best = results.read(BEST)
    if best is None:
        return ""
    if best["status"] != "exported":
        told = f"Not exported for a runtime: {best['reason']}."
        return f"<p>{escape(told)}</p>"
    told = f"best/ is this model for {best['label']}; {best['card']} is its model card. In this folder:"
    lines = "\n".join(best["lines"])
    shown = f"<p>{escape(told)}</p><pre>{escape(lines)}</pre>"
    for shape, found in best.get("other_shapes", {}).items():
        if "command" in found:
            told = f"At {shape} it is faster in {found['label']}, by this command:"
            shown += f"<p>{escape(told)}</p><pre>{escape(found['command'])}</pre>"
    return shown


def _fastest(results: Results) -> str:
    """In which runtime the model is fastest on this machine."""
    if not results.fastest:
        return ""
    change = value_text(results.fastest.vs_eager.value, "fraction")
    where = f"{results.fastest.label}, {change} time against dense in eager ({results.first_shape})"
    return f"Fastest here: {where}; {lost_in(results, results.fastest)}."


def _take_layout_home(results: Results) -> str:
    if "iterative" not in results.solves:
        return ""
    code = (
        "import json\nimport numpy as np\n\n"
        'kept = json.load(open("iterative/transform_meta.json"))["axes"]["rows"]["order"]  # old rows\n'
        "new_table = old_table[kept]\n"
        "new_row = np.full(len(old_table), -1)\n"
        "new_row[kept] = np.arange(len(kept))  # -1: removed"
    )
    return f"<h2>Take the layout home</h2><pre>{escape(code)}</pre>"


def _raw(results: Results) -> str:
    """Links to every JSON file and log of the run."""
    rels = sorted(path.relative_to(results.dir).as_posix() for path in results.dir.rglob("*.json"))
    shown = [
        rel
        for rel in rels
        if not any(part.startswith(".") or part in ("model", "undistilled", "unquantized") for part in rel.split("/"))
    ]
    shown += [rel for rel in ("run.log",) if results.exists(rel)]
    if not shown:
        return ""
    return f"<h2>Raw files</h2><p>Every number above comes from these.</p>{links([(rel, rel) for rel in shown])}"
