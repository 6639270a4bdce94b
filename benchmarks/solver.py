"""The layout solver beside its peers: same instances, same machine, one run, one thread.

    python benchmarks/solver.py                 # everything, minutes; writes docs/figures/ and docs/SOLVER.md
    python benchmarks/solver.py --quick --out /tmp/solver

Writes solver.json (all numbers), solver_gap.png, solver_anytime.png, solver_scaling.png, the tables of docs/SOLVER.md.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import igraph
import numpy as np
import pymetis
import scipy.sparse as sp
from matplotlib.ticker import NullFormatter
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from icd_lib.graph import check_w, mask_graph
from icd_lib.graph.mock import band_graph, planted_graph
from icd_lib.report.picture import FULL, SPLIT_COLOURS, canvas, legend, png_bytes, themed
from icd_lib.solver import CostConfig, evaluate_cost, fit_permutation, lower_bound
from icd_lib.solver.refine import warm_up
from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.machine import cpu_model
from icd_lib.transforms.effects import alive_of

ROOT = Path(__file__).resolve().parent.parent
TABLE = ("<!-- table: begin, written by benchmarks/solver.py -->", "<!-- table: end -->")
FIGURES = ROOT / "docs" / "figures"
OURS, METIS, OTHERS = *SPLIT_COLOURS.values(), "#b5b5b5"  # no arm's colour
WANTED_GAIN = 0.05  # in J over the best peer, on real graphs
LONGER_STEPS, LONGER_SEEDS = 20_000, 3  # where it is less: ten times the usual effort
SLOW_PEERS_NNZ = 20_000_000  # igraph and the Lanczos Fiedler take minutes beyond


def order_fiedler(graph, seed):
    """Second eigenvector of the normalised Laplacian by Lanczos, each component by itself."""
    count, label = connected_components(graph, directed=False)
    parts = []
    for component in range(count):
        ids = np.flatnonzero(label == component)
        if len(ids) > 2:
            part = graph[ids][:, ids]
            root = 1 / np.sqrt(np.asarray(part.sum(axis=1)).ravel())
            scaled = sp.csr_array(part * root[:, None] * root[None, :])
            if len(ids) <= 64:
                vector = np.linalg.eigh(scaled.toarray())[1][:, -2]
            else:
                start = np.random.default_rng(seed).standard_normal(len(ids))
                values, vectors = eigsh(scaled, k=2, which="LA", v0=start, tol=1e-5, maxiter=50 * len(ids))
                vector = vectors[:, np.argmin(values)]
            ids = ids[np.argsort(vector * root, kind="stable")]
        parts.append(ids)
    return np.concatenate(sorted(parts, key=len, reverse=True))


def order_groups(graph, label, seed):
    """Groups in the Fiedler order of their quotient graph."""
    label = np.unique(label, return_inverse=True)[1]
    D, count = len(label), int(label.max()) + 1
    member = sp.csr_array((np.ones(D), (np.arange(D), label)), shape=(D, count))
    quotient = sp.csr_array(member.T @ graph @ member)
    quotient.setdiag(0)
    quotient.eliminate_zeros()
    rank = np.empty(count)
    rank[order_fiedler(quotient, seed)] = np.arange(count)
    return np.lexsort((np.arange(D), rank[label]))


def order_igraph(graph, seed, method):
    upper = sp.triu(graph, 1).tocoo()
    network = igraph.Graph(n=graph.shape[0], edges=np.column_stack(upper.coords))
    igraph.set_random_number_generator(random.Random(seed))
    weights = upper.data / upper.data.max()
    if method == "leiden":
        found = network.community_leiden("modularity", weights=weights, resolution=1.2, n_iterations=4)
    else:
        found = network.community_multilevel(weights=weights)
    return order_groups(graph, np.array(found.membership), seed)


def order_metis(graph, cost, seed, recursive):
    """METIS into tiles: recursive bisection numbers neighbouring parts alike; k-way parts are ordered by Fiedler."""
    parts = -(-graph.shape[0] // cost.g)
    levels = np.maximum(1, np.rint(graph.data * (1000 / graph.data.max()))).astype(np.int64)
    adjacency = pymetis.CSRAdjacency(graph.indptr, graph.indices)
    options = pymetis.Options(seed=seed)
    _, label = pymetis.part_graph(parts, adjacency=adjacency, eweights=levels, recursive=recursive, options=options)
    return np.argsort(label, kind="stable") if recursive else order_groups(graph, np.array(label), seed)


PEERS = {
    "random": lambda graph, cost, seed: np.random.default_rng(seed).permutation(graph.shape[0]),
    "identity": lambda graph, cost, seed: np.arange(graph.shape[0]),
    "RCM": lambda graph, cost, seed: reverse_cuthill_mckee(sp.csr_matrix(graph), symmetric_mode=True),
    "Fiedler": lambda graph, cost, seed: order_fiedler(graph, seed),
    "Leiden": lambda graph, cost, seed: order_igraph(graph, seed, "leiden"),
    "Louvain": lambda graph, cost, seed: order_igraph(graph, seed, "louvain"),
    "METIS RB": lambda graph, cost, seed: order_metis(graph, cost, seed, True),
    "METIS k-way": lambda graph, cost, seed: order_metis(graph, cost, seed, False),
}
SLOW_PEERS = {"Fiedler", "Leiden", "Louvain"}


def planted_instances(quick: bool) -> dict:
    """Name → function that makes (W, planted order)."""
    if quick:
        return {
            "blocks 256": lambda: planted_graph(256, degree=32),
            "blocks 512 heavy": lambda: planted_graph(512, degree=32, sizes="heavy"),
            "band 512": lambda: band_graph(512),
            "band 512 noise 0.1": lambda: band_graph(512, noise=0.1),
        }
    return {
        "blocks 256": lambda: planted_graph(256, degree=32),
        "blocks 1,024": lambda: planted_graph(1024),
        "blocks 2,560": lambda: planted_graph(2560, degree=125),
        "blocks 2,560 heavy": lambda: planted_graph(2560, degree=125, sizes="heavy"),
        "32 blocks 2,560 heavy, noise 0.3": lambda: planted_graph(2560, sizes="heavy", blocks=32, noise=0.3),
        "64 blocks 20,000, noise 0.2": lambda: planted_graph(20_000, blocks=64, noise=0.2),
        "blocks 20,000": lambda: planted_graph(20_000, degree=500),
        "blocks 20,000 heavy": lambda: planted_graph(20_000, degree=500, sizes="heavy"),
        "band 2,560": lambda: band_graph(2560),
        "band 2,560 noise 0.1": lambda: band_graph(2560, noise=0.1),
        "band 2,560 noise 0.3": lambda: band_graph(2560, noise=0.3),
        "band 20,000": lambda: band_graph(20_000),
        "band 20,000 noise 0.1": lambda: band_graph(20_000, noise=0.1),
    }


def real_graphs(folder: Path) -> dict:
    """Co-activation and mask graphs of the embedded BERT: from a run's folder `graph`, else built from the model.

    The masks keep what the run's iterative arm kept, or, without one, the better half of each layer by degree.
    """
    files = sorted(folder.glob("W.*.npz"))
    if files:
        graphs = {file.stem[2:]: check_w(sp.csr_array(sp.load_npz(file))) for file in files}
    else:
        from icd_lib.codesign.evidence import build_graphs
        from icd_lib.run.artifacts import Run
        from icd_lib.run.scenario import load_scenario
        from icd_lib.runtimes.threads import torch_threads
        from icd_lib.workloads.model.contexts import make_context
        from icd_lib.workloads.model.solve import make_inputs

        scenario = load_scenario("bert")
        with tempfile.TemporaryDirectory() as scratch, torch_threads(scenario.get("threads")):
            context = make_context(Run(scenario, Path(scratch)), print)
            inputs = make_inputs(context)
            graphs = build_graphs(inputs.observe(), inputs.settings.nnz_cap)
    meta = folder.parent / "iterative" / "transform_meta.json"
    kept = json.loads(meta.read_text())["axes"] if meta.is_file() else {}
    found = {}
    for axis, W in graphs.items():
        best = np.argsort(-np.asarray(W.sum(axis=1)).ravel(), kind="stable")[: W.shape[0] // 2]
        alive = alive_of(kept[axis]["alive"] if axis in kept else best, W.shape[0])
        found[f"{axis} co-activation"] = W
        found[f"{axis} mask"] = check_w(mask_graph(alive, base=W))
    return found


def cost_for(D: int) -> CostConfig:
    """The project's cost; axes of a few elements (heads) are their own tiles."""
    return CostConfig() if D >= 64 else CostConfig(g=1, v=1)


