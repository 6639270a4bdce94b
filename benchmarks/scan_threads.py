"""Whose threads should run the scan? A matrix product of torch and a scan by turns, as in a model, on four pools.

    python benchmarks/scan_threads.py

"torch" is what the package uses (icd_lib/kernels/cpu_pool.py), "python" its substitute without OpenMP; "omp" and
"workqueue" are numba's threading layers, which a process can choose once: every pool is measured in a process of its
own, the pools in random order, `--rounds` times.
"""

import argparse
import os
import random
import subprocess
import sys

import numpy as np

from icd_lib.measure.latency import measure_interleaved

POOLS = ("torch", "python", "omp", "workqueue")
SEQUENCES, LENGTH, HIDDEN, INNER, STATES = 2, 256, 768, 1536, 16  # one layer of the 130M shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pool", choices=POOLS, help="measure this pool here, and print its milliseconds")
    options = parser.parse_args()
    if options.pool:
        print(measure(options.pool, options.threads))
        return
    found: dict[str, list[float]] = {pool: [] for pool in POOLS}
    for _ in range(options.rounds):
        for pool in random.sample(POOLS, len(POOLS)):
            command = [sys.executable, __file__, "--pool", pool, "--threads", str(options.threads)]
            environment = os.environ | {"NUMBA_NUM_THREADS": str(options.threads)}
            found[pool].append(float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout))
    for pool, ms in found.items():
        print(f"{pool:10} median {np.median(ms):6.2f} ms a layer, from {min(ms):.2f} to {max(ms):.2f}")


def measure(pool: str, threads: int) -> float:
    """Median milliseconds of a product and a scan, one after the other."""
    import torch

    torch.set_num_threads(threads)
    choose_pool(pool)
    from icd_lib.kernels import selective_scan

    torch.manual_seed(0)
    hidden, weight = torch.randn(SEQUENCES, LENGTH, HIDDEN), torch.randn(2 * INNER, HIDDEN) / 30
    A, bias = -torch.rand(INNER, STATES) * STATES, torch.randn(INNER) - 4
    B, C = (torch.randn(SEQUENCES, LENGTH, STATES).transpose(1, 2) for _ in range(2))

    def layer():
        x, z = torch.nn.functional.linear(hidden, weight).chunk(2, dim=-1)
        u, gate = x.transpose(1, 2), z.transpose(1, 2)
        selective_scan(u, u, A, B, C, bias, gate, bias, True)

    with torch.inference_mode():
        return float(np.median(measure_interleaved({"layer": layer}, repeats=200, warmup=20)["layer"]))


def choose_pool(pool: str) -> None:
    """Let the forward scan of this process run on `pool`."""
    import numba

    from icd_lib.kernels import cpu_pool, cpu_scan

    if pool == "python":
        cpu_pool._openmp_parallel = lambda: None
    elif pool in ("omp", "workqueue"):
        numba.config.THREADING_LAYER = pool
        task, tasks, zero = cpu_scan._forward_task, cpu_pool.TASKS, np.float32(0)

        @numba.njit(parallel=True)
        def run(arguments):
            for number in numba.prange(arguments[tasks]):
                task(arguments, number, zero)

        cpu_scan.forward = lambda arguments, threads: run(arguments)


if __name__ == "__main__":
    main()
