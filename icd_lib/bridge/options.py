"""Options of the bridge."""

from icd_lib.options import Section, option


class BridgeOptions(Section):
    """The compilers StableHLO/IREE and TVM Relax as further runtimes of the ladder; the section asks for them."""

    enable: bool = option(False, "measure dense, linear and iterative in both compilers too")
    tiles: bool = option(True, "offer the layout's tiles to the compiler")
    compile_timeout_s: float = option(600.0, "seconds after which a compile is stopped", unit="s", above=0)
    max_module_mb: int = option(
        1900, "weights of a module at most; both compilers address less than 2 GiB", unit="MB", low=1, high=2047
    )
