"""
`dkist-core notify`: check and try routes, and mute families of failures and workflows.

Not here: what the commands show and change (notify).
"""