def describe(report, seconds: float) -> dict:
    return {"J": report.J, "C": report.C, "Q": report.Q, "R_align": report.R_align, "seconds": seconds}


def measure(name: str, W, planted=None) -> dict:
    """Every peer and the solver on one instance."""
    W = check_w(W)
    D, cost = W.shape[0], cost_for(W.shape[0])
    entry = {"name": name, "D": D, "nnz": int(W.nnz), "peers": {}, "not_run": {}}
    for peer, order in PEERS.items():
        if peer in SLOW_PEERS and W.nnz > SLOW_PEERS_NNZ:
            entry["not_run"][peer] = f"not run above {SLOW_PEERS_NNZ:,} non-zeros"
            continue
        started = time.perf_counter()
        pi = order(W, cost, 0)
        seconds = time.perf_counter() - started
        entry["peers"][peer] = describe(evaluate_cost(W, np.asarray(pi, dtype=np.int64), cost), seconds)
    started = time.perf_counter()
    pi, stats = fit_permutation(W, cost=cost)
    entry["ours"] = describe(evaluate_cost(W, pi, cost), time.perf_counter() - started)
    entry["ours"] |= {key: stats[key] for key in ("winner", "iterations", "curve", "timed_out")}
    bound, how = lower_bound(W, cost)
    entry["bound"] = {"J": bound, "how": how}
    if planted is not None:
        J = [evaluate_cost(W, np.random.default_rng(s).permutation(D), cost).J for s in range(3)]
        entry["planted"], entry["random_mean"] = evaluate_cost(W, planted, cost).J, float(np.mean(J))
    best = min(entry["peers"], key=lambda peer: entry["peers"][peer]["J"])
    print(
        f"{name}: ours {entry['ours']['J']:.4f} in {entry['ours']['seconds']:.2f} s, best peer {best} "
        f"{entry['peers'][best]['J']:.4f} in {entry['peers'][best]['seconds']:.2f} s",
        flush=True,
    )
    return entry


