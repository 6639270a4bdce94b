"""Tables of what a run starts from and does: machine, model and data, axes, attempts, certificates."""

from icd_lib.report import workload_tables
from icd_lib.report.kinds import for_tables, tables_only
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table, Verdict, badged
from icd_lib.report.words import bytes_text, number, value_text


@badged("timing")
def machine(results: Results) -> Table | Missing:
    """The machine and the versions that matter."""
    if not results.setup:
        return Missing("Machine", "00_setup_check has not finished")
    env = results.setup["environment"]
    cpu, threads = env["cpu"], env["threads"]
    rows = [
        [
            "CPU",
            f"{cpu['model']}, {cpu['usable_cores']} usable cores" + (", virtualised" if cpu["virtualised"] else ""),
        ],
        ["instruction sets", ", ".join(cpu["simd"]) or "none found"],
        ["caches", ", ".join(f"{name} {size}" for name, size in cpu["caches"].items()) or "unknown"],
        ["clock", f"{cpu['mhz']} MHz, governor {cpu['governor'] or 'not readable'}"],
        ["memory", f"{env['memory_gb']} GB"],
        ["load average at the start", ", ".join(map(str, env["load_average"]))],
        ["threads", f"{threads['torch']} (torch)" if "torch" in threads else "1: a pass over the table is one chain"],
        ["system", f"{env['os']}, Python {env['python']}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in env["packages"].items())],
        ["GPU", env["gpu"] or "none"],
    ]
    for name, counter in env["counters"].items():
        state = "available" if counter["available"] else f"not available: {counter.get('reason', 'unknown reason')}"
        rows.append([f"counter {name}", state])
    return Table("Machine", ["what", "found"], rows)


@badged("model")
@for_tables(workload_tables.provenance)
def provenance(results: Results) -> Table | Missing:
    """Where model and data come from."""
    if not results.setup:
        return Missing("Model and data", "00_setup_check has not finished")
    model, data = results.setup["model"], results.setup["data"]
    source = data["provenance"]
    rows = [
        ["model", f"{model['name']} ({model['architecture']}, {model['weights']} weights)"],
        [
            "model source",
            f"{model['source']}, revision {model['revision'] or 'not versioned'}, licence {model['licence']}",
        ],
        ["model sha256", model["sha256"]],
        ["parameters", f"{model['parameters']:,} ({bytes_text(model['parameter_bytes'])})"],
        ["shape", ", ".join(f"{name} {value}" for name, value in model["shape"].items())],
        ["data", f"{source.get('name', data['name'])}, licence {source.get('licence', 'unknown')}"],
        ["data source", ", ".join([str(source.get("source", "")), *_packages(source)]).strip(", ")],
        ["data sha256", source.get("sha256", "not recorded")],
        ["splits (no text is in two)", ", ".join(f"{name} {count:,}" for name, count in data["splits"].items())],
    ]
    if "dense_validation" in results.setup:
        dense = results.setup["dense_validation"]
        tasks = ", ".join(f"{task} {pct:.1f} %" for task, pct in dense["per_task_pct"].items())
        found = f"{dense['quality_pct']:.2f} % (measured, n = {results.validation_items:,}): {tasks}"
        rows.append(["dense on validation data", found])
    return Table("Model and data", ["what", "used"], rows)


def _packages(source: dict) -> list[str]:
    return [f"{name} {version}" for name, version in source.get("packages", {}).items()]


recording = tables_only("A trace of your own", "a model's accesses come from its modules and its calibration text")(
    workload_tables.recording
)


@badged()
@for_tables(workload_tables.access_graphs)
def access_graphs(results: Results) -> Table | Missing:
    """Size and structure of W on each axis."""
    if not results.graphs:
        return Missing("Access graphs", "01_build_graph has not finished")
    rows = [
        [
            axis,
            f"{g['D']:,}",
            f"{g['nnz']:,}",
            g["kind"],
            f"{g['tokens']:,}",
            bytes_text(g["degree_mean"]),
            number(g["degree_cv"]),
        ]
        for axis, g in sorted(results.graphs.items())
    ]
    columns = ["axis", "elements D", "non-zeros", "kind of W", "tokens seen", "mean degree", "spread of degree (CV)"]
    note = "modelled from activations on calibration text: bytes that two elements are touched together"
    return Table("Access graphs", columns, rows, note)


def certificates(entries: list[dict], title: str = "Equivalence certificates") -> Table | Missing:
    """Largest float64 output error of every applied permutation, and the permutation's hash."""
    if not entries:
        return Missing(title, "no permutation was applied")
    if "checksum" in entries[0]:
        return workload_tables.certificates(entries, title)
    rows = [
        [e["axis"], f"{e['size']:,}", f"{e['max_rel_error']:.1e}", "1e-06", e["perm_hash"][:16] + "…"] for e in entries
    ]
    columns = ["axis", "elements", "largest relative error, float64", "allowed", "sha256 of the permutation"]
    note = "measured: outputs of the permuted model against the original; an axis above the limit is refused"
    return Table(title, columns, rows, note)


def verified_axes(entries: list[dict]) -> Table:
    """The verified axes by kind, each with the largest error among them."""
    if "checksum" in entries[0]:
        return workload_tables.certificates(entries, "The axis verified with a random permutation")
    kinds: dict[str, list[dict]] = {}
    for entry in entries:
        kinds.setdefault(entry["kind"], []).append(entry)
    rows = []
    for kind, found in sorted(kinds.items()):
        worst = max(found, key=lambda entry: entry["max_rel_error"])
        sizes = ", ".join(f"{size:,}" for size in sorted({entry["size"] for entry in found}))
        rows.append([kind, str(len(found)), sizes, f"{worst['max_rel_error']:.1e} ({worst['axis']})", "1e-06"])
    columns = ["kind of axis", "axes", "elements of each", "largest relative error, float64", "allowed"]
    return Table("Axes verified, each with a random permutation", columns, rows, "measured on this model's outputs")


@badged("layout")
@for_tables(workload_tables.attempts)
def attempts(results: Results, mode: str) -> Table | Missing:
    """What one mode tried, what became of it, and why."""
    if mode not in results.solves:
        return Missing(f"Attempts of {mode}", f"02_solve[{mode}] has not finished")
    rows = []
    for i, entry in enumerate(results.solves[mode]["attempts"]):
        change, judged = entry.get("change"), entry.get("validation")
        rows.append(
            [
                str(i + 1),
                value_text(entry["strength"], "fraction"),
                value_text(entry["predicted_latency_rel"], "fraction") if judged else "–",
                _drop(judged),
                f"ΔC {number(change['C'], True)}, ΔQ {number(change['Q'], True)}, ΔJ {number(change['J'], True)}"
                if change
                else "–",
                Verdict("pass") if entry["accepted"] else Verdict("fail"),
                "accepted" if entry["accepted"] else "rolled back: " + "; ".join(entry["reasons"]),
            ]
        )
    columns = [
        "attempt",
        "aim",
        "predicted latency (modelled)",
        "validation drop (measured)",
        "re-permutation",
        "check",
    ]
    return Table(f"Attempts of {mode}", [*columns, "fate and reason"], rows)


def _drop(judged: dict | None) -> str:
    if not judged:
        return "–"
    if "reason" in judged:
        return f"not_measured: {judged['reason']}"
    low, high = judged["ci95"]
    ratio, cosine = judged.get("perplexity_ratio"), judged.get("cosine")
    near = [f"perplexity {ratio:.4f} × dense"] if ratio is not None else []
    near += [f"cosine {cosine:.4f}"] if cosine is not None else []
    drop = f"{judged['drop_pp']:+.3f} pp, SE {judged['se_pp']:.3f}, 95 % CI {low:+.2f} to {high:+.2f}"
    return ", ".join([drop, *near, f"n = {judged['n_items']:,}"]).replace("-", "−")


@badged("layout")
def objective(results: Results, mode: str) -> Table | Missing:
    """C, Q, R and J of π₀ and π₁ on what the transform left alive, per axis."""
    if mode not in results.solves:
        return Missing(f"Objective of {mode}", f"02_solve[{mode}] has not finished")
    solve = results.solves[mode]
    rows = []
    mean = {"mean of the axes": solve["objective"]["mean"]} if len(solve["objective"]["axes"]) > 1 else {}
    for axis, entry in (mean | solve["objective"]["axes"]).items():
        before, after = entry["before"], entry["after"]
        cells = [f"{number(before[t])} → {number(after[t])}" for t in ("C", "Q", "R_align", "R_stab", "J")]
        winner = solve["solver"].get(axis, {}).get("winner", "–")
        rows.append([axis, *cells, winner])
    columns = ["axis", "C", "Q", "R_align", "R_stab", "J", "solver of π₀"]
    return Table(
        f"Objective on W′, π₀ → π₁ ({mode})", columns, rows, "modelled from W′; lower J is better, higher Q is better"
    )


@badged("layout")
@for_tables(workload_tables.widths)
def widths(results: Results) -> Table | Missing:
    """Kept elements of each axis per mode."""
    if not results.solves or not results.graphs:
        return Missing("Kept widths", "no mode has been solved yet")
    rows = [
        [axis, str(meta["D"]), *(str(solve["widths"][axis]) for solve in results.solves.values())]
        for axis, meta in sorted(results.graphs.items())
    ]
    return Table("Kept widths", ["axis", "dense", *results.solves], rows)
