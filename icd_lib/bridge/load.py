"""Run what the bridge wrote, with numpy and the compiler's runtime alone: no torch, nothing of this project.

from load import load
run = load("folder")           # the folder of icd.export_stablehlo or icd.export_tvm
output = run(input_ids, attention_mask)
"""

import json
import os

import numpy as np


def load(folder, threads=None):
    """A function of the model's inputs in the order of icd.json, arrays of exactly its shapes; it returns an array."""
    with open(os.path.join(folder, "icd.json"), encoding="utf-8") as file:
        record = json.load(file)
    path = os.path.join(folder, record["artifact"])
    wanted = [(item["name"], tuple(item["shape"]), np.dtype(item["dtype"])) for item in record["inputs"]]
    call = OPENERS[record["engine"]](path, threads)

    def run(*arrays):
        for (name, shape, dtype), array in zip(wanted, arrays, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} takes {dtype} {shape}, got {array.dtype} {array.shape}; compile this shape")
        return call(*arrays)

    return run


def open_iree(path, threads=None):
    import iree.runtime as rt

    if threads:
        rt.flags.parse_flags(f"--task_topology_group_count={threads}")
    config = rt.Config("local-task")
    with open(path, "rb") as file:
        module = rt.VmModule.copy_buffer(config.vm_instance, file.read())
    main = rt.load_vm_module(module, config).main
    return lambda *arrays: np.asarray(main(*arrays).to_host())


def open_tvm(path, threads=None):
    import tvm
    from tvm import relax

    if threads:
        tvm.get_global_func("runtime.config_threadpool")(1, threads)
    machine = relax.VirtualMachine(tvm.runtime.load_module(path), tvm.cpu())
    return lambda *arrays: machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()


OPENERS = {"stablehlo_iree": open_iree, "tvm_relax": open_tvm}
