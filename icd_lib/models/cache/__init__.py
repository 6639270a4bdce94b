"""A KV cache in pages for decoders, and the attention that reads it."""

from icd_lib.models.cache.attention import PAGED, use_paged_attention
from icd_lib.models.cache.cache import PAGE, PagedCache

__all__ = ["PAGE", "PAGED", "PagedCache", "use_paged_attention"]
