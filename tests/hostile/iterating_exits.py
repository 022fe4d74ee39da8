# expect: FAILED_TESTS wrong_value wrong_type
class Items(list):
    def __iter__(self):
        raise SystemExit

    def __len__(self):
        return 10**12


def add(a, b):
    return Items([1, 2])
