"""Tables of what a run starts from and does: machine, model and data, axes, attempts, certificates."""

from icd_lib.records.attempts import Attempt, Validation
from icd_lib.report import workload_tables
from icd_lib.report.kinds import for_tables, models_only, tables_only
from icd_lib.report.losses import what_it_is
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table, Verdict, badged
from icd_lib.report.words import bytes_text, change_text, interval_text, number, value_text
from icd_lib.storage.devices import as_gb
from icd_lib.storage.machine import ISA_LIMIT


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
        [
            "instruction sets",
            (", ".join(cpu["simd"]) or "none found")
            + (f"; {ISA_LIMIT}={cpu['isa_limit']}" if cpu.get("isa_limit") else ""),
        ],
        ["caches", ", ".join(f"{name} {size}" for name, size in cpu["caches"].items()) or "unknown"],
        ["clock", f"{cpu['mhz']} MHz, governor {cpu['governor'] or 'not readable'}"],
        ["memory", f"{env['memory_gb']} GB"],
        ["load average at the start", ", ".join(map(str, env["load_average"]))],
        ["threads", f"{threads['torch']} (torch)" if "torch" in threads else "1: a pass over the table is one chain"],
        ["system", f"{env['os']}, Python {env['python']}"],
        ["packages", ", ".join(f"{name} {version}" for name, version in env["packages"].items())],
        ["GPU", _gpu(env)],
    ]
    if device := results.setup.get("device"):
        rows.append(["computes on", f"{device['name']} ({device['label']}): {device['why']}"])
    if needs := results.setup.get("needs"):
        gpu, disk = max(needs["solving"], needs["timing"]), needs["run"] + needs["temporary"] + needs["cache"]
        told = f"about {as_gb(gpu)} of the GPU, {as_gb(needs['host'])} of memory, {as_gb(disk)} of disk"
        rows.append(["takes at its widest", told])
    for name, counter in env["counters"].items():
        state = "available" if counter["available"] else f"not available: {counter.get('reason', 'unknown reason')}"
        rows.append([f"counter {name}", state])
    return Table("Machine", ["what", "found"], rows)


def _gpu(env: dict) -> str:
    """The GPU with what drives it."""
    told = [env["gpu"] or "none"]
    told += [f"CUDA {env['cuda']}"] if env.get("cuda") else []
    told += [env["gpu_driver"]] if env["gpu"] and env.get("gpu_driver") else []
    return ", ".join(told)


@badged("model")
@for_tables(workload_tables.provenance)
def provenance(results: Results) -> Table | Missing:
    """Where model and data come from."""
    if not results.setup:
        return Missing("Model and data", "00_setup_check has not finished")
    model, data = results.setup["model"], results.setup["data"]
    rows = [
        ["model", f"{model['name']} ({model['architecture']}, {model['weights']} weights)"],
        [
            "model source",
            f"{model['source']}, revision {model['revision'] or 'not versioned'}, licence {model['licence']}",
        ],
        ["model sha256", model["sha256"]],
        ["parameters", f"{model['parameters']:,} ({bytes_text(model['parameter_bytes'])})"],
        ["shape", ", ".join(f"{name} {value}" for name, value in model["shape"].items())],
        ["text", f"{data['name']}; no text is in two of the groups"],
        *([f"{_group(data, name)}: {name}", _domain(data, name)] for name in data["provenance"]),
        *([f"missing: {name}", why] for name, why in data["missing"].items()),
    ]
    dropped = ", ".join(f"{name} {count:,}" for name, count in data["dropped_duplicates"].items())
    rows += [["texts dropped, another group has them", dropped]] if dropped else []
    rows += [_dense_row(split, found) for split, found in results.setup.get("dense", {}).items()]
    return Table("Model and data", ["what", "used"], rows)


@badged("timing", "model")
@models_only("Where it is deployed", "the pass over the table is one compiled loop")
def deployment(results: Results) -> Table | Missing:
    """Where the models are deployed, and the runtimes that were passed over."""
    found = results.deploy
    if not found:
        return Missing("Where it is deployed", "00_setup_check has not finished")
    rows: list[list] = [["taken", found.label, "–", "–", found.why]] if not found.tried else []
    for item in found.tried:
        state = "taken" if item.runtime == found.runtime else "passed over"
        times = [f"{shape}: {value_text(1 + change, '1')}" for shape, change in (item.latency_rel or {}).items()]
        loss = f"{value_text(item.validation.drop_pp, 'pp')} ± {item.validation.se_pp:.3f}" if item.validation else "–"
        rows.append([state, item.label, ", ".join(times) or "–", loss, item.reason or found.why])
    columns = ["", "runtime", "dense, time relative to eager", "dense loses, own", "why"]
    note = (
        "width curves, plan, judgement and latency of every arm are those of the runtime that is taken; times are "
        "measured once, at the start, each runtime in rounds with eager; losses are on the text that chooses, against "
        "dense in PyTorch eager, fp32"
    )
    if found.disturbed:
        note += f". Disturbed, so these times are rough: {'; '.join(found.disturbed)}"
    return Table("Where it is deployed", columns, rows, note)


_GROUPS = {"seen": "seen (calibrates)", "selection": "selection (chooses)", "unseen": "unseen (judges)"}


