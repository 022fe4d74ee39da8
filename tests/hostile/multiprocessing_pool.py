# expect: RUNTIME_ERROR refused ImportError FileNotFoundError
import multiprocessing


def add(a, b):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, [a, b]))
