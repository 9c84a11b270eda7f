"""Where messages are kept until they are settled: one module a store, and what they decide by.

For whoever writes another, these are public: :mod:`.standing`, :mod:`.selection`,
:mod:`.intake`, :mod:`.instants`, :mod:`.retention`, :mod:`.limits`, :mod:`.suspending`,
:mod:`.news` and :mod:`.content`.
"""