def _group(data: dict, name: str) -> str:
    """The group of a domain in words; one of the user's own joins the seen ones."""
    return _GROUPS[next((group for group in _GROUPS if name in data["groups"].get(group, [])), "seen")]


def _domain(data: dict, name: str) -> str:
    """What a domain's text is, how many of its texts do what, its licence and where it comes from."""
    source = data["provenance"][name]
    sizes = [f"{data['calibration'][name]:,} calibrate"] if name in data["calibration"] else []
    sizes += [f"{part[name]['texts']:,} {split}" for split, part in data["judged"].items() if name in part]
    licence, origin = source.get("licence", "unknown"), ", ".join(_origin(source)) or "not recorded"
    return f"{what_it_is(name)}; {', '.join(sizes)}; licence {licence}; from {origin}"


def _origin(source: dict) -> list[str]:
    """What a domain's text was read from: its name and the packages with their versions."""
    packages = source.get("packages", {})
    if "package" in source:
        packages = {source["package"]: source.get("version", "")}
    return [*filter(None, [source.get("name")]), *(f"{name} {version}".strip() for name, version in packages.items())]


def _dense_row(split: str, quality: dict) -> list[str]:
    """How good the dense model is on a split, by domain."""
    domains = ", ".join(f"{name} {entry['quality_pct']:.1f} %" for name, entry in quality["domains"].items())
    return [
        f"dense on {split} text",
        f"{quality['quality_pct']:.2f} % (measured, n = {quality['n_items']:,}): {domains}",
    ]


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
    for kind, group in sorted(kinds.items()):
        worst = max(group, key=lambda entry: entry["max_rel_error"])
        sizes = ", ".join(f"{size:,}" for size in sorted({entry["size"] for entry in group}))
        rows.append([kind, str(len(group)), sizes, f"{worst['max_rel_error']:.1e} ({worst['axis']})", "1e-06"])
    columns = ["kind of axis", "axes", "elements of each", "largest relative error, float64", "allowed"]
    return Table("Axes verified, each with a random permutation", columns, rows, "measured on this model's outputs")


@badged("layout")
@for_tables(workload_tables.attempts)
def attempts(results: Results, mode: str) -> Table | Missing:
    """What one mode tried, what became of it, and why."""
    if mode not in results.solves:
        return Missing(f"Attempts of {mode}", f"02_solve[{mode}] has not finished")
    rows = [_attempt_row(i + 1, entry) for i, entry in enumerate(results.attempts(mode))]
    columns = ["try", "what", "aim", "predicted latency (modelled)", "lost where strengths are chosen (measured)"]
    note = "a draft is pruned in closed form and judged, to find where whole attempts begin; it is never the result"
    return Table(f"Attempts of {mode}", [*columns, "re-permutation", "check", "fate and reason"], rows, note)


def _attempt_row(place: int, entry: Attempt) -> list:
    predicted = entry.predicted_latency_rel
    return [
        str(place),
        entry.what,
        ", ".join([value_text(entry.strength, "fraction"), *setting_words(entry)]),
        "–" if predicted is None else value_text(predicted, "fraction"),
        _drop(entry.validation),
        change_text(entry.change),
        Verdict("pass" if entry.accepted else "fail"),
        "; ".join(filter(None, [entry.fate, entry.disagreement])),
    ]


def setting_words(entry: Attempt) -> list[str]:
    """The options that were chosen from a ladder, with their values."""
    return [f"{path} {value:g}" for path, value in (entry.setting or {}).items()]


def _drop(validation: Validation | None) -> str:
    if validation is None:
        return "–"
    if not validation.is_judged:
        return f"not_measured: {validation.reason}"
    parts = [
        value_text(validation.drop_pp, "pp"),
        f"SE {validation.se_pp:.3f}",
        f"95 % CI {interval_text(validation.ci95, 'pp')}",
    ]
    parts += [f"drop-in {value_text(validation.dropin.drop_pp, 'pp')}"] if validation.dropin else []
    parts += (
        [f"perplexity {validation.perplexity_ratio:.4f} × dense"] if validation.perplexity_ratio is not None else []
    )
    parts += [f"cosine {validation.cosine:.4f}"] if validation.cosine is not None else []
    parts += [f"n = {validation.n_items:,}"] if validation.n_items is not None else []
    return ", ".join(parts)


@badged("layout")
def objective(results: Results, mode: str) -> Table | Missing:
    """C, Q, R and J of π₀ and π₁ on what the transform left alive, per axis."""
    if mode not in results.solves:
        return Missing(f"Objective of {mode}", f"02_solve[{mode}] has not finished")
    solve = results.solves[mode]
    rows = []
    mean = {"mean of the axes": solve.objective.mean} if len(solve.objective.axes) > 1 else {}
    for axis, pair in (mean | solve.objective.axes).items():
        before, after = vars(pair.before), vars(pair.after)
        cells = [f"{number(before[term])} → {number(after[term])}" for term in before]
        rows.append([axis, *cells, solve.solver[axis].winner if axis in solve.solver else "–"])
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
        [axis, str(meta["D"]), *(str(solve.widths[axis]) for solve in results.solves.values())]
        for axis, meta in sorted(results.graphs.items())
    ]
    return Table("Kept widths", ["axis", "dense", *results.solves], rows)
