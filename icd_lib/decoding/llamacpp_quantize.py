"""llama.cpp's own rounding of a GGUF file, in an environment that has llama-cpp-python; nothing of this is imported.

`python llamacpp_quantize.py SOURCE TARGET Q4_K_M 2`: the kind is one of llama.h's LLAMA_FTYPE_MOSTLY_…, then threads.
"""

import ctypes
import sys


def main(source, target, kind, threads):
    import llama_cpp as llama

    code = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}", None)
    if code is None:
        kinds = [name.removeprefix("LLAMA_FTYPE_MOSTLY_") for name in dir(llama) if "_FTYPE_MOSTLY_" in name]
        sys.exit(f"{kind} is unknown to llama.cpp {llama.__version__}; it takes {', '.join(sorted(kinds))}")
    llama.llama_backend_init()
    options = llama.llama_model_quantize_default_params()
    options.ftype, options.nthread = code, int(threads)
    status = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options))
    if status:
        sys.exit(f"llama_model_quantize returned {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
