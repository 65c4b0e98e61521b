"""
Reading the settings for the package's own use: without pydantic if possible, otherwise by the settings class.

Only the settings class creates error messages. A test checks that both ways return equal settings. Not here: the two
ways (without_pydantic, configuration).
"""

from typing import TYPE_CHECKING

from dkist_processing_core.settings.credentials import OPT_IN
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.settings.origin import Origin
from dkist_processing_core.settings.without_pydantic import read_without_pydantic
from dkist_processing_core.text.redaction import secrets_of

if TYPE_CHECKING:
    from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration


def read_settings(origin: Origin | None = None) -> Settings:
    """
    Return the settings of an origin, by default of the one that was passed to this process, or else the current one.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    origin = origin or Origin.of_process()
    plain = read_without_pydantic(origin)
    return _settings_class().read(origin) if plain is None else plain


def read_leniently(origin: Origin | None = None) -> tuple[Settings, str | None]:
    """
    Return the settings as a task needs them, and a message about wrong ones, which have their defaults instead.

    Raises:
        ConfigurationError: A setting that decides where events go is wrong.
    """
    origin = origin or Origin.of_process()
    plain = read_without_pydantic(origin)
    return _settings_class().read_leniently(origin) if plain is None else (plain, None)


def secrets_in(settings: Settings | None) -> list[str]:
    """
    Return the texts that must not be shown: secret settings, secret variables, and secret entries of the file `.env`.

    Variables are included even after they are unset; entries of the file may be settings of a client or of a library.
    """
    if settings is None:
        return secrets_of(Origin.of_process().file_values())
    texts = {name: value for name, value in settings if isinstance(value, str)}
    origin = settings.core_origin
    return list(dict.fromkeys([*secrets_of(texts), *secrets_of(origin.environ), *secrets_of(origin.file_values())]))


def variables_from_file(settings: Settings) -> list[str]:
    """Return the variables whose values the settings have from the file `.env`."""
    origin = settings.core_origin
    names = {name.upper() for name, value in origin.dotenv.items() if value}
    variables = [name.upper() for name, _ in settings if name != OPT_IN]
    return [name for name in variables if name in names and not origin.environ.get(name)]


def _settings_class() -> "type[DKISTProcessingCoreConfiguration]":
    # Imported here, so that a task's process does not import pydantic.
    from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration  # noqa: PLC0415

    return DKISTProcessingCoreConfiguration
