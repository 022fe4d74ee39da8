# expect: FAILED_TESTS wrong_type
async def add(a, b):
    return a + b
