"""The passes on StableHLO: each takes a parsed module, changes it in place and returns its log, a list of lines."""
