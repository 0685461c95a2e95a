"""The house: an any-to-any server. One request walks the eight steps that `pipeline.respond` names in order."""

__version__ = "0.1.0"
