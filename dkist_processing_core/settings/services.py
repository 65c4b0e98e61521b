"""
The addresses of services: the values of the setting `MESH_CONFIG`.

Not here: reading them without pydantic (kinds), and how a client retries its connections (retries).
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dkist_processing_core.settings.kinds import MAX_PORT, OWN_SERVICES, host_name, json_object


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
    """Return the services of `MESH_CONFIG`: this package's own for pydantic to check, a client's unchanged."""
    services = json_object(value)
    if not isinstance(services, dict):
        return services
    return {name: service if name in OWN_SERVICES else _of_client(service) for name, service in services.items()}


def _of_client(service: Any) -> Any:
    """Return the address of a service that only a client uses; any address is accepted, as in release 7.x."""
    match service:
        case {"mesh_address": str(host), "mesh_port": int(port)}:
            return MeshService.model_construct(host=host, port=port)
        case _:
            return service
