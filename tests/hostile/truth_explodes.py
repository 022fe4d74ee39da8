# expect: FAILED_TESTS wrong_type
class Bomb:
    def __bool__(self):
        raise SystemExit

    def __len__(self):
        raise KeyboardInterrupt


def add(a, b):
    return Bomb()
