"""Publishable adapters in MLflow's model registry: registered once, with lineage, moved by alias, checked when fetched.

    adapter folder + Lineage -> Registry.register -> ModelVersion -> promote, rollback -> resolve -> download -> serving

Example:
    >>> from didact.registry import parse_reference
    >>> parse_reference("demo@champion")
    Reference(name='demo', alias='champion', version=None)
"""

from didact.adapter_folder import AdapterFolder, adapter_identity, check_folder
from didact.registry.aliases import ANY
from didact.registry.card.tags import Figure, Lineage
from didact.registry.locate import locate_adapter, open_registry, recorded_base, registry_of, whole_model
from didact.registry.registry import Registry
from didact.registry.verdict import Verdict, why_refused
from didact.registry.versions import (
    CHAMPION,
    Holding,
    ModelVersion,
    Reference,
    Versions,
    meant_by_bare_name,
    parse_reference,
)

__all__ = [
    "ANY",
    "CHAMPION",
    "AdapterFolder",
    "Figure",
    "Holding",
    "Lineage",
    "ModelVersion",
    "Reference",
    "Registry",
    "Verdict",
    "Versions",
    "adapter_identity",
    "check_folder",
    "locate_adapter",
    "meant_by_bare_name",
    "open_registry",
    "parse_reference",
    "recorded_base",
    "registry_of",
    "whole_model",
    "why_refused",
]
