"""Tables of a run on a table of rows: its accesses, its arms, what their caches would do, and what was judged."""

from icd_lib.experiment.arms import ARMS, DENSE, ROWS
from icd_lib.report.compared import on_pages
from icd_lib.report.evidence import NOTE, comparison_rows, control_rows
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Note, Table, Verdict
from icd_lib.report.words import change_text, number

RECORD = """import gzip, json

with gzip.open("my_trace.jsonl.gz", "at") as file:      # plain .jsonl works too
    ...                                                 # where your program touches rows together:
    file.write(json.dumps({"ids": row_numbers, "bytes": 64}) + "\\n")

# python run_all.py --scenario trace --override graph.trace=my_trace.jsonl.gz"""


def provenance(results: Results) -> Table | Missing:
    """The table, its accesses, where they come from, and the caches that are simulated."""
    if not results.setup:
        return Missing("Table and accesses", "00_setup_check has not finished")
    workload, caches = results.setup["workload"], results.setup["caches"]
    size = f"{workload['rows']:,} rows of {workload['row_bytes']} bytes: {workload['table_bytes'] / 1e6:.2f} MB"
    rows = [
        ["table", f"{size}; {workload['tile_rows']} rows are a tile"],
        ["accesses", f"{workload['name']} ({workload['source']})"],
        ["accesses sha256", workload["sha256"]],
        [
            "events",
            f"{workload['events']:,} events with {workload['accesses']:,} accesses to "
            f"{workload['rows_touched']:,} of the rows",
        ],
    ]
    if workload.get("file_sha256"):
        cut = "; only its beginning is used (workload.max_accesses)" if workload["cut_short"] else ""
        rows.insert(2, ["trace sha256", f"{workload['file_sha256']}{cut}"])
    told = {"seen": "layouts are solved on them", "unseen": "they are measured, no layout was solved on them"}
    for name, words in told.items():
        part = workload["streams"][name]
        rows.append([f"{name} events", f"{part['events']:,} with {part['accesses']:,} accesses; {words}"])
    levels = ", ".join(
        f"{level['name']} {level['size_bytes'] // 1024:,} KiB in {level['ways']} ways" for level in caches["levels"]
    )
    rows.append(["simulated caches", f"{levels}: {caches['note']}"])
    return Table("Table and accesses", ["what", "used"], rows)


def recording(results: Results) -> Note:
    """How to record accesses of one's own program."""
    text = (
        "write one JSON line per event, an event being the rows that your program touches together (a request, a "
        "sentence, a query): their numbers, from 0, and the bytes it reads of each. Rows that are numbered but never "
        "touched count as part of the table up to the largest number. Triples 'i,j,weight' are read too, and gzip is "
        "recognised. docs/TRACES.md has the format and its limits."
    )
    return Note("A trace of your own", text, RECORD)


def certificates(entries: list[dict], title: str) -> Table:
    """The checksum of the same work in several layouts: equal, exactly."""
    equal = len({entry["checksum"] for entry in entries}) == 1
    rows = [
        [
            entry.get("layout", "a random one, and the original order"),
            f"{entry['size']:,}",
            entry["checksum"],
            Verdict("pass" if equal else "fail"),
            entry["perm_hash"][:16] + "…",
        ]
        for entry in entries
    ]
    columns = ["layout", "rows", "checksum of the seen events", "equal", "sha256 of the permutation"]
    note = "measured: integer arithmetic, so a layout that does the same work has the very same checksum"
    return Table(title, columns, rows, note)


def access_graphs(results: Results) -> Table | Missing:
    """Size and structure of W, and what the cap left out."""
    if not results.graphs:
        return Missing("Access graph", "01_build_graph has not finished")
    rows = [
        [
            axis,
            f"{g['D']:,}",
            f"{g['nnz']:,}",
            f"{g['events']:,}",
            f"{g['accesses']:,}",
            f"{number(g['degree_mean'])} {'B' if g['unit'] == 'bytes' else ''}".strip(),
            number(g["degree_cv"]),
            _left_out(g),
        ]
        for axis, g in results.graphs.items()
    ]
    columns = ["axis", "elements D", "non-zeros", "events", "accesses", "mean degree", "spread (CV)", "left out"]
    note = "counted: bytes that two rows are touched together within one event (graph.window: within several)"
    how = {g["normalize"] for g in results.graphs.values()} - {"none"}
    if how:
        note += f", normalized ({', '.join(how)}: rows that are touched with everything weigh less)"
    return Table("Access graph", columns, rows, note)


def _left_out(meta: dict) -> str:
    parts = []
    if meta.get("dropped_edges"):
        share = meta["dropped_bytes"] / (meta["bytes"] + meta["dropped_bytes"])
        parts.append(f"{meta['dropped_edges']:,} lightest edges ({share:.1%} of the bytes)")
    if meta.get("sampled_events"):
        parts.append(f"pairs of {meta['sampled_events']:,} large events are sampled")
    if meta.get("prunes"):
        parts.append(f"pruned {meta['prunes']} times")
    return "; ".join(parts) or "nothing"


def attempts(results: Results, mode: str) -> Table | Missing:
    """What one mode tried, what the trial said, and what became of it."""
    if mode not in results.solves:
        return Missing(f"Attempts of {mode}", f"02_solve[{mode}] has not finished")
    rows = []
    for i, entry in enumerate(results.rounds(mode)):
        rows.append([str(i + 1), entry.what, change_text(entry.change), entry.latency_rel or "–", entry.fate])
    columns = ["attempt", "what", "change on W′ (modelled)", "latency against the present layout, seen events", "fate"]
    return Table(f"Attempts of {mode}", columns, rows)


