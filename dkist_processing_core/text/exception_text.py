"""
An exception as plain text, safe against an author's code that runs when the parts of the exception are read.

It needs only the standard library: the bootstrap program carries this source into environments that hold any release.
These functions catch everything that the author's code raises here, `SystemExit` too. Not here: the fields of an event
(events), and redaction (redaction).
"""


def plain(value: object) -> str:
    """Return the text of a value as a plain `str`, not as a subclass with methods of its author."""
    return str.__str__(str(value))


def class_name(kind: type) -> str:
    """Return the name of a class, read by the slot of `type`: a metaclass may define a property of that name."""
    return plain(vars(type)["__name__"].__get__(kind))


def qualified_name(kind: type) -> str:
    """Return `module.name` of a class, without the module for a built-in class or one that names no module."""
    name = plain(vars(type)["__qualname__"].__get__(kind))
    try:
        module = plain(vars(type)["__module__"].__get__(kind) or "builtins")
    except BaseException:  # noqa: BLE001 - it may be deleted, or an object of any class
        module = "builtins"
    return name if module == "builtins" else f"{module}.{name}"


def message_of(error: BaseException) -> str:
    """Return the text of an exception."""
    try:
        return plain(error)
    except BaseException as unprintable:  # noqa: BLE001 - an author's __str__ may raise anything, SystemExit too
        return f"(its text cannot be read: __str__ raised {class_name(type(unprintable))})"


def stack_of(error: BaseException) -> str:
    """Return the traceback as Python formats it, or the functions that the exception passed through if that fails."""
    import traceback  # noqa: PLC0415 - most tasks do not fail, and are to start fast

    try:
        return "".join(traceback.format_exception(error))
    except BaseException as unprintable:  # noqa: BLE001 - it calls the author's exceptions, and the loaders of modules
        reason = f"(its stack cannot be read: formatting raised {class_name(type(unprintable))})"
    lines = [
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_qualname}\n'
        for frame, line in traceback.walk_tb(_trace_of(error))
    ]
    return "".join([*lines, f"{qualified_name(type(error))}\n" if lines else "", reason])


def frames_of(error: BaseException, without: "dict[str, object] | None" = None) -> list[str]:
    """Return the functions in the traceback as `module:function`, except those whose globals are `without`."""
    import traceback  # noqa: PLC0415 - as above

    return [
        f"{_module_of(frame.f_globals)}:{frame.f_code.co_qualname}"
        for frame, _ in traceback.walk_tb(_trace_of(error))
        if frame.f_globals is not without
    ]


def _trace_of(error: BaseException):  # type: ignore[no-untyped-def] # noqa: ANN202 - its class is in no module to import
    # It is read by the slot of BaseException, since a subclass may define a property of that name.
    return vars(BaseException)["__traceback__"].__get__(error)


def _module_of(names: "dict[str, object]") -> str:
    try:
        return plain(dict.get(names, "__name__", "?"))
    except BaseException:  # noqa: BLE001 - as above
        return "?"
