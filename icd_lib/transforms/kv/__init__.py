"""KV-cache compression: which tokens a cache loses, and how what is left is laid out in pages."""

from icd_lib.transforms.kv.evict import KvEvictor
from icd_lib.transforms.kv.policy import KvPolicy
from icd_lib.transforms.kv.record import KvRecord, record_cache

__all__ = ["KvEvictor", "KvPolicy", "KvRecord", "record_cache"]
