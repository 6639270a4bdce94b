"""Text of many worlds: each domain is one row of `DOMAINS`, read from a package by name, with what people said of it.

A domain calibrates (*seen*), or chooses strengths (*selection*), or judges once at the end (*unseen*); which of them it
does belongs to the scenario (`data.seen`, `data.selection`, `data.unseen`), not to the domain.
"""

from icd_lib.data.domains.domain import Domain, DomainText
from icd_lib.data.domains.groups import GROUPS, DomainGroups, check_groups, group_domains
from icd_lib.data.domains.registry import DOMAINS, load_domain

__all__ = ["DOMAINS", "GROUPS", "Domain", "DomainGroups", "DomainText", "check_groups", "group_domains", "load_domain"]
