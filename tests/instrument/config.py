"""
Settings of the pipeline, read and logged as it is imported.
"""

from pydantic import BaseModel, Field

from dkist_processing_core.config import DKISTProcessingCoreConfiguration


class Service(BaseModel):
    """
    A service in the form of another package, whose `==` accepts only its own class.
    """

    host: str = Field(alias="mesh_address")
    port: int = Field(alias="mesh_port")


UNKNOWN = Service(mesh_address="127.0.0.1", mesh_port=0)


class InstrumentConfiguration(DKISTProcessingCoreConfiguration):
    """
    The settings of the library, and two more.
    """

    scratch_base_path: str = Field(default="scratch/", description="Where tasks share files.")
    object_store_secret_key: str | None = Field(default=None, description="The key of the object store.")

    @property
    def inventory(self) -> Service:
        """
        The address of the inventory: this host by default.
        """
        service = self.service_mesh_detail(service_name="inventory")
        if service == UNKNOWN:
            return Service(mesh_address="localhost", mesh_port=6379)
        return Service(mesh_address=service.host, mesh_port=service.port)

    @property
    def isb_connection_retryer(self) -> dict[str, float]:
        """
        The retry settings of connections, under the names of another package.
        """
        retry = self.retry_config
        return {
            "delay_min": retry.retry_delay,
            "delay_max": retry.retry_max_delay,
            "backoff": retry.retry_backoff,
            "jitter_min": retry.retry_jitter[0],
            "jitter_max": retry.retry_jitter[1],
            "attempts": retry.retry_tries,
        }


configurations = InstrumentConfiguration()
configurations.log_configurations(log_parent_configurations=False)
