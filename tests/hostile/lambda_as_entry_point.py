# expect: PASS
add = lambda a, b: a + b  # noqa: E731