def measure_longer(W) -> dict:
    """The best of a few seeds with ten times the effort: how much is left to gain."""
    started = time.perf_counter()
    runs = [
        fit_permutation(W, cost=cost_for(W.shape[0]), refine_steps=LONGER_STEPS, seed=seed)[1]["after"]
        for seed in range(LONGER_SEEDS)
    ]
    best, worst = (choose(runs, key=lambda run: run["J"]) for choose in (min, max))
    return best | {"worst_J": worst["J"], "seconds": time.perf_counter() - started, "refine_steps": LONGER_STEPS}


def gain(entry: dict) -> float:
    """By how much J is below the best peer's."""
    return entry["peers"][best_peer(entry)]["J"] - entry["ours"]["J"]


def measure_scaling(quick: bool) -> dict:
    """Seconds of the solver and of METIS against non-zeros, planted equal blocks; the fitted exponents."""
    shapes = [(256, 32), (512, 32), (1024, 32)] if quick else [(1280, 125), (2560, 125), (5120, 180), (10_240, 250)]
    shapes += [] if quick else [(20_000, 500)]
    rows = []
    for D, degree in shapes:
        W = check_w(planted_graph(D, degree=degree, seed=1)[0])
        row = {"D": D, "nnz": int(W.nnz)}
        for name, work in (
            ("ours", lambda W=W: fit_permutation(W)),
            ("METIS RB", lambda W=W: order_metis(W, CostConfig(), 0, True)),
        ):
            seconds = []
            for _ in range(3 if W.nnz < 3_000_000 else 1):
                started = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - started)
            row[name] = min(seconds)
        rows.append(row)
        print("scaling", row, flush=True)
    nnz = np.log([row["nnz"] for row in rows])
    fit = {name: float(np.polyfit(nnz, np.log([row[name] for row in rows]), 1)[0]) for name in ("ours", "METIS RB")}
    return {"rows": rows, "exponent": fit}


def measure_cold_start() -> dict:
    """Seconds of a first small solve in a fresh process: nothing compiled yet, and compiled code found on disk."""
    code = (
        "import time; t = time.perf_counter(); import numpy as np, scipy.sparse as sp; "
        "from icd_lib.solver import fit_permutation; "
        "W = sp.csr_array(np.ones((20, 20)) - np.eye(20)); u = time.perf_counter(); "
        "s = fit_permutation(W, refine_steps=10)[1]; print(u - t, time.perf_counter() - u, s['compile_s'])"
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for label in ("compiling", "cached"):
            env = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(ROOT)}
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
            keys = ("import_s", "first_solve_s", "compile_s")
            found[label] = dict(zip(keys, map(float, done.stdout.split()), strict=True))
    return found


