"""NNCF's compression of a graph's weights: int8 per row, or int4 in groups with embedding and head in int8."""

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.optional import brief, load_optional

GROUP = 64


def compress_graph(graph, weights: str, *, group: int = GROUP, **options):
    """The graph with its weights in "int8" or "int4"; `group`: columns that share a scale in int4.

    Where a matrix's columns are no multiple of the group, a smaller power of two down to 16 is taken, else int8.
    options: more of `nncf.compress_weights`, for its data-aware methods. Raises `ResourceError` without nncf.
    """
    nncf = load_optional("nncf", "'icd-lib[runtimes]'")
    nncf.set_log_level("ERROR")
    if weights == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM, **options)
    if weights != "int4":
        raise ConfigError(f"weights are compressed to int8 or int4, not to {weights!r}")
    if group < 16 or group & (group - 1):
        raise ConfigError(f"groups of int4 are a power of two from 16 on, got {group}")
    advanced = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=16
    )
    try:
        return nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=group,
            ratio=1.0,
            advanced_parameters=advanced,
            **options,
        )
    except nncf.ValidationError as error:
        raise ResourceError(f"NNCF cannot compress this graph: {brief(error)}") from error
