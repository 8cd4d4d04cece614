"""The section `cluster`: on which machines the engines are."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import Section

DEFAULTS = {"address": "auto", "actors_per_node": 1, "interface": None, "resources": {}, "wait_s": 600.0}


class ClusterConfig(Section):
    """This machine alone, or a Ray cluster, and what is used of each of its machines."""

    kind: Literal["local", "ray"] = "local"
    address: str = Field(default="auto", min_length=1)
    actors_per_node: int = Field(default=1, ge=1)
    interface: str | None = None
    resources: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it
    wait_s: float = Field(default=600.0, gt=0)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == "local":
            for key, value in DEFAULTS.items():
                if getattr(self, key) != value:
                    raise ValueError(f"{key}={getattr(self, key)} has no effect on one machine: set cluster=ray")
        return self

    @model_validator(mode="after")
    def _check_interface(self) -> Self:
        """Require one address: on all interfaces (0.0.0.0) anyone who reaches this machine could try to connect."""
        if self.interface is None:
            return self
        try:
            address = ip_address(self.interface)
        except ValueError:
            raise ValueError(f"interface={self.interface} is not an IP address of this machine") from None
        if address.is_unspecified:
            raise ValueError(f"interface={self.interface} means all interfaces: give the address of one")
        return self

    @model_validator(mode="after")
    def _check_resources(self) -> Self:
        for name, amount in self.resources.items():
            if not name or amount <= 0:
                raise ValueError(f"resources: {name or 'an empty name'}: {amount}: give a name and a positive amount")
        return self