def gap_pct(entry: dict, J: float) -> float | None:
    """100 (J - J_planted) / (J_random - J_planted)."""
    if "planted" not in entry:
        return None
    return 100 * (J - entry["planted"]) / (entry["random_mean"] - entry["planted"])


def best_peer(entry: dict) -> str:
    return min(entry["peers"], key=lambda peer: entry["peers"][peer]["J"])


def table(result: dict) -> str:
    """The Markdown of docs/SOLVER.md."""
    lines = [
        f"Measured on {result['machine']}, one thread, Python {result['python']}; J and C: lower is better.",
        "",
        "| instance | D | non-zeros | J | gap % | C | s | best peer | its J | its gap % | its C | its s | bound on J |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    for entry in result["instances"]:
        peer = best_peer(entry)
        ours, theirs = entry["ours"], entry["peers"][peer]
        gaps = ["" if (g := gap_pct(entry, J)) is None else f"{g:.2f}" for J in (ours["J"], theirs["J"])]
        lines.append(
            f"| {entry['name']} | {entry['D']:,} | {entry['nnz']:,} | {ours['J']:.4f} | {gaps[0]} | {ours['C']:.4f} "
            f"| {ours['seconds']:.2f} | {peer} | {theirs['J']:.4f} | {gaps[1]} | {theirs['C']:.4f} "
            f"| {theirs['seconds']:.2f} | {entry['bound']['J']:.3f} |"
        )
    worse = [e["name"] for e in result["instances"] if e["ours"]["J"] > e["peers"][best_peer(e)]["J"] + 1e-12]
    real = [e for e in result["instances"] if "planted" not in e and e["D"] > 64]
    gains = [gain(e) for e in real]
    higher = [e["name"] for e in real if e["ours"]["C"] > e["peers"][best_peer(e)]["C"]]
    lines += ["", f"- Instances where a peer has a lower J: {', '.join(worse) or 'none'}."]
    if real:
        below = [f"{e['name']} ({g:.3f})" for e, g in zip(real, gains, strict=True) if g < WANTED_GAIN]
        lines += [
            f"- Real graphs of 1,536 elements: J lower than the best peer's by {min(gains):.3f} to {max(gains):.3f}; "
            f"less than 0.05 on {', '.join(below) or 'none'}.",
            f"- Real graphs whose C is above the best peer's: {', '.join(higher) or 'none'}.",
        ]
    for entry in [e for e in real if "longer" in e]:
        longer = entry["longer"]
        left = entry["peers"][best_peer(entry)]["J"] - longer["J"]
        lines.append(
            f"- {entry['name']} with ten times the steps, {LONGER_SEEDS} seeds: J {longer['J']:.4f} to "
            f"{longer['worst_J']:.4f}, the best {left:.3f} below the best peer, C {longer['C']:.4f}, "
            f"{longer['seconds'] / LONGER_SEEDS:.1f} s each."
        )
    exponent, cold = result["scaling"]["exponent"], result["cold_start"]
    lines += [
        f"- Time grows like nnz^{exponent['ours']:.2f} (METIS alone: nnz^{exponent['METIS RB']:.2f}).",
        f"- Cold start, not in the seconds above: {cold['compiling']['compile_s']:.1f} s when nothing is compiled yet, "
        f"{cold['cached']['compile_s']:.2f} s when the compiled code is found on disk.",
    ]
    skipped = sorted({peer for e in result["instances"] for peer in e["not_run"]})
    if skipped:
        lines.append(f"- Not run above {SLOW_PEERS_NNZ:,} non-zeros (minutes each): {', '.join(skipped)}.")
    return "\n".join(lines)


@themed
def draw(result: dict, folder: Path) -> None:
    """J of every solver on every instance; J over time; time over size."""
    atomic_write(folder / "solver_gap.png", png_bytes(draw_gap(result["instances"])))
    atomic_write(folder / "solver_anytime.png", png_bytes(draw_anytime(result["instances"])))
    atomic_write(folder / "solver_scaling.png", png_bytes(draw_scaling(**result["scaling"])))


def draw_gap(entries: list[dict]):
    figure, axis = canvas(0.24 * len(entries) + 1.6)
    marks = dict(zip([p for p in PEERS if p not in ("random", "identity")], "s^vDPX", strict=True))
    for peer, mark in marks.items():
        points = [(e["peers"][peer]["J"], i) for i, e in enumerate(entries) if peer in e["peers"]]
        style = {"marker": mark, "s": 22, "color": OTHERS, "edgecolor": FULL, "linewidth": 0.4}
        axis.scatter(*zip(*points, strict=True), label=peer, **style)
    axis.scatter([e["ours"]["J"] for e in entries], range(len(entries)), s=38, color=OURS, zorder=3, label="ICD")
    axis.set_yticks(range(len(entries)), [e["name"] for e in entries])
    axis.margins(y=0.01)
    axis.invert_yaxis()
    axis.set_xlabel("objective J (lower is better)")
    axis.grid(axis="x")
    legend(figure, axis, 4)
    return figure


def draw_anytime(entries: list[dict]):
    shown = [e for e in entries if e["D"] > 64]
    wanted = ("blocks 2,560", "blocks 20,000 heavy", "ffn.0 co-activation", "ffn.0 mask")
    shown = [e for e in shown if e["name"] in wanted] or shown[:2]
    figure, axes = canvas(0.8 + 2.0 * len(shown), len(shown), squeeze=False)
    for axis, e in zip(axes[:, 0], shown, strict=True):
        seconds, J = zip(*e["ours"]["curve"], strict=True)
        end = e["ours"]["seconds"]
        axis.step([*seconds, end], [*J, J[-1]], where="post", color=OURS, label="ICD, best J so far")
        axis.scatter([end], [e["ours"]["J"]], color=OURS, s=24, zorder=3, label="ICD, returned (C guarded)")
        metis = e["peers"]["METIS RB"]
        reach = [metis["seconds"], max(end, 1.1 * metis["seconds"])]
        axis.plot(reach, [metis["J"]] * 2, "--", color=METIS, label="METIS")
        axis.scatter([metis["seconds"]], [metis["J"]], color=METIS, s=24, zorder=3)
        axis.set(title=e["name"], xscale="log", ylabel="objective J")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid()
    axes[-1, 0].set_xlabel("seconds")
    legend(figure, axes[0, 0], 2)
    return figure


def draw_scaling(rows: list[dict], exponent: dict):
    figure, axis = canvas(3.6)
    nnz = np.array([row["nnz"] for row in rows])
    for name, style, colour in (("ours", "o-", OURS), ("METIS RB", "s--", METIS)):
        label = f"{'ICD' if name == 'ours' else 'METIS alone'}: nnz^{exponent[name]:.2f}"
        axis.loglog(nnz, [row[name] for row in rows], style, color=colour, label=label)
    axis.set(xlabel="non-zeros of W", ylabel="seconds, one thread")
    axis.grid(which="both")
    axis.legend()
    return figure


def write_document(result: dict, path: Path) -> None:
    """Put the tables between the marks of docs/SOLVER.md."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(TABLE[0])
    after = rest.partition(TABLE[1])[2]
    path.write_text(f"{before}{TABLE[0]}\n\n{table(result)}\n\n{TABLE[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few small instances, to see that it works")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--out", type=Path, help="folder of the results (default: docs/figures, and docs/SOLVER.md)")
    parser.add_argument("--graphs", type=Path, default=ROOT / "outputs" / "bert" / "graph", help="a run's graph folder")
    args = parser.parse_args()
    folder = args.out or FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    warm_up()
    fit_permutation(planted_graph(300, degree=16)[0], refine_steps=20)
    result = {"machine": cpu_model(), "python": platform.python_version(), "quick": args.quick, "instances": []}
    partial = folder / "solver.partial.json"
    if args.resume and partial.is_file():
        result = json.loads(partial.read_text(encoding="utf-8"))
    done = {entry["name"] for entry in result["instances"]}

    def keep() -> None:
        atomic_write(partial, json.dumps(result, indent=1) + "\n")

    if "cold_start" not in result:
        result["cold_start"] = measure_cold_start()
        keep()
    if "scaling" not in result:
        result["scaling"] = measure_scaling(args.quick)
        keep()
    instances = planted_instances(args.quick)
    if not args.quick:
        instances |= {name: lambda W=W: (W,) for name, W in real_graphs(args.graphs).items()}
    for name, make in instances.items():
        if name not in done:
            result["instances"].append(measure(name, *make()))
            keep()
    found = real_graphs(args.graphs) if not args.quick else {}
    for entry in result["instances"]:
        if entry["name"] in found and entry["D"] > 64 and "longer" not in entry and gain(entry) < WANTED_GAIN:
            entry["longer"] = measure_longer(found[entry["name"]])
            keep()
    partial.replace(folder / "solver.json")
    draw(result, folder)
    if args.out is None and not args.quick:
        write_document(result, ROOT / "docs" / "SOLVER.md")
    else:
        print(table(result))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
