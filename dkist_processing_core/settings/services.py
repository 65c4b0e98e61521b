"""
The addresses of services: the values of the setting `MESH_CONFIG`.

Not here: reading them without pydantic (kinds), and how a client retries its connections (retries).
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dkist_processing_core.settings.addresses import MAX_PORT, Address, addresses, host_name


class MeshService(BaseModel):
    """Where a service is reached: the value of one key of `MESH_CONFIG`."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )

    host: Annotated[str, AfterValidator(host_name)] = Field(alias="mesh_address")
    port: int = Field(alias="mesh_port", ge=0, le=MAX_PORT)

    def __eq__(self, other: object) -> bool:
        """
        Compare host and port with those of an object of any class.

        Clients compare with the "unknown service" of another package, whose class is not ours.
        """
        return (self.host, self.port) == (getattr(other, "host", None), getattr(other, "port", None))

    def __hash__(self) -> int:
        """Return the hash of host and port."""
        return hash((self.host, self.port))


UNKNOWN_SERVICE = MeshService.model_construct(host="127.0.0.1", port=0)


def mesh(value: Any) -> Any:
    """Return the services of `MESH_CONFIG`; values that a program passes are left to pydantic, if they are no JSON."""
    services = addresses(value)
    if not isinstance(services, dict):
        return services
    return {
        name: MeshService.model_construct(**service._asdict()) if isinstance(service, Address) else service
        for name, service in services.items()
    }
