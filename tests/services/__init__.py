"""
Services for the tests: a private broker, a telemetry receiver, sockets that misbehave.

Not here: anything that imports the library. A service must not share a mistake with what it tests.
"""