def widths(results: Results) -> Table | Missing:
    """Rows of each arm's table: living ones, and dead ones that keep their place in a living tile."""
    if not results.solves or not results.graphs:
        return Missing("Rows that are left", "no mode has been solved yet")
    size = results.graphs["rows"]["D"]
    rows = [["dense", f"{size:,}", f"{size:,}", "0", "0"]]
    for mode, solve in results.solves.items():
        kept = solve.sizes
        dropped = size - kept.rows
        rows.append([mode, *(f"{n:,}" for n in (kept.rows, kept.living_rows, kept.dead_rows_kept, dropped))])
    return Table("Rows that are left", ["arm", "places in the table", "living", "dead, kept", "dropped"], rows)


def latency(results: Results, shape: str | None = None) -> Table | Missing:
    """Latency, percentiles, throughput and change against dense of every arm, in one way of reading."""
    if not results.shapes:
        return Missing("Latency", "03_measure has not finished")
    shape = shape or next(iter(results.shapes))
    rows = []
    for arm, entry in results.shapes[shape].items():
        ms = entry.latency_ms
        tails = " / ".join(map(number, (ms.p50, ms.p95, ms.p99)))
        against = "the reference" if arm == DENSE else entry.vs_dense
        told = results.measure.controls.get(arm) or (ARMS[arm].words.get(ROWS, "") if arm in ARMS else "")
        told += " in its original order" if arm == DENSE else ""
        rows.append([arm, ms, tails, against, entry.throughput_tokens_per_s, told])
    columns = ["arm", "median latency", "p50 / p95 / p99, ms", "against dense", "throughput", "what it is"]
    note = f"one pass over the unseen events, all arms interleaved, one thread; {results.measure.shapes[shape]}"
    return Table(f"Latency, {shape} reads", columns, rows, note)


def checksums(results: Results) -> Table | Missing:
    """That all arms with the same rows alive do the same work."""
    if not results.measure:
        return Missing("The same work in every arm", "03_measure has not finished")
    first = next(iter(results.measure.checksums.values()))
    rows = [
        [what, ", ".join(agreeing.arms), first[agreeing.arms[0]], Verdict("pass" if agreeing.equal else "fail")]
        for what, agreeing in results.measure.equality.items()
        if agreeing.arms
    ]
    note = (
        "measured: exact integer checksums of the unseen events. There is no quality to lose between these arms: "
        "the transform is one and the same, so quality is unchanged by construction and no percentage is reported"
    )
    return Table("The same work in every arm", ["rows that live", "arms", "checksum", "equal"], rows, note)


def caches(results: Results) -> Table | Missing:
    """Table size of every arm, where its reads would be served, and the energy that this would take."""
    if not results.measure:
        return Missing("Sizes, caches and energy", "03_measure has not finished")
    measured = results.measure
    levels = [key for key in next(iter(measured.caches["unseen"].values())) if key.endswith("_hit_pct")]
    rows = []
    for arm, figures in measured.caches["unseen"].items():
        kept = measured.sizes[arm]
        size = f"{kept.parameter_bytes / 1e6:.2f} MB, {kept.tiles:,} tiles"
        rows.append([arm, size, figures["lines_per_event"], *(figures[key] for key in levels), measured.energy[arm]])
    names = [key.removesuffix("_hit_pct").replace("l", "L", 1) for key in levels]
    columns = ["arm", "table", "cache lines an event touches", *(f"served by {name} or nearer" for name in names)]
    note = (
        "unseen events; sizes and lines are counted, hits are simulated (set-associative LRU from empty caches, no "
        "prefetcher), energy is modelled from them; peak memory is not_measured"
    )
    return Table("Sizes, caches and energy", [*columns, "energy"], rows, note)


def attribution(results: Results) -> Table | Missing:
    """Latency after each step from the untouched table to iterative."""
    steps = results.measure.attribution if results.measure else None
    if not steps:
        return Missing("Attribution", "the run has no measured iterative arm")
    unseen = results.measure.caches["unseen"]
    rows = [[step.step, step.latency_rel, unseen[step.arm]["lines_per_event"], step.note] for step in steps]
    columns = ["step", "latency against dense", "cache lines an event touches", "note"]
    note = "after the mask there is less to read: compare the masked steps with each other"
    return Table("What the gain is made of", columns, rows, note)


def comparisons(results: Results) -> Table | Missing:
    """Every comparison of the verdict in both ways of reading."""
    verdict = results.verdict
    if not verdict:
        return Missing("Comparisons", "04_validate has not finished")
    groups = {row.pairs[results.workload].title: verdict.sections[row.key].shapes for row in on_pages(results)}
    shapes = list(verdict.section("vs_dense").shapes)
    note = (
        "change of latency on unseen events, negative = faster. One transform for all arms: the same transform and the "
        f"same quality are one comparison here. Dense also reads the rows that died; {NOTE}"
    )
    return Table("Comparisons of latency", *comparison_rows(groups, shapes, " reads"), note)


def controls(results: Results) -> Table | Missing:
    """Equality of the work, determinism and the change of the objective."""
    verdict = results.verdict
    if not verdict:
        return Missing("Controls", "04_validate has not finished")
    rows = [
        [f"same work, {what}", Verdict("pass" if agreeing.equal else "fail"), f"{len(agreeing.arms)} arms agree"]
        for what, agreeing in (verdict.section("same_transform").equality or {}).items()
    ]
    rows += control_rows(results, ", {} reads", "W counted again")
    return Table("Controls", ["control", "verdict", "found"], rows)
